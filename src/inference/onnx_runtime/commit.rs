//! Opens a session from a graph's file, or, where a version of ONNX Runtime does not follow links, from a copy in memory
//! whose external data is in the real files.

use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::provider_selection::AttemptError;
use crate::onnx::{InlineData, ModelFiles, Rewrite};

/// The directory of external data for a graph in memory.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Opens a session.
///
/// Versions from 1.24 on refuse external data whose real file is outside the folder of the graph's path, and 1.24.1 even
/// if it is beside the real file of the graph, as in a hub's cache.
pub(super) fn commit(mut builder: SessionBuilder, files: &ModelFiles) -> Result<Session, AttemptError> {
    // A builder can be committed once, and the folder takes precedence over that of the file.
    let second = files.has_linked_data().then(|| builder.clone());
    match (builder.commit_from_file(&files.graph), second) {
        (Err(error), Some(second)) if error.to_string().contains("escapes model directory") => {
            log::debug!("{}: opening a copy in memory, because its weights are links", files.graph.display());
            let real = RealData::find(files).ok_or(error)?;
            let location = |location: &str| real.location(files, location);
            let rewrite = Rewrite { inline: InlineData::Keep, location: &location };
            let copy = rewrite.apply(&files.graph).map_err(AttemptError::provider)?;
            Ok(second
                .with_config_entry(FOLDER, real.folder.to_string_lossy())?
                .commit_from_memory(&copy.bytes)?)
        }
        (result, _) => Ok(result?),
    }
}

/// The real files of external data.
struct RealData {
    /// A folder that contains them all.
    folder: PathBuf,
    /// In the order of [`ModelFiles::data`].
    files: Vec<PathBuf>,
}

impl RealData {
    fn find(files: &ModelFiles) -> Option<Self> {
        let real: Vec<_> = files.data.iter().filter_map(|file| file.path.canonicalize().ok()).collect();
        let mut folder = real.first()?.parent()?.to_owned();
        while !real.iter().all(|file| file.starts_with(&folder)) {
            folder.pop();
        }
        (real.len() == files.data.len()).then_some(Self { folder, files: real })
    }

    /// The path of a file relative to the folder.
    fn location(&self, files: &ModelFiles, location: &str) -> String {
        let real = files.data_index(location).and_then(|index| self.files.get(index));
        let inside = real.and_then(|file| file.strip_prefix(&self.folder).ok());
        inside.unwrap_or(Path::new(location)).to_string_lossy().into_owned()
    }
}
