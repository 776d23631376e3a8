//! The real files of a graph, behind the links in a folder, and their places relative to one directory.

use std::path::{Path, PathBuf};

use super::model_files::ModelFiles;

/// The location that stands for the ONNX file itself. Values inside it get this location when they become external.
pub(crate) const OWN_VALUES: &str = "<graph>";

/// The real files behind a graph and its external data.
pub(crate) struct RealFiles {
    /// A directory that contains them all.
    pub(crate) folder: PathBuf,
    graph: PathBuf,
    /// In the order of [`ModelFiles::data`].
    data: Vec<PathBuf>,
}

impl RealFiles {
    /// Follows the links. `None` if a file is missing.
    pub(crate) fn find(files: &ModelFiles) -> Option<Self> {
        let graph = files.graph.canonicalize().ok()?;
        let data: Vec<_> = files.data.iter().filter_map(|file| file.path.canonicalize().ok()).collect();
        let mut folder = graph.parent()?.to_owned();
        while !data.iter().all(|file| file.starts_with(&folder)) {
            folder.pop();
        }
        (data.len() == files.data.len()).then_some(Self { folder, graph, data })
    }

    /// The path, relative to the folder, of the file at a location that the graph names.
    pub(crate) fn location(&self, files: &ModelFiles, location: &str) -> String {
        let real = match location {
            OWN_VALUES => Some(&self.graph),
            _ => files.data_index(location).and_then(|index| self.data.get(index)),
        };
        let inside = real.and_then(|file| file.strip_prefix(&self.folder).ok());
        inside.unwrap_or(Path::new(location)).to_string_lossy().into_owned()
    }
}
