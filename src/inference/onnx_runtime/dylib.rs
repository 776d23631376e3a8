//! ONNX Runtime's library: where it is looked for, and the one environment of this process.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A library that is loaded; the runtime's functions and environment are the process's own.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) environment: ort::environment::Environment,
    pub(crate) version: String,
    path: PathBuf,
}

impl Runtime {
    /// Whether its version is this one or newer, as far as its version can be read.
    pub(crate) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        is_at_least(&self.version, (major, minor))
    }
}

fn is_at_least(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= least,
        _ => true,
    }
}

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// ONNX Runtime can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It was asked for and is nowhere.
    #[error(
        "no ONNX Runtime library was found in [engine] library, ORT_DYLIB_PATH, /usr/lib/denoised \
         or the loader's path ({reason}). Name libonnxruntime.so.X.Y.Z in one of them, or set \
         [engine] kind = \"embedded\""
    )]
    NotFound {
        /// The loader's words.
        reason: String,
    },
    /// A library that was named can't be loaded.
    #[error(
        "{path}: ONNX Runtime can't be loaded: {reason}. Any version from 1.17 on works; the name \
         must be that of libonnxruntime.so.X.Y.Z itself"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// Another library already serves this process.
    #[error("{asked}: this process already runs ONNX Runtime from {loaded}")]
    Other {
        /// As asked for.
        asked: PathBuf,
        /// What serves.
        loaded: PathBuf,
    },
}

/// The library, which must be there.
pub(crate) fn required(configured: Option<&Path>) -> Result<Runtime, LibraryError> {
    match named(configured) {
        Some(path) => load(&path),
        None => load(Path::new(BARE_NAME)).map_err(|error| LibraryError::NotFound {
            reason: match error {
                LibraryError::Load { reason, .. } => reason,
                other => other.to_string(),
            },
        }),
    }
}

/// The library, if there is one: one that was named must load, the loader's path may lack it.
pub(crate) fn if_present(configured: Option<&Path>) -> Result<Option<Runtime>, LibraryError> {
    match named(configured) {
        Some(path) => load(&path).map(Some),
        None => match load(Path::new(BARE_NAME)) {
            Ok(runtime) => Ok(Some(runtime)),
            Err(error) => {
                log::debug!("no ONNX Runtime in the loader's path: {error}");
                Ok(None)
            }
        },
    }
}

const BARE_NAME: &str = "libonnxruntime.so";
const DIRECTORY: &str = "/usr/lib/denoised";

fn named(configured: Option<&Path>) -> Option<PathBuf> {
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
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BARE_NAME)))
        .max()
}

fn load(path: &Path) -> Result<Runtime, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(runtime) = loaded.as_ref() {
        return if runtime.path == path {
            Ok(runtime.clone())
        } else {
            Err(LibraryError::Other { asked: path.to_owned(), loaded: runtime.path.clone() })
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

/// The version in the library's real file name, or what the library says of its build.
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
