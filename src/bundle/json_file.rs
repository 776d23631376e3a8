//! JSON files of a bundle, which may be missing.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::BundleError;
use crate::serde_message::{DocumentFormat, without_rust_types};

/// Returns `None` if the file does not exist.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, BundleError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BundleError::reading(path)(error)),
    }
}

/// Returns the default value if the file does not exist. An error names the key at fault.
pub(crate) fn read_or_default<T: DeserializeOwned + Default>(path: &Path) -> Result<T, BundleError> {
    let Some(text) = read_text(path)? else { return Ok(T::default()) };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // "." is the whole file.
        let key = Some(error.path().to_string()).filter(|key| key != ".");
        let key = key.map_or_else(String::new, |key| format!("{key}: "));
        let reason = without_rust_types(&error.into_inner().to_string(), DocumentFormat::Json);
        BundleError::Content { path: path.to_owned(), fault: format!("{key}{reason}") }
    })
}
