//! The graphs of a bundle, each read once without its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::digest_memo::DigestMemo;
use super::graph_digests::graph_digest;
use super::{BundleError, GraphDigests};
use crate::onnx::ModelFiles;

/// The graphs of a bundle by their ONNX files. Their digests are made when they are first needed, because that reads all
/// weights.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    files: BTreeMap<PathBuf, Arc<ModelFiles>>,
    digests: Mutex<Option<Arc<GraphDigests>>>,
    /// The digest of each graph. The lock is held while it is made.
    by_graph: BTreeMap<PathBuf, Mutex<Option<String>>>,
}

impl Graphs {
    /// Adds a graph, and checks that its external data is whole. A graph that is there already is not read again.
    pub(super) fn open(&mut self, graph: &Path) -> Result<Arc<ModelFiles>, BundleError> {
        let files = self.get(graph)?;
        self.files.insert(graph.to_owned(), Arc::clone(&files));
        self.by_graph.entry(graph.to_owned()).or_default();
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
        memo: impl Fn() -> DigestMemo,
    ) -> Result<Arc<GraphDigests>, BundleError> {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digests) = &*known {
            return Ok(Arc::clone(digests));
        }
        let digest = |graph: &PathBuf| Ok((graph.clone(), self.digest(graph, &memo)?));
        let digests = self.files.keys().map(digest).collect::<Result<Vec<_>, BundleError>>()?;
        Ok(Arc::clone(known.insert(Arc::new(GraphDigests::new(bundle, digests)))))
    }

    /// The digest of one graph, without waiting for those of others. Empty for a file that is not a graph of the bundle.
    pub(super) fn digest(
        &self,
        graph: &Path,
        memo: impl FnOnce() -> DigestMemo,
    ) -> Result<String, BundleError> {
        let (Some(files), Some(known)) = (self.files.get(graph), self.by_graph.get(graph)) else {
            return Ok(String::new());
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(digest) => Ok(digest.clone()),
            None => Ok(known.insert(graph_digest(files, memo())?).clone()),
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
        std::fs::remove_file(&graph).unwrap();
        assert!(Arc::ptr_eq(&digests, &graphs.digests(bundle.path(), DigestMemo::default).unwrap()));
        assert_eq!(graphs.digest(&graph, DigestMemo::default).unwrap(), digests.total);
    }
}
