//! Errors that end the daemon.

use crate::mqtt::TlsError;
use crate::spool::SpoolError;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The password file cannot be read.
    #[error("mqtt.password_file {path}: {error}")]
    Password {
        /// The file.
        path: String,
        /// The cause.
        error: std::io::Error,
    },
    /// A key is set without another one that it needs.
    #[error("{} requires {}; set both or neither", .0[0], .0[1])]
    IncompletePair([&'static str; 2]),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The spool belongs to another user.
    #[error(
        "spool.path: {path} belongs to the user {owner}, and the daemon runs as the user {user}, who cannot write to \
         it; sudo chown {user} {path}"
    )]
    ForeignSpool {
        /// The file or directory.
        path: String,
        /// Its owner.
        owner: String,
        /// The user of this process.
        user: String,
    },
    /// A model cannot be loaded.
    #[error("{0}")]
    Model(String),
    /// A task or thread ended unexpectedly, which is a bug in this program.
    #[error("{0} ended unexpectedly: {1}")]
    Ended(&'static str, String),
}
