//! Networks that steer another one, and that are not served.

use super::{ControlNetIo, PICTURE};
use crate::tensor::GraphIo;

/// Whether an input of a U-Net has the name of one for a ControlNet's residual.
pub(crate) fn is_residual(name: &str) -> bool {
    ["down_block", "mid_block", "input_control_"].iter().any(|start| name.starts_with(start))
}

/// Whether a graph is a U-Net with inputs for a ControlNet's residuals.
pub(in crate::bundle) fn takes_residuals(graph: &GraphIo) -> bool {
    graph.inputs.iter().any(|input| is_residual(&input.name))
}

/// What a graph is that is no ControlNet of Stable Diffusion; `None` if it is one.
pub(in crate::bundle) fn unserved_network(graph: &GraphIo) -> Option<&'static str> {
    let has = |name: &str| graph.inputs.iter().any(|input| input.name == name);
    if has("control_type") || has("control_type_idx") {
        return Some("a ControlNet Union, which takes several kinds of pictures, and is not served");
    }
    if has("hidden_states") && (has("img_ids") || has("controlnet_mode")) {
        return Some("a ControlNet of Flux, which is not served");
    }
    if has("hidden_states") && has(PICTURE) {
        return Some("a ControlNet of Stable Diffusion 3 or another transformer, which is not served");
    }
    if ControlNetIo::is_controlnet(graph) {
        return None;
    }
    if has(PICTURE) {
        return Some("a network that takes a picture but no text, which is not served");
    }
    if takes_residuals(graph) {
        return Some("a U-Net with inputs for a ControlNet's residuals, and no ControlNet");
    }
    let returns_features = graph.outputs.len() > 1 && graph.inputs.len() == 1;
    Some(match returns_features {
        true => "a T2I-Adapter or another network of pictures, which is not served",
        false => "no ControlNet, because it has no input controlnet_cond",
    })
}
