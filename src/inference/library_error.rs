//! Why ONNX Runtime's library cannot be used.

use std::path::{Path, PathBuf};

/// ONNX Runtime's library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The library is required and was not found.
    #[error(
        "no ONNX Runtime library was found in [engine] library, ORT_DYLIB_PATH, /usr/lib/denoised \
         or the loader's path ({reason}). Name libonnxruntime.so.X.Y.Z in one of them, or set \
         [engine] kind = \"embedded\""
    )]
    NotFound {
        /// The loader's message.
        reason: String,
    },
    /// A library that was named cannot be loaded.
    #[error("{}; {}", cause(path, fault, *setting), advice(*setting))]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do if it is the right file.
        fault: LibraryFault,
        /// The setting that names it; `None` for a file in /usr/lib/denoised or in the loader's path.
        setting: Option<&'static str>,
    },
    /// The process has already loaded another library.
    #[error("{requested}: cannot load ONNX Runtime, because this process already runs {loaded}")]
    Other {
        /// The library to load.
        requested: PathBuf,
        /// The library that is loaded.
        loaded: PathBuf,
    },
}

/// What is wrong with a library, and which setting names it.
pub(crate) fn cause(path: &Path, fault: &LibraryFault, setting: Option<&str>) -> String {
    let named = setting.map_or_else(String::new, |setting| format!("{setting} is "));
    format!("{named}{}: cannot load ONNX Runtime: {fault}", path.display())
}

/// What to do about a library that cannot be loaded.
pub(crate) fn advice(setting: Option<&str>) -> String {
    match setting {
        Some(setting) => format!("unset or correct {setting}"),
        None => "replace or remove this file".to_owned(),
    }
}

/// Why a file cannot be loaded as ONNX Runtime's library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryFault {
    /// There is no file.
    #[error("there is no such file")]
    Missing,
    /// It is a directory.
    #[error("it is a directory; name the file libonnxruntime.so.X.Y.Z in it")]
    Directory,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// The file is something else, with what to do.
    #[error("{0}")]
    OtherContent(&'static str),
    /// The file is no library of this system.
    #[error("it is not an ELF file, as every library of Linux is; name the file libonnxruntime.so.X.Y.Z")]
    NotElf,
    /// The library is one for other processors.
    #[error("it is built for {found}, and this program for {own}; download the library for {own}")]
    Architecture {
        /// The processor of the library.
        found: String,
        /// The processor of this program.
        own: &'static str,
    },
    /// The file is shorter than its headers say. The dynamic loader would end the process when it reads the rest.
    #[error("it ends after {found} of {expected} bytes; copy or download it again")]
    Truncated {
        /// The length of the file.
        found: u64,
        /// The length that the headers need.
        expected: u64,
    },
    /// The dynamic loader refuses the file.
    #[error("the dynamic loader reports: {reason}. {}", loader_hint(reason))]
    Loader {
        /// The loader's message.
        reason: String,
    },
    /// The library has not the functions of ONNX Runtime.
    #[error("it is another library, without OrtGetApiBase; name the file libonnxruntime.so.X.Y.Z")]
    OtherLibrary,
    /// The library is too old.
    #[error("its version is {version}; use ONNX Runtime 1.17 or newer")]
    TooOld {
        /// The library's version.
        version: String,
    },
    /// ONNX Runtime cannot be initialised.
    #[error("{0}")]
    Initialisation(String),
}

/// Returns what to do about a message of the dynamic loader.
fn loader_hint(reason: &str) -> &'static str {
    if reason.contains("cannot open shared object file") {
        "Install the library that is missing"
    } else if reason.contains("not found") {
        "Use a build of ONNX Runtime for this system's version of that library"
    } else {
        "Download ONNX Runtime for this system again"
    }
}
