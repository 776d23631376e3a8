//! Gives a plain export of a U-Net or a text encoder further inputs: the residuals of a ControlNet (Zhang et al. 2023), and
//! the matrices of a LoRA (Hu et al. 2021) for each of its layers.
//!
//! With zeros in these inputs, the graph computes what it did. Layers are found by the names that exporters give to nodes,
//! which are the paths of torch's modules.

mod low_rank;
mod module_path;
mod residuals;

use std::collections::HashMap;

use rten_onnx::onnx::{
    DataType, Dimension, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor,
    ValueInfoProto,
};

use super::new_values::NewValues;
use super::values::Values;
use super::{is_rewritable, opset};

pub(crate) use low_rank::{A_PREFIX, B_PREFIX};
pub(crate) use residuals::{DOWN_PREFIX, MID_NAME};

/// The axes of a graph's input that are as long as those of the value that the input is added to, or 1. Empty for inputs
/// that are not live.
pub(super) fn broadcast_axes(input: &str) -> &'static [usize] {
    if input.starts_with(A_PREFIX) || input.starts_with(B_PREFIX) {
        &[0]
    } else if input.starts_with(DOWN_PREFIX) || input == MID_NAME {
        &[0, 2, 3]
    } else {
        &[]
    }
}

/// Whether a graph has live inputs.
pub(crate) fn has_live_inputs(model: &ModelProto) -> bool {
    let mut inputs = model.graph.iter().flat_map(|graph| &graph.input);
    inputs.any(|input| input.name.as_deref().is_some_and(|name| !broadcast_axes(name).is_empty()))
}

/// The first version of ONNX's operator set in which `Unsqueeze` takes its axes as an input.
const MIN_OPSET: i64 = 13;

/// The layers that get inputs for LoRAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoraLayers {
    /// None.
    None,
    /// The linear layers of the transformer blocks, with the projections into and out of them: what most files change.
    Transformer,
    /// The convolutions of the residual blocks, and the layers for the time step, as well.
    All,
}

/// The inputs that a graph got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LiveInputs {
    /// Those for a ControlNet's residuals.
    pub(crate) residuals: usize,
    /// The layers with inputs for a LoRA, two each.
    pub(crate) layers: usize,
}

/// A change of a graph under construction.
struct Additions {
    new: NewValues,
    /// Nodes to put before the node at a position.
    before: HashMap<usize, Vec<NodeProto>>,
    /// Nodes to put after the node at a position.
    after: HashMap<usize, Vec<NodeProto>>,
    inputs: Vec<ValueInfoProto>,
    initializers: Vec<TensorProto>,
}

/// Adds inputs for a ControlNet's residuals, if `residuals` is set, and for LoRAs. What is not recognised stays as it is.
pub(crate) fn add_live_inputs(model: &mut ModelProto, residuals: bool, lora: LoraLayers) -> LiveInputs {
    let opset = opset(model);
    let rewritable = is_rewritable(model) && opset >= MIN_OPSET;
    let Some(graph) = model.graph.as_mut().filter(|_| rewritable) else { return LiveInputs::default() };
    let values = Values::infer(graph, opset);
    let mut additions = Additions {
        new: NewValues::new(graph, "live"),
        before: HashMap::new(),
        after: HashMap::new(),
        inputs: Vec::new(),
        initializers: Vec::new(),
    };
    let count = LiveInputs {
        residuals: if residuals { residuals::add(graph, &values, &mut additions) } else { 0 },
        layers: low_rank::add(graph, &values, lora, &mut additions),
    };
    let Additions { new, mut before, mut after, inputs, initializers } = additions;
    for (position, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        graph.node.extend(before.remove(&position).unwrap_or_default());
        graph.node.push(node);
        graph.node.extend(after.remove(&position).unwrap_or_default());
    }
    graph.input.extend(inputs);
    graph.initializer.extend(initializers);
    graph.initializer.extend(new.into_initializers());
    count
}

/// The length of an axis of a new input.
#[derive(Clone, Copy)]
enum Axis<'a> {
    Fixed(i64),
    Named(&'a str),
}

/// A new input of a graph.
fn input(name: &str, data_type: DataType, axes: &[Axis<'_>]) -> ValueInfoProto {
    let dim = |axis: &Axis<'_>| match axis {
        Axis::Fixed(len) => Dimension { dim_value: Some(*len), dim_param: None },
        Axis::Named(name) => Dimension { dim_value: None, dim_param: Some((*name).to_owned()) },
    };
    let shape = TensorShapeProto { dim: axes.iter().map(dim).collect() };
    let tensor = TypeProtoTensor { elem_type: Some(data_type), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { tensor_type: Some(tensor), sequence: None }),
    }
}
