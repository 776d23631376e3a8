//! Computes shape arithmetic ahead of time.

use std::collections::{BTreeMap, HashMap};

use rten_onnx::onnx::{Dimension, GraphProto, ModelProto, TensorProto, TensorShapeProto};

use super::constants;
use super::index::{GraphIndex, operator};
use super::remove_unused::remove_unused;
use super::values::Values;
use super::{is_rewritable, opset};

/// Fixes the shapes of the inputs with these names and replaces what depends on shapes alone by constants.
/// Nodes that copy a value are dropped. Returns the number of nodes removed.
pub(crate) fn fold_shapes(model: &mut ModelProto, sizes: &BTreeMap<String, Vec<usize>>) -> usize {
    let opset = opset(model);
    if !is_rewritable(model) {
        return 0;
    }
    let Some(graph) = &mut model.graph else { return 0 };
    fix_inputs(graph, sizes);
    let before = graph.node.len();
    drop_copies(graph);
    let constants = constants_of(graph, opset);
    graph.node.retain(|node| match node.output.as_slice() {
        [output] => !constants.contains_key(output),
        _ => true,
    });
    graph.initializer.extend(constants.into_values());
    remove_unused(graph);
    before - graph.node.len()
}

/// Fixes the shapes of inputs. What the file says about other values was said of any shape.
fn fix_inputs(graph: &mut GraphProto, sizes: &BTreeMap<String, Vec<usize>>) {
    for input in &mut graph.input {
        let Some(size) = input.name.as_ref().and_then(|name| sizes.get(name)) else { continue };
        if let Some(tensor) = input.r#type.as_mut().and_then(|value| value.tensor_type.as_mut()) {
            let fixed = |len: &usize| Dimension { dim_value: Some(*len as i64), dim_param: None };
            tensor.shape = Some(TensorShapeProto { dim: size.iter().map(fixed).collect() });
        }
    }
}

/// Lets the nodes that use an `Identity` use its input.
fn drop_copies(graph: &mut GraphProto) {
    let index = GraphIndex::new(graph);
    let mut originals: HashMap<String, String> = HashMap::new();
    for node in graph.node.iter().filter(|node| operator(node) == "Identity") {
        if let ([input], [output]) = (node.input.as_slice(), node.output.as_slice())
            && !index.is_output(output)
        {
            let original = originals.get(input).unwrap_or(input).clone();
            originals.insert(output.clone(), original);
        }
    }
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(original) = originals.get(input) {
            input.clone_from(original);
        }
    }
}

/// The small values that nodes compute from shapes and constants alone, by name.
fn constants_of(graph: &GraphProto, opset: i64) -> BTreeMap<String, TensorProto> {
    let values = Values::infer(graph, opset);
    let index = GraphIndex::new(graph);
    let mut constants = BTreeMap::new();
    for node in &graph.node {
        let [output] = node.output.as_slice() else { continue };
        if index.is_output(output) {
            continue;
        }
        if let Some(tensor) = values.get(output).and_then(|value| {
            let dims: Vec<_> = value.shape.as_ref()?.iter().map(|dim| dim.known()).collect::<Option<_>>()?;
            constants::write(output, value.data_type?, &dims, value.elements.as_ref()?)
        }) {
            constants.insert(output.clone(), tensor);
        }
    }
    constants
}
