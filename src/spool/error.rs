//! Errors of opening and using the spool.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// An error of the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory or the file can't be accessed.
    #[error("spool.path {path}: {error}; set it to a directory that the daemon can write to")]
    Directory {
        /// The directory or the file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The disk is full.
    #[error("spool.path {path}: {error}; free space on this disk, or set another directory")]
    Full {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// Another process has locked the file.
    #[error("{0} is in use by another daemon; set a different spool.path for each daemon")]
    InUse(PathBuf),
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: String,
    },
}

/// Why a file can't be opened as a spool.
pub(super) enum OpenError {
    InUse,
    Io(std::io::Error),
    /// The file is not a spool, or it is corrupted.
    Invalid(String),
}

impl OpenError {
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == ErrorKind::StorageFull)
    }

    pub(super) fn with_path(self, path: &Path) -> SpoolError {
        let path = path.to_owned();
        match self {
            Self::InUse => SpoolError::InUse(path),
            Self::Io(error) if error.kind() == ErrorKind::StorageFull => SpoolError::Full { path, error },
            Self::Io(error) => SpoolError::Directory { path, error },
            Self::Invalid(error) => SpoolError::Io { path, error },
        }
    }
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            // redb reports a file of another format as one of these kinds.
            redb::Error::Io(error)
                if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Self::Io(error)
            }
            other => Self::Invalid(other.to_string()),
        }
    }
}
