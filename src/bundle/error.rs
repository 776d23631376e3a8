//! Why a bundle cannot be read.

use std::path::{Path, PathBuf};

use super::scheduler_config::ConfigError;
use crate::onnx::OnnxError;

/// A bundle that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The path is not a directory.
    #[error("{0} is not a directory; name the directory of a model")]
    NoDirectory(PathBuf),
    /// A required file does not exist.
    #[error("{directory}: the bundle has none of: {}; {advice}", searched.join(", "))]
    Missing {
        /// The bundle.
        directory: PathBuf,
        /// The paths that were tried, relative to the bundle.
        searched: Vec<String>,
        /// What to do.
        advice: String,
    },
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// The contents of a file are invalid.
    #[error("{path}: {fault}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault, with its line or key.
        fault: String,
    },
    /// A graph or its external data cannot be used.
    #[error(transparent)]
    Graph(#[from] OnnxError),
    /// The scheduler configuration is invalid.
    #[error(transparent)]
    Scheduler(#[from] ConfigError),
}

impl BundleError {
    /// For `map_err` on an I/O operation on `path`.
    pub(super) fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |error| Self::Read { path, error }
    }
}
