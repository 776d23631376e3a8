//! The files that hold the values of a graph's tensors outside the ONNX file.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::error::OnnxError;
use super::header::ExternalTensor;
use crate::file_kind::{Expected, unexpected_content};

/// A file of external data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// The path relative to the graph's directory, without `.` and `..`.
    pub(crate) location: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// The files that the tensors of a graph name, in the order of their locations. Fails unless each has all values.
///
/// The files are searched beside the path of the graph, whether or not that is a link, as its exporter wrote them.
pub(super) fn data_files(graph: &Path, tensors: &[ExternalTensor]) -> Result<Vec<DataFile>, OnnxError> {
    let directory = graph.parent().unwrap_or(Path::new(""));
    let mut files = BTreeMap::new();
    for tensor in tensors {
        let location = normalized(&tensor.location).ok_or_else(|| {
            OnnxError::new(
                graph,
                format!(
                    "the values of {:?} are in {:?}, outside the folder of the graph; save the model again with its \
                     weights in the folder",
                    tensor.name, tensor.location
                ),
            )
        })?;
        let file = match files.get(&location) {
            Some(file) => file,
            None => {
                let file = open(graph, directory.join(&location), &location)?;
                files.entry(location).or_insert(file)
            }
        };
        check_len(graph, file, tensor)?;
    }
    Ok(files.into_values().collect())
}

fn open(graph: &Path, path: PathBuf, location: &str) -> Result<DataFile, OnnxError> {
    let graph_name = graph.file_name().unwrap_or_default().to_string_lossy();
    let Ok(metadata) = path.metadata() else {
        let fault = if path.is_symlink() {
            format!(
                "{graph_name} has weights in this file, a link to a file that is missing; download the model again"
            )
        } else {
            format!(
                "{graph_name} has weights in this file, which is missing; copy {location} to the folder of \
                 {graph_name}, or export the model again"
            )
        };
        return Err(OnnxError::new(&path, fault));
    };
    if !metadata.is_file() {
        return Err(OnnxError::new(
            &path,
            format!("{graph_name} has weights here, but this is not a file; export the model again"),
        ));
    }
    match unexpected_content(&path, Expected::Weights).map_err(OnnxError::io(&path))? {
        Some(fault) => Err(OnnxError::new(&path, fault)),
        None => Ok(DataFile { location: location.to_owned(), path, len: metadata.len() }),
    }
}

fn check_len(graph: &Path, file: &DataFile, tensor: &ExternalTensor) -> Result<(), OnnxError> {
    let needed = tensor.offset.checked_add(tensor.len.or(tensor.size).unwrap_or(0));
    if needed.is_some_and(|needed| needed <= file.len) {
        return Ok(());
    }
    let graph_name = graph.file_name().unwrap_or_default().to_string_lossy();
    let needed = needed.map_or_else(|| "more".to_owned(), |needed| needed.to_string());
    Err(OnnxError::new(
        &file.path,
        format!(
            "it has {} bytes, but {graph_name} has the values of {:?} in {needed} bytes of it; the file is not whole, so \
             copy or download it again",
            file.len, tensor.name
        ),
    ))
}

/// The location without `.` and `..`. `None` if it is empty or leads out of the folder.
pub(super) fn normalized(location: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_inside_the_folder_or_refused() {
        for (location, expected) in [
            ("weights.bin", Some("weights.bin")),
            ("./a/./b.data", Some("a/b.data")),
            ("a/../b.data", Some("b.data")),
            ("100%20.data", Some("100%20.data")),
            ("", None),
            (".", None),
            ("../b.data", None),
            ("a/../../b.data", None),
            ("/etc/passwd", None),
        ] {
            assert_eq!(normalized(location).as_deref(), expected, "{location}");
        }
    }
}
