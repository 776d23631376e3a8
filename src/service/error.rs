//! Errors that end the daemon.

use std::path::PathBuf;

use crate::mqtt::TlsError;
use crate::spool::SpoolError;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The password cannot be used.
    #[error("{subject} {}: {reason}", path.display())]
    Password {
        /// The key that names the file, or the credential.
        subject: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
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
         it; sudo chown {user} {files}"
    )]
    ForeignSpool {
        /// The file or directory.
        path: String,
        /// Its owner.
        owner: String,
        /// The user of this process.
        user: String,
        /// All files of the spool that belong to another user, separated by spaces.
        files: String,
    },
    /// A model cannot be loaded.
    #[error("{0}")]
    Model(String),
    /// A task or thread ended unexpectedly, which is a bug in this program.
    #[error("{0} ended unexpectedly: {1}")]
    Ended(&'static str, String),
}
