//! JSON files of a bundle, which may be missing, and other files of text.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::BundleError;
use super::inventory::is_component;
use crate::file_kind::{Expected, unexpected_content};
use crate::json_input::{file_fault, type_fault};
use crate::regular_file;

/// Returns `None` if the file does not exist.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, BundleError> {
    match regular_file::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BundleError::reading(path)(error)),
    }
}

/// Returns the default value if the file does not exist. An error names the key at fault. A whole number may be written
/// with a fraction of 0, and of a repeated key the last counts, as in Python.
pub(crate) fn read_or_default<T: DeserializeOwned + Default>(path: &Path) -> Result<T, BundleError> {
    let Some(text) = read_text(path)? else { return Ok(T::default()) };
    let fault = |fault: String| BundleError::Content { path: path.to_owned(), fault };
    let value: Json = serde_json::from_str(&text).map_err(|_| fault(file_fault(&text)))?;
    serde_path_to_error::deserialize(with_whole_numbers(value))
        .map_err(|error| fault(type_fault(error.path(), &error.inner().to_string(), &text)))
}

/// Turns numbers such as 4.0 into integers. Larger ones are not exact.
fn with_whole_numbers(value: Json) -> Json {
    match value {
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                Json::from(float as i64)
            }
            _ => Json::Number(number),
        },
        Json::Array(values) => values.into_iter().map(with_whole_numbers).collect(),
        Json::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, with_whole_numbers(value))).collect()
        }
        other => other,
    }
}

/// Checks the files in a bundle's directory and in the folders in it: no link may lead nowhere, no file may be a folder, a
/// FIFO or a device, and no file of text a pointer of Git LFS or a web page. Other files than those of graphs and
/// configurations are ignored.
pub(super) fn check_files(directory: &Path) -> Result<(), BundleError> {
    let visible = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let is_visible =
            |path: &PathBuf| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."));
        entries.map(|entry| entry.path()).filter(is_visible).collect()
    };
    let mut files = visible(directory);
    let is_component =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_component);
    let is_broken = |path: &PathBuf| path.is_symlink() && !path.exists();
    if let Some(path) = files.iter().find(|path| is_component(path) && is_broken(path)) {
        let fault =
            "this link leads to a folder that is missing; correct the link, or download the model again";
        return Err(BundleError::Content { path: path.clone(), fault: fault.to_owned() });
    }
    let of_folders: Vec<_> =
        files.iter().filter(|path| path.is_dir()).flat_map(|folder| visible(folder)).collect();
    files.extend(of_folders);
    files.sort();
    for path in files {
        let expected = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Some(Expected::Text),
            Some("toml" | "txt") => Some(Expected::Weights),
            // The contents are checked when the graph is read, if it is used.
            _ if path.ends_with("model.onnx") => None,
            _ => continue,
        };
        if is_broken(&path) {
            let fault = "this link leads to a file that is missing; download the model again".to_owned();
            return Err(BundleError::Content { path, fault });
        }
        regular_file::check(&path).map_err(BundleError::reading(&path))?;
        let Some(expected) = expected else { continue };
        if let Some(fault) = unexpected_content(&path, expected).map_err(BundleError::reading(&path))? {
            return Err(BundleError::Content { path, fault: fault.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Config {
        #[allow(dead_code)]
        channels: Option<usize>,
    }

    /// 18446744073709551617 was repeated as 18446744073709552000.
    #[test]
    fn a_large_integer_of_a_configuration_was_repeated_rounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (number, written) in [
            ("18446744073709551617", "18446744073709551617"),
            ("-99999999999999999999", "-99999999999999999999"),
            ("1.5", "1.5"),
        ] {
            std::fs::write(file.path(), format!("{{\"channels\": {number}}}")).unwrap();
            let error = read_or_default::<Config>(file.path()).unwrap_err().to_string();
            let expected = format!("channels is {written}, but must be an integer, 0 or more");
            assert!(error.ends_with(&expected), "{error}");
        }
    }
}
