//! The names of torch's modules, which exporters give to the nodes of a graph.

use rten_onnx::onnx::NodeProto;

/// The first parts of a layer's name in a U-Net and in a text encoder. Exporters may put the names of wrappers before them.
const ROOTS: [&str; 10] = [
    "down_blocks",
    "mid_block",
    "up_blocks",
    "conv_in",
    "conv_out",
    "time_embedding",
    "add_embedding",
    "text_model",
    "encoder",
    "text_projection",
];

/// The name of the module whose node this is, such as `down_blocks.1.attentions.0.proj_in` for the node
/// `/down_blocks.1/attentions.0/proj_in/Conv`. `None` if the node is not named by modules.
pub(super) fn module(node: &NodeProto) -> Option<String> {
    let path = node.name.as_deref()?.strip_prefix('/')?;
    let (modules, _) = path.rsplit_once('/')?;
    let parts: Vec<_> = modules.split('/').collect();
    let is_root = |part: &&str| ROOTS.contains(&part.split('.').next().unwrap_or_default());
    let root = parts.iter().position(is_root)?;
    Some(parts[root..].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_module() {
        let named = |name: &str| module(&NodeProto { name: Some(name.to_owned()), ..NodeProto::default() });
        let name = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj";
        let node = "/down_blocks.1/attentions.0/transformer_blocks.0/ff/net.0/proj/MatMul";
        assert_eq!(named(node).as_deref(), Some(name));
        assert_eq!(named(&format!("/network{node}")).as_deref(), Some(name));
        assert_eq!(
            named("/text_model/encoder/layers.0/self_attn/q_proj/MatMul").as_deref(),
            Some("text_model.encoder.layers.0.self_attn.q_proj")
        );
        for other in ["", "MatMul_12", "/MatMul", "/Concat_3", "/other/MatMul"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
