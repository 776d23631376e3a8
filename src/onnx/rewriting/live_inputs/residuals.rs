//! Inputs for what a ControlNet adds to a U-Net's skip connections and to its middle.

use rten_onnx::onnx::{DataType, GraphProto, ValueInfoProto};

use super::module_path::module;
use super::{Additions, Axis, input};
use crate::onnx::rewriting::constants::int_attribute;
use crate::onnx::rewriting::index::operator;
use crate::onnx::rewriting::values::Values;

/// The beginning of the names of the inputs for skip connections, which end in the connection's number.
pub(crate) const DOWN_PREFIX: &str = "down_block_additional_residuals_";
/// The name of the input for the middle.
pub(crate) const MID_NAME: &str = "mid_block_additional_residual";

/// Adds the inputs. Returns their number.
///
/// The way up takes the skip connections in reverse order, each in a `Concat` behind what it has so far. The first `Concat`
/// takes the middle block's output.
pub(super) fn add(graph: &mut GraphProto, values: &Values, additions: &mut Additions) -> usize {
    let joins: Vec<_> = (0..graph.node.len()).filter(|position| is_join(graph, *position)).collect();
    let Some((&first, last)) = joins.first().zip(joins.len().checked_sub(1)) else { return 0 };
    let mut inputs = Vec::new();
    for (taken, &position) in joins.iter().enumerate() {
        let number = last - taken;
        let name = format!("{DOWN_PREFIX}{number}");
        inputs.push((number, add_to(graph, values, additions, (position, 1), &name)));
    }
    inputs.push((joins.len(), add_to(graph, values, additions, (first, 0), MID_NAME)));
    inputs.sort_by_key(|(number, _)| *number);
    let count = inputs.len();
    additions.inputs.extend(inputs.into_iter().map(|(_, input)| input));
    count
}

/// Whether a node joins a skip connection to the way up.
fn is_join(graph: &GraphProto, position: usize) -> bool {
    let node = &graph.node[position];
    let block =
        module(node).and_then(|module| Some(module.strip_prefix("up_blocks.")?.parse::<usize>().is_ok()));
    operator(node) == "Concat"
        && block == Some(true)
        && node.input.len() == 2
        && int_attribute(node, "axis") == Some(1)
}

/// Adds an input to the value that a node takes. Returns the description of the input.
fn add_to(
    graph: &mut GraphProto,
    values: &Values,
    additions: &mut Additions,
    (position, operand): (usize, usize),
    name: &str,
) -> ValueInfoProto {
    let value = graph.node[position].input[operand].clone();
    let mut nodes = additions.before.remove(&position).unwrap_or_default();
    let sum = additions.new.node("Add", &[&value, name], Vec::new(), &mut nodes);
    additions.before.insert(position, nodes);
    graph.node[position].input[operand] = sum;
    let channels = values.shape(&value).and_then(|shape| shape.get(1)?.known());
    let [batch, height, width] = ["batch", "height", "width"].map(|axis| format!("{name}.{axis}"));
    let unknown = format!("{name}.channels");
    let axes = [
        Axis::Named(&batch),
        channels.map_or(Axis::Named(&unknown), Axis::Fixed),
        Axis::Named(&height),
        Axis::Named(&width),
    ];
    input(name, values.data_type(&value).unwrap_or(DataType::FLOAT), &axes)
}
