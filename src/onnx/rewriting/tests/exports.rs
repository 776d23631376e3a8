//! The graphs that exporters wrote, in tests/golden.

use std::path::Path;

use rten_onnx::onnx::ModelProto;

use crate::onnx::rewriting::attention::AttentionCount;
use crate::onnx::rewriting::{AttentionTarget, LoraLayers, add_live_inputs, fuse_attention};

const TARGET: AttentionTarget = AttentionTarget { float16: true, broadcasts_masks: true };

pub(super) fn load(graph: &str) -> ModelProto {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles");
    ModelProto::parse_buf(&std::fs::read(golden.join(graph)).unwrap()).unwrap()
}

#[test]
fn every_attention_of_the_bundles_is_fused() {
    for (graph, fused) in [
        ("sd/unet/model.onnx", 8),
        ("sd/text_encoder/model.onnx", 3),
        ("sd/vae_encoder/model.onnx", 1),
        ("sd/vae_decoder/model.onnx", 1),
        ("sdxl/unet/model.onnx", 8),
        ("sdxl/text_encoder_2/model.onnx", 3),
        ("sd3/transformer/model.onnx", 2),
        ("sd3/text_encoder_3/model.onnx", 2),
        ("flux/transformer/model.onnx", 2),
        ("flux/text_encoder_2/model.onnx", 2),
        ("variants/unet_float16.onnx", 8),
        ("variants/unet_int8.onnx", 8),
        ("variants/vae_decoder_float16.onnx", 1),
    ] {
        assert_eq!(fuse_attention(&mut load(graph), TARGET), AttentionCount { fused, left: 0 }, "{graph}");
    }
}

/// A LoRA's branch stands between the projections and the attention.
#[test]
fn every_attention_of_a_live_graph_is_fused() {
    for (graph, fused) in [
        ("sd/unet/model.onnx", 8),
        ("sd/text_encoder/model.onnx", 3),
        ("sdxl/unet/model.onnx", 8),
        ("sdxl/text_encoder_2/model.onnx", 3),
        ("variants/unet_float16.onnx", 8),
    ] {
        let mut live = load(graph);
        assert!(add_live_inputs(&mut live, graph.contains("unet"), LoraLayers::All).layers > 0, "{graph}");
        assert_eq!(fuse_attention(&mut live, TARGET), AttentionCount { fused, left: 0 }, "{graph}");
    }
}
