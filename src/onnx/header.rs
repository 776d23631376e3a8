//! The contents of an ONNX file without the weights, which are skipped by seeking.

mod decode;
mod value_info;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, ValueReader};

use super::error::{OnnxError, decoding_fault};
use super::topology::Topology;
use crate::file_kind::{Expected, unexpected_content};
use crate::regular_file;
use crate::tensor::{ElementType, GraphIo};
use decode::Model;

/// The contents of an ONNX file without the weights.
#[derive(Debug, Default)]
pub(crate) struct Header {
    /// The domain and version of each operator set. The domain of ONNX's own operators is empty.
    pub(crate) opsets: Vec<(String, i64)>,
    /// The inputs and outputs of the graph. Inputs that an initializer fills are left out.
    pub(crate) io: GraphIo,
    /// For each input, the names of its axes. An axis of a fixed length has none.
    pub(crate) axis_names: BTreeMap<String, Vec<Option<String>>>,
    /// The names of the graph's nodes except constants, in the graph's order.
    pub(crate) node_names: Vec<String>,
    /// The operators of all nodes, with those of nested graphs and of functions.
    pub(crate) operators: BTreeSet<Operator>,
    /// The functions that the file defines. Nodes use them like operators.
    pub(crate) functions: BTreeSet<Operator>,
    /// The tensors whose values are in other files, with those of nested graphs.
    pub(crate) external: Vec<ExternalTensor>,
    /// The element types of weights, inputs, outputs and conversions.
    pub(crate) element_types: BTreeSet<ElementType>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Operator {
    /// The operator set. Empty for ONNX's own operators.
    pub(crate) domain: String,
    /// The type.
    pub(crate) name: String,
}

/// A tensor whose values are in another file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExternalTensor {
    pub(super) name: String,
    /// The path as the file gives it, relative to the graph's directory.
    pub(super) location: String,
    pub(super) offset: u64,
    pub(super) len: Option<u64>,
    /// The number of bytes that the type and the shape need, if known.
    pub(super) size: Option<u64>,
}

impl Header {
    /// Reads a file. The data of tensors is skipped, so that this is as quick for gigabytes of weights.
    pub(crate) fn read(path: &Path) -> Result<Self, OnnxError> {
        Ok(read(path)?.header)
    }

    /// The version of ONNX's own operator set.
    pub(crate) fn opset(&self) -> Option<i64> {
        self.opsets.iter().find(|(domain, _)| domain.is_empty()).map(|(_, version)| *version)
    }

    /// The names of the inputs' dynamic axes, each with its length in `shapes`.
    pub(crate) fn dynamic_axes(&self, shapes: &[(String, Vec<usize>)]) -> Vec<(String, usize)> {
        let axes = shapes.iter().filter_map(|(input, lengths)| Some((self.axis_names.get(input)?, lengths)));
        let named = axes.flat_map(|(names, lengths)| names.iter().zip(lengths));
        named.filter_map(|(name, length)| Some((name.clone()?, *length))).collect()
    }

    /// The operators that are neither ONNX's own nor functions of the file.
    pub(crate) fn custom_operators(&self) -> impl Iterator<Item = &Operator> {
        let is_custom =
            |operator: &&Operator| !operator.domain.is_empty() && !self.functions.contains(operator);
        self.operators.iter().filter(is_custom)
    }
}

impl Topology {
    /// Reads a file. The data of tensors is skipped by seeking.
    pub(crate) fn read(path: &Path) -> Result<Self, OnnxError> {
        Ok(read(path)?.topology)
    }
}

fn read(path: &Path) -> Result<Model, OnnxError> {
    regular_file::check(path).map_err(OnnxError::io(path))?;
    if let Some(fault) = unexpected_content(path, Expected::Graph).map_err(OnnxError::io(path))? {
        return Err(OnnxError::new(path, fault));
    }
    let damaged = |reason: String| {
        OnnxError::new(
            path,
            format!(
                "this is not a whole ONNX file ({reason}); copy or download it again, or export it again"
            ),
        )
    };
    let file = File::open(path).map_err(OnnxError::io(path))?;
    let len = file.metadata().map_err(OnnxError::io(path))?.len();
    let model =
        Model::decode(ValueReader::from_file(file)).map_err(|error| damaged(decoding_fault(&error)))?;
    if model.graph_len > len {
        return Err(damaged(format!("its graph has {} bytes, but the file has {len}", model.graph_len)));
    }
    if model.header.io.outputs.is_empty() {
        // The decoder takes the end of a truncated file for that of the graph, and outputs follow the weights.
        return Err(damaged("its graph has no outputs".to_owned()));
    }
    Ok(model)
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.domain.as_str() {
            "" => f.write_str(&self.name),
            domain => write!(f, "{domain}:{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
