//! Decodes an exported graph without its weights.

use std::path::Path;

use rten_onnx::onnx::{DataLocation, GraphProto, ModelProto, NodeProto, TensorProto};

use super::{InlineData, Rewrite, decoding_fault, lost_content};

/// Decodes a graph. Values in the ONNX file become external values with the location `own`.
///
/// Fails with a reason if the graph cannot be encoded again without loss.
pub(crate) fn decode_without_weights(graph: &Path, own: &str) -> Result<ModelProto, String> {
    let rewrite = Rewrite { inline: InlineData::External(own), location: &|location| location.to_owned() };
    let copy = rewrite.apply(graph).map_err(|error| decoding_fault(&error))?;
    if let Some(content) = lost_content(&copy.bytes).map_err(|error| decoding_fault(&error))? {
        return Err(format!("it has {content}"));
    }
    let mut model = ModelProto::parse_buf(&copy.bytes).map_err(|error| decoding_fault(&error))?;
    model.graph.iter_mut().for_each(hoist_constants);
    Ok(model)
}

/// Makes initializers of constant nodes with external values, which engines do not read.
fn hoist_constants(graph: &mut GraphProto) {
    let is_constant = |node: &NodeProto| {
        node.op_type.as_deref() == Some("Constant")
            && node.attribute.first().and_then(|attribute| attribute.t.as_ref()).is_some_and(is_external)
    };
    let (constants, nodes) = std::mem::take(&mut graph.node).into_iter().partition(is_constant);
    graph.node = nodes;
    for mut constant in constants {
        let tensor = constant.attribute.pop().and_then(|attribute| attribute.t);
        graph.initializer.extend(tensor.map(|tensor| TensorProto { name: constant.output.pop(), ..tensor }));
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.iter_mut().for_each(hoist_constants);
    }
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::EXTERNAL)
}
