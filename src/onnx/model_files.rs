//! An ONNX file with the files of its external data.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::OnnxError;
use super::external_data::{DataFile, data_files, normalized};
use super::header::Header;
use super::topology::Topology;

/// A graph and all files that it consists of. All of them exist and are whole.
#[derive(Debug, Default)]
pub(crate) struct ModelFiles {
    /// The ONNX file.
    pub(crate) graph: PathBuf,
    /// The length of the ONNX file in bytes.
    pub(crate) graph_len: u64,
    /// The contents of the ONNX file, without weights.
    pub(crate) header: Header,
    /// The files of external data.
    pub(crate) data: Vec<DataFile>,
}

impl ModelFiles {
    /// Reads the ONNX file, and checks that its external data is there.
    pub(crate) fn open(graph: &Path) -> Result<Self, OnnxError> {
        let header = Header::read(graph)?;
        let graph_len = graph.metadata().map_err(OnnxError::io(graph))?.len();
        let data = data_files(graph, &header.external)?;
        Ok(Self { graph: graph.to_owned(), graph_len, header, data })
    }

    /// The index of the file at a location that the graph names.
    pub(crate) fn data_index(&self, location: &str) -> Option<usize> {
        let location = normalized(location)?;
        self.data.iter().position(|file| file.location == location)
    }

    /// The ONNX file and the files of external data.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.graph.as_path()).chain(self.data.iter().map(|file| file.path.as_path()))
    }

    /// An estimate of the memory in bytes that the graph takes at most while it is opened: twice its file, which the
    /// engine parses and then holds, and once each file of its external data. With `widens_float16`, the engine converts
    /// float16 weights to float32, which doubles them.
    pub(crate) fn peak_memory(&self, widens_float16: bool) -> u64 {
        self.graph_len + self.total_len() + if widens_float16 { self.float16_bytes() } else { 0 }
    }

    /// The memory in bytes of all files, mapped by the engine with float16 weights as float32.
    pub(crate) fn mapped_memory(&self) -> u64 {
        self.total_len().saturating_add(self.float16_bytes())
    }

    /// The bytes of all files, of which all but a small part are weights.
    pub(crate) fn total_len(&self) -> u64 {
        self.graph_len + self.data.iter().map(|file| file.len).sum::<u64>()
    }

    /// A digest, in hexadecimal, of all but the values of weights: what the memory of the graph depends on. Unlike the
    /// digest of the weights it is made in no time.
    pub(crate) fn structure_digest(&self) -> String {
        let Self { graph_len, header, data, .. } = self;
        let lengths: Vec<u64> = data.iter().map(|file| file.len).collect();
        format!("{:x}", Sha256::digest(format!("{graph_len} {lengths:?} {header:?}")))
    }

    /// The size of the float16 weights; 0 if there are none, or the file cannot be read again.
    fn float16_bytes(&self) -> u64 {
        if !self.header.element_types.iter().any(|element| element.is_float16()) {
            return 0;
        }
        let weights = Topology::read(&self.graph).map(|graph| graph.weights).unwrap_or_default();
        let float16 = weights.values().filter(|weight| weight.element.is_float16());
        let bytes = float16.map(|weight| {
            let lengths = weight.shape.iter().map(|length| u64::try_from(*length).unwrap_or(0));
            lengths.fold(2, u64::saturating_mul)
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// Whether the graph has external data, and the graph or the data is a link to a file in another folder.
    pub(crate) fn has_linked_data(&self) -> bool {
        let folder = match self.graph.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Ok(folder) = folder.canonicalize() else { return false };
        let is_inside = |path: &Path| {
            path.canonicalize().is_ok_and(|real| real.parent().is_some_and(|parent| parent == folder))
        };
        let leads_out = |path: &Path| path.canonicalize().map_or(true, |real| !real.starts_with(&folder));
        !self.data.is_empty()
            && (!is_inside(&self.graph) || self.data.iter().any(|file| leads_out(&file.path)))
    }
}
