//! Why an ONNX file or its external data cannot be used.

use std::path::{Path, PathBuf};

use rten_onnx::protobuf::{ErrorKind, ProtobufError};

/// An ONNX file, or a file of its external data, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct OnnxError {
    /// The file.
    pub path: PathBuf,
    /// The fault, with what to do.
    pub fault: String,
}

impl OnnxError {
    pub(super) fn new(path: &Path, fault: impl Into<String>) -> Self {
        Self { path: path.to_owned(), fault: fault.into() }
    }

    /// For `map_err` on an I/O operation on `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { path, fault: error.to_string() }
    }
}

/// Why a file cannot be decoded. The decoder's own messages name Rust types.
pub(crate) fn decoding_fault(error: &ProtobufError) -> String {
    match error.kind() {
        ErrorKind::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => error.to_string(),
        ErrorKind::IoError(_) | ErrorKind::Eof => "it ends early".to_owned(),
        _ => "its contents are damaged".to_owned(),
    }
}
