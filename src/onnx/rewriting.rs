//! Rewrites graphs in memory, so that an engine runs them faster. Knows neither files nor engines.

mod attention;
mod constants;
mod dim;
mod fold_shapes;
mod index;
mod live_inputs;
mod new_values;
mod remove_unused;
mod values;

use rten_onnx::onnx::{GraphProto, ModelProto};

pub(crate) use attention::{AttentionTarget, fuse_attention};
pub(crate) use fold_shapes::fold_shapes;
pub(crate) use live_inputs::{LiveInputs, LoraLayers, add_live_inputs, has_live_inputs};

/// The version of ONNX's own operator set. 0 if the model imports none.
fn opset(model: &ModelProto) -> i64 {
    let own = model
        .opset_import
        .iter()
        .find(|opset| matches!(opset.domain.as_deref(), None | Some("" | "ai.onnx")));
    own.and_then(|opset| opset.version).unwrap_or(0)
}

/// The first version of ONNX files in which an initializer need not be an input of the graph.
const MIN_IR_VERSION: i64 = 4;

/// Whether the passes understand all uses of values: nested graphs, as in `If` and `Loop`, use values of the outer graph.
fn is_rewritable(model: &ModelProto) -> bool {
    let has_nested_graphs = |graph: &GraphProto| {
        graph.node.iter().flat_map(|node| &node.attribute).any(|attribute| attribute.g.is_some())
    };
    model.ir_version.unwrap_or(0) >= MIN_IR_VERSION && !model.graph.as_ref().is_some_and(has_nested_graphs)
}

#[cfg(test)]
mod tests;
