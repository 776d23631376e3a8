//! ONNX Runtime's library: where it is searched, and the one environment of this process.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::library_file;
use crate::inference::library_error::{LibraryError, LibraryFault};

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
        Some(named) => load_named(&named),
        None => load(Path::new(FILE_NAME), None).map_err(|error| LibraryError::NotFound {
            reason: match error {
                LibraryError::Load { fault: LibraryFault::Loader { reason }, .. } => reason,
                LibraryError::Load { fault, .. } => fault.to_string(),
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
        Some(named) => load_named(&named).map(Some),
        None => match load(Path::new(FILE_NAME), None) {
            Ok(runtime) => Ok(Some(runtime)),
            Err(error) => {
                log::debug!("the loader's path has no ONNX Runtime: {error}");
                Ok(None)
            }
        },
    }
}

/// Loads a library by its path. A name without a directory is that of a file here or in the loader's path.
fn load_named(named: &NamedLibrary) -> Result<Runtime, LibraryError> {
    let NamedLibrary { path, setting } = named;
    if path.components().count() == 1 && !path.exists() {
        return load(path, *setting);
    }
    let failed = |fault| LibraryError::Load { path: path.clone(), fault, setting: *setting };
    library_file::check(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(|error| failed(LibraryFault::Unreadable(error)))?;
    load(&absolute, *setting)
}

const FILE_NAME: &str = "libonnxruntime.so";
const DIRECTORY: &str = "/usr/lib/denoised";

/// The environment variables that name a library: that of the configuration's key, and the one of `ort`.
const CONFIGURING_VARIABLE: &str = "DENOISED_ENGINE__LIBRARY";
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// A library's file, and the setting that names it.
struct NamedLibrary {
    path: PathBuf,
    setting: Option<&'static str>,
}

fn named_library(configured: Option<&Path>) -> Option<NamedLibrary> {
    let variable = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = configured {
        let is_from_variable = variable(CONFIGURING_VARIABLE).is_some_and(|named| named == path);
        let setting = if is_from_variable { CONFIGURING_VARIABLE } else { "engine.library" };
        return Some(NamedLibrary { path: path.to_owned(), setting: Some(setting) });
    }
    match variable(VARIABLE) {
        Some(path) => Some(NamedLibrary { path, setting: Some(VARIABLE) }),
        None => newest_in(Path::new(DIRECTORY)).map(|path| NamedLibrary { path, setting: None }),
    }
}

/// The last libonnxruntime.so* of a directory in the order of names.
fn newest_in(directory: &Path) -> Option<PathBuf> {
    std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE_NAME)))
        .max()
}

fn load(path: &Path, setting: Option<&'static str>) -> Result<Runtime, LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(runtime) = loaded.as_ref() {
        return if runtime.path == path {
            Ok(runtime.clone())
        } else {
            Err(LibraryError::Other { requested: path.to_owned(), loaded: runtime.path.clone() })
        };
    }
    let failed = |fault| LibraryError::Load { path: path.to_owned(), fault, setting };
    let environment = ort::init_from(path)
        .map_err(|error| failed(load_fault(&error)))?
        .with_name("denoised")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(LibraryFault::Initialisation(error.to_string())))?;
    let runtime = Runtime { environment, version: version(path), path: path.to_owned() };
    log::info!("loaded ONNX Runtime {} from {}", runtime.version, path.display());
    Ok(loaded.insert(runtime).clone())
}

/// Returns what is wrong with a library that the dynamic loader or `ort` refuses.
fn load_fault(error: &ort::LoadDynamicError) -> LibraryFault {
    use ort::LoadDynamicError;
    match error {
        LoadDynamicError::Dlopen { error, .. } => {
            let reason =
                std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
            LibraryFault::Loader { reason }
        }
        LoadDynamicError::MissingApi { .. } => LibraryFault::OtherLibrary,
        LoadDynamicError::BadVersion { version_str, .. } => {
            LibraryFault::TooOld { version: version_str.clone() }
        }
        LoadDynamicError::InvalidVersionString => LibraryFault::Initialisation(error.to_string()),
    }
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
