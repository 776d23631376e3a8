//! The graphs of a bundle, each read once without its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::digest_memo::DigestMemo;
use super::{BundleError, GraphDigests};
use crate::onnx::ModelFiles;

/// The graphs of a bundle by their ONNX files. Their digests are made when they are first needed, because that reads all
/// weights.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    files: BTreeMap<PathBuf, Arc<ModelFiles>>,
    digests: Mutex<Option<Arc<GraphDigests>>>,
}

impl Graphs {
    /// Adds a graph, and checks that its external data is whole. A graph that is there already is not read again.
    pub(super) fn open(&mut self, graph: &Path) -> Result<Arc<ModelFiles>, BundleError> {
        let files = self.get(graph)?;
        self.files.insert(graph.to_owned(), Arc::clone(&files));
        Ok(files)
    }

    /// The files of a graph. One that is no graph of the bundle is read.
    pub(super) fn get(&self, graph: &Path) -> Result<Arc<ModelFiles>, BundleError> {
        match self.files.get(graph) {
            Some(files) => Ok(Arc::clone(files)),
            None => Ok(Arc::new(ModelFiles::open(graph)?)),
        }
    }

    /// All graphs by their ONNX files.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &ModelFiles)> {
        self.files.iter().map(|(path, files)| (path.as_path(), files.as_ref()))
    }

    /// The digests of the graphs, which are those of a bundle in this directory. Files that the memo knows are not read.
    pub(super) fn digests(
        &self,
        bundle: &Path,
        memo: impl FnOnce() -> DigestMemo,
    ) -> Result<Arc<GraphDigests>, BundleError> {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(digests) => Ok(Arc::clone(digests)),
            None => {
                let digests = GraphDigests::read(bundle, &self.files, memo())?;
                Ok(Arc::clone(known.insert(Arc::new(digests))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_read_once_and_hashed_when_its_digest_is_first_asked_for() {
        let bundle = tempfile::tempdir().unwrap();
        let graph = bundle.path().join("model.onnx");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian/unet/model.onnx");
        std::fs::copy(&golden, &graph).unwrap();
        let mut graphs = Graphs::default();
        let first = graphs.open(&graph).unwrap();
        std::fs::remove_file(&graph).unwrap();
        assert!(Arc::ptr_eq(&first, &graphs.open(&graph).unwrap()));
        assert!(Arc::ptr_eq(&first, &graphs.get(&graph).unwrap()));
        // A digest that fails is no digest, and is made as soon as it can be.
        let error = graphs.digests(bundle.path(), DigestMemo::default).unwrap_err().to_string();
        assert!(error.starts_with(&graph.display().to_string()), "{error}");
        std::fs::copy(&golden, &graph).unwrap();
        let digests = graphs.digests(bundle.path(), DigestMemo::default).unwrap();
        assert_eq!(digests.of(&graph), digests.total);
        std::fs::remove_file(&graph).unwrap();
        assert!(Arc::ptr_eq(&digests, &graphs.digests(bundle.path(), DigestMemo::default).unwrap()));
    }
}
