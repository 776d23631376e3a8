//! Replaces attention as exporters write it by the operator `MultiHeadAttention` of `com.microsoft`.

mod build;
mod mask;
mod pattern;
mod sources;

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

use super::index::{GraphIndex, operator};
use super::new_values::NewValues;
use super::remove_unused::remove_unused;
use super::values::Values;
use super::{is_rewritable, opset};

/// The domain of ONNX Runtime's own operators.
const DOMAIN: &str = "com.microsoft";

/// The first version of ONNX's operator set in which `Softmax` reduces one axis, and `Unsqueeze` takes its axes as
/// an input.
const MIN_OPSET: i64 = 13;

/// The numbers of attention blocks in a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AttentionCount {
    /// Those that were replaced.
    pub(crate) fused: usize,
    /// Those that stayed as they were.
    pub(crate) left: usize,
}

/// The execution provider that will run the operator, and its library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttentionTarget {
    /// Whether it computes in 16-bit floating-point numbers too, as CUDA does.
    pub(crate) float16: bool,
    /// Whether it broadcasts masks over the batch and the heads. ONNX Runtime does from 1.21 on: before 1.20 it refuses
    /// them or returns wrong numbers, and 1.20 does for one mask per image.
    pub(crate) broadcasts_masks: bool,
}

/// The nodes that replace one attention block.
struct Replacement {
    /// The position of the node whose output the last new node produces.
    position: usize,
    nodes: Vec<NodeProto>,
}

/// Replaces every attention block that the operator computes exactly. Others stay as they are.
pub(crate) fn fuse_attention(model: &mut ModelProto, target: AttentionTarget) -> AttentionCount {
    let opset = opset(model);
    let rewritable = is_rewritable(model);
    let Some(graph) = &mut model.graph else { return AttentionCount::default() };
    let index = GraphIndex::new(graph);
    let blocks: Vec<_> = (0..graph.node.len()).filter(|position| is_attention(&index, *position)).collect();
    if !rewritable || opset < MIN_OPSET || blocks.is_empty() {
        return AttentionCount { fused: 0, left: blocks.len() };
    }
    let values = Values::infer(graph, opset);
    let mut new = NewValues::new(graph, "attention");
    let replacements: HashMap<_, _> = blocks
        .iter()
        .filter_map(|softmax| {
            let block = pattern::find(&index, &values, *softmax)?;
            let supported = match values.data_type(block.query.name)? {
                DataType::FLOAT => true,
                DataType::FLOAT16 => target.float16,
                _ => false,
            };
            supported.then(|| build::replace(&block, &index, &values, target, &mut new))?
        })
        .map(|replacement| (replacement.position, replacement.nodes))
        .collect();
    let fused = replacements.len();
    let initializers = new.into_initializers();
    insert(graph, replacements);
    if fused > 0 {
        graph.initializer.extend(initializers);
        remove_unused(graph);
        import(&mut model.opset_import);
    }
    AttentionCount { fused, left: blocks.len() - fused }
}

/// Whether a node is a `Softmax` whose result weighs the rows of a matrix.
fn is_attention(index: &GraphIndex<'_>, position: usize) -> bool {
    let softmax = index.node(position);
    let mut open: Vec<_> = softmax.output.iter().map(String::as_str).collect();
    let mut seen = HashSet::new();
    while let Some(value) = open.pop().filter(|_| operator(softmax) == "Softmax") {
        for node in index.consumers(value).iter().map(|consumer| index.node(*consumer)) {
            match operator(node) {
                "MatMul" if node.input.first().is_some_and(|input| input == value) => return true,
                "Cast" | "Where" | "IsNaN" | "Identity" => {
                    open.extend(node.output.iter().map(String::as_str).filter(|output| seen.insert(*output)));
                }
                _ => {}
            }
        }
    }
    false
}

/// Puts the new nodes where the values that they produce were produced, and drops the old producers.
fn insert(graph: &mut GraphProto, mut replacements: HashMap<usize, Vec<NodeProto>>) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (position, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match replacements.remove(&position) {
            Some(new) => nodes.extend(new),
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn import(opsets: &mut Vec<OperatorSetIdProto>) {
    if !opsets.iter().any(|opset| opset.domain.as_deref() == Some(DOMAIN)) {
        opsets.push(OperatorSetIdProto { domain: Some(DOMAIN.to_owned()), version: Some(1) });
    }
}
