//! Inputs for the matrices of a LoRA: a layer's output becomes layer(x) + (x · a) · b.

use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

use super::module_path::module;
use super::{Additions, Axis, LoraLayers, input};
use crate::onnx::rewriting::constants::{Elements, int_attribute, ints_attribute, new_int, write};
use crate::onnx::rewriting::dim::Dim;
use crate::onnx::rewriting::index::operator;
use crate::onnx::rewriting::new_values::NewValues;
use crate::onnx::rewriting::values::Values;

/// The beginning of the names of the inputs a, of the shape [1 or batch, inputs, rank], before the layer's name.
pub(crate) const A_PREFIX: &str = "lora_a.";
/// The same of the inputs b, of the shape [1 or batch, rank, outputs].
pub(crate) const B_PREFIX: &str = "lora_b.";

/// The ends of the names of layers in transformer blocks and in text encoders.
const TRANSFORMER: [&str; 14] = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "fc1",
    "fc2",
];
/// The ends of the names of further layers that LoRAs change. By default, LyCORIS also changes the first and the last
/// convolution of a U-Net and its embedding of the time step.
const FURTHER: [&str; 12] = [
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "add_embedding.linear_1",
    "add_embedding.linear_2",
];

/// How a layer maps its input.
enum Kind {
    /// A product over the last axis of [batch, rows, inputs].
    Rows,
    /// A product over the last axis of [batch, inputs].
    Vector,
    /// A convolution over the places of [batch, channels, height, width], with the side of its kernel and the attributes
    /// that say where it is applied.
    Convolution { side: i64, placement: Vec<AttributeProto> },
}

struct Layer {
    position: usize,
    module: String,
    kind: Kind,
    inputs: i64,
    outputs: i64,
    data_type: DataType,
}

/// Adds the inputs. Returns the number of layers.
pub(super) fn add(
    graph: &mut GraphProto,
    values: &Values,
    which: LoraLayers,
    additions: &mut Additions,
) -> usize {
    let layers: Vec<_> = (0..graph.node.len())
        .filter_map(|position| layer(&graph.node[position], position, values, which))
        .collect();
    for layer in &layers {
        add_branch(&mut graph.node[layer.position], layer, additions);
    }
    layers.len()
}

/// The layer that a node computes, if it is one of those that get inputs.
fn layer(node: &NodeProto, position: usize, values: &Values, which: LoraLayers) -> Option<Layer> {
    let module = module(node)?;
    let has_end = |ends: &[&str]| {
        let is_end = |start: &str| start.is_empty() || start.ends_with('.');
        ends.iter().any(|end| module.strip_suffix(end).is_some_and(is_end))
    };
    let is_wanted = match which {
        LoraLayers::None => false,
        LoraLayers::Transformer => has_end(&TRANSFORMER),
        LoraLayers::All => has_end(&TRANSFORMER) || has_end(&FURTHER),
    };
    if !is_wanted {
        return None;
    }
    let weight = node.input.get(1)?;
    let dims: Vec<i64> = values.shape(weight)?.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
    let rank = values.shape(&node.input[0]).map(<[Dim]>::len);
    let (kind, inputs, outputs) = match (operator(node), &dims[..]) {
        ("MatMul", &[inputs, outputs]) if rank.is_none_or(|rank| rank == 3) => (Kind::Rows, inputs, outputs),
        ("MatMul", &[inputs, outputs]) if rank == Some(2) => (Kind::Vector, inputs, outputs),
        ("Gemm", &[rows, columns]) => {
            let is_transposed = int_attribute(node, "transB") == Some(1);
            let (inputs, outputs) = if is_transposed { (columns, rows) } else { (rows, columns) };
            (Kind::Vector, inputs, outputs)
        }
        ("Conv", &[outputs, channels, side, other_side]) if side == other_side => {
            (Kind::Convolution { side, placement: placement(node)? }, channels * side * side, outputs)
        }
        _ => return None,
    };
    let data_type = values.data_type(weight).unwrap_or(DataType::FLOAT);
    Some(Layer { position, module, kind, inputs, outputs, data_type })
}

/// The attributes of a convolution that say where its kernel is applied. `None` if it has groups or a dilation.
fn placement(node: &NodeProto) -> Option<Vec<AttributeProto>> {
    let is_plain = int_attribute(node, "group").is_none_or(|groups| groups == 1)
        && ints_attribute(node, "dilations").is_none_or(|dilations| dilations.iter().all(|d| *d == 1));
    let is_placement = |attribute: &&AttributeProto| {
        matches!(attribute.name.as_deref(), Some("strides" | "pads" | "auto_pad" | "kernel_shape"))
    };
    is_plain.then(|| node.attribute.iter().filter(is_placement).cloned().collect())
}

/// Adds the branch behind a layer's node.
fn add_branch(node: &mut NodeProto, layer: &Layer, additions: &mut Additions) {
    let new = &mut additions.new;
    let (a, b) = (format!("{A_PREFIX}{}", layer.module), format!("{B_PREFIX}{}", layer.module));
    let x = node.input[0].clone();
    let output = std::mem::replace(&mut node.output[0], new.name());
    let mut nodes = Vec::new();
    let branch = match &layer.kind {
        Kind::Rows => {
            let low = new.node("MatMul", &[&x, &a], Vec::new(), &mut nodes);
            new.node("MatMul", &[&low, &b], Vec::new(), &mut nodes)
        }
        Kind::Vector => {
            let axis = new.vector(&[1]);
            let row = new.node("Unsqueeze", &[&x, &axis], Vec::new(), &mut nodes);
            let low = new.node("MatMul", &[&row, &a], Vec::new(), &mut nodes);
            let high = new.node("MatMul", &[&low, &b], Vec::new(), &mut nodes);
            new.node("Squeeze", &[&high, &axis], Vec::new(), &mut nodes)
        }
        Kind::Convolution { side: 1, placement } if is_everywhere(placement) => {
            let rows = new.transpose(&x, &[0, 2, 3, 1], &mut nodes);
            let axis = new.vector(&[1]);
            let a = new.node("Unsqueeze", &[&a, &axis], Vec::new(), &mut nodes);
            let low = new.node("MatMul", &[&rows, &a], Vec::new(), &mut nodes);
            places_to_outputs(&low, &b, new, &mut nodes)
        }
        Kind::Convolution { side, placement } => {
            let kernel = format!("{}/kernel", new.name());
            additions.initializers.extend(one_hot_kernel(&kernel, *side, layer.data_type));
            let low = low_rank_convolution(
                &x,
                &a,
                [layer.inputs / (side * side), *side],
                (&kernel, placement),
                new,
                &mut nodes,
            );
            places_to_outputs(&low, &b, new, &mut nodes)
        }
    };
    let own = node.output[0].clone();
    new.push("Add", &[&own, &branch], Vec::new(), output, &mut nodes);
    additions.after.insert(layer.position, nodes);
    let rank = format!("rank.{}", layer.module);
    let [batch, rank] = [Axis::Named(BATCH_AXIS), Axis::Named(&rank)];
    let axes = [[batch, Axis::Fixed(layer.inputs), rank], [batch, rank, Axis::Fixed(layer.outputs)]];
    additions.inputs.push(input(&a, layer.data_type, &axes[0]));
    additions.inputs.push(input(&b, layer.data_type, &axes[1]));
}

/// The name of the first axis of all matrices. Its length is 1 or the batch's.
const BATCH_AXIS: &str = "lora_batch";

/// Whether a convolution of side 1 is applied at every place.
fn is_everywhere(placement: &[AttributeProto]) -> bool {
    placement.iter().all(|attribute| match attribute.name.as_deref() {
        Some("strides") => attribute.ints.iter().all(|stride| *stride == 1),
        Some("pads") => attribute.ints.iter().all(|pad| *pad == 0),
        _ => true,
    })
}

/// From [batch, height, width, rank] to [batch, outputs, height, width].
fn places_to_outputs(low: &str, b: &str, new: &mut NewValues, nodes: &mut Vec<NodeProto>) -> String {
    let axis = new.vector(&[1]);
    let b = new.node("Unsqueeze", &[b, &axis], Vec::new(), nodes);
    let high = new.node("MatMul", &[low, &b], Vec::new(), nodes);
    new.transpose(&high, &[0, 3, 1, 2], nodes)
}

/// A convolution with another kernel for each image, to `rank` channels: [batch, height, width, rank].
///
/// First the product with the kernel of every place: side² maps for each rank. Then a convolution that does not depend on
/// the image moves each map by its place in the kernel and adds them.
fn low_rank_convolution(
    x: &str,
    a: &str,
    [channels, side]: [i64; 2],
    (kernel, placement): (&str, &[AttributeProto]),
    new: &mut NewValues,
    nodes: &mut Vec<NodeProto>,
) -> String {
    let places = side * side;
    // a: [batch, channels · places, rank] to [batch, 1, channels, rank · places].
    let a = new.reshape(a, &[0, channels, places, -1], nodes);
    let a = new.transpose(&a, &[0, 1, 3, 2], nodes);
    let a = new.reshape(&a, &[0, 0, -1], nodes);
    let axis = new.vector(&[1]);
    let a = new.node("Unsqueeze", &[&a, &axis], Vec::new(), nodes);
    let rows = new.transpose(x, &[0, 2, 3, 1], nodes);
    let maps = new.node("MatMul", &[&rows, &a], Vec::new(), nodes);
    let maps = new.transpose(&maps, &[0, 3, 1, 2], nodes);
    // The images' ranks become images.
    let each = new.reshape(&maps, &[-1, places, 0, 0], nodes);
    let moved = new.node("Conv", &[&each, kernel], placement.to_vec(), nodes);
    let batch = batch_of(x, new, nodes);
    let rest = new.vector(&[-1, 0, 0]);
    let shape = new.node("Concat", &[&batch, &rest], vec![axis_attribute(0)], nodes);
    let low = new.node("Reshape", &[&moved, &shape], Vec::new(), nodes);
    new.transpose(&low, &[0, 2, 3, 1], nodes)
}

/// The length of the first axis, as a vector.
fn batch_of(x: &str, new: &mut NewValues, nodes: &mut Vec<NodeProto>) -> String {
    let shape = new.node("Shape", &[x], Vec::new(), nodes);
    let first = new.vector(&[0]);
    new.node("Gather", &[&shape, &first], vec![axis_attribute(0)], nodes)
}

fn axis_attribute(axis: i64) -> AttributeProto {
    new_int("axis", axis)
}

/// A kernel of the shape [1, side², side, side] that takes one place from each channel.
fn one_hot_kernel(name: &str, side: i64, data_type: DataType) -> Option<TensorProto> {
    let places = side * side;
    let values = (0..places * places).map(|at| if at / places == at % places { 1.0 } else { 0.0 }).collect();
    write(name, data_type, &[1, places, side, side], &Elements::Floats(values))
}
