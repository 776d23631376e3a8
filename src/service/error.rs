//! What ends the daemon.

use crate::mqtt::TlsError;
use crate::spool::SpoolError;

/// Why the daemon can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The password's file.
    #[error("mqtt.password_file {path}: {error}")]
    Password {
        /// The file.
        path: String,
        /// Why it can't be read.
        #[source]
        error: std::io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A model can't be loaded.
    #[error("{0}")]
    Model(String),
    /// A part ended by itself, which is a fault of this program.
    #[error("{0} ended unexpectedly: {1}")]
    Ended(&'static str, String),
}
