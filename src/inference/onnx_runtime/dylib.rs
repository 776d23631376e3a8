//! ONNX Runtime's library: where it is searched, and the one environment of this process.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::inference::error::LibraryError;

/// A loaded library. A process can load one only.
#[derive(Debug, Clone)]
pub(in crate::inference) struct Runtime {
    pub(super) environment: ort::environment::Environment,
    pub(super) version: String,
    path: PathBuf,
}

impl Runtime {
    /// Whether the library has this version or a newer one. An unreadable version counts as newer.
    pub(super) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        is_at_least(&self.version, (major, minor))
    }
}

/// Whether a version is this one or a newer one. An unreadable version counts as newer.
pub(in crate::inference) fn is_at_least(version: &str, min: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= min,
        _ => true,
    }
}

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// Loads the library, which must exist.
pub(in crate::inference) fn load_required(configured: Option<&Path>) -> Result<Runtime, LibraryError> {
    match named_library(configured) {
        Some(path) => load(&path),
        None => load(Path::new(FILE_NAME)).map_err(|error| LibraryError::NotFound {
            reason: match error {
                LibraryError::Load { reason, .. } => reason,
                other => other.to_string(),
            },
        }),
    }
}

/// Loads the library. Returns `None` if none is named and the loader's path has none.
pub(in crate::inference) fn load_if_present(
    configured: Option<&Path>,
) -> Result<Option<Runtime>, LibraryError> {
    match named_library(configured) {
        Some(path) => load(&path).map(Some),
        None => match load(Path::new(FILE_NAME)) {
            Ok(runtime) => Ok(Some(runtime)),
            Err(error) => {
                log::debug!("the loader's path has no ONNX Runtime: {error}");
                Ok(None)
            }
        },
    }
}

const FILE_NAME: &str = "libonnxruntime.so";
const DIRECTORY: &str = "/usr/lib/denoised";

fn named_library(configured: Option<&Path>) -> Option<PathBuf> {
    configured
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from))
        .or_else(|| newest_in(Path::new(DIRECTORY)))
}

/// The last libonnxruntime.so* of a directory in the order of names.
fn newest_in(directory: &Path) -> Option<PathBuf> {
    std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE_NAME)))
        .max()
}

fn load(path: &Path) -> Result<Runtime, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(runtime) = loaded.as_ref() {
        return if runtime.path == path {
            Ok(runtime.clone())
        } else {
            Err(LibraryError::Other { requested: path.to_owned(), loaded: runtime.path.clone() })
        };
    }
    let failed = |reason: String| LibraryError::Load { path: path.to_owned(), reason };
    let environment = ort::init_from(path)
        .map_err(|error| failed(error.to_string()))?
        .with_name("denoised")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let runtime = Runtime { environment, version: version(path), path: path.to_owned() };
    log::info!("loaded ONNX Runtime {} from {}", runtime.version, path.display());
    Ok(loaded.insert(runtime).clone())
}

/// The version in the real name of the library's file, or the library's build information.
fn version(path: &Path) -> String {
    path.canonicalize()
        .ok()
        .and_then(|real| {
            let name = real.file_name()?.to_string_lossy().into_owned();
            let version = name.strip_prefix("libonnxruntime.so.")?;
            Some(version.to_owned())
        })
        .unwrap_or_else(|| ort::info().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let newer = ["1.23.0", "1.23.2", "1.100.1", "2.0.0", "ORT Build Info: git-branch=HEAD"];
        let older = ["1.22.9", "1.9.1", "0.99.0"];
        assert!(newer.iter().all(|version| is_at_least(version, (1, 23))));
        assert!(!older.iter().any(|version| is_at_least(version, (1, 23))));
    }
}
