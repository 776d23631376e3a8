//! Z-Image and Z-Image-Turbo (Z-Image Team 2025).

use super::stable_diffusion_3;
use crate::bundle::pipeline_kind::{GuidanceRule, PipelineFacts, TimeConvention};
use crate::bundle::text_encoding::{
    LayerRule, Masking, PLAIN, Prefix, RowUse, T5, Template, TextEncoderFacts, TextLength,
};
use crate::bundle::text_model::QWEN;

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Z-Image",
    classes: &["ZImagePipeline", "ZImageImg2ImgPipeline"],
    network_classes: &["ZImageTransformer2DModel"],
    network_keys: "\
        all_f_patch_size all_patch_size axes_dims axes_lens cap_feat_dim dim n_heads n_kv_heads n_layers \
        n_refiner_layers rope_theta siglip_feat_dim t_scale",
    required_inputs: &[],
    is_found_by_inputs: false,
    text_encoders: &[TextEncoderFacts {
        model: &QWEN,
        classes: &["Qwen3Model", "Qwen3ForCausalLM"],
        // The chat template of one user message, with thinking turned on.
        template: Template {
            before: Prefix::Text("<|im_start|>user\n"),
            after: "<|im_end|>\n<|im_start|>assistant\n",
            chat_thinking: Some(true),
            ..PLAIN
        },
        length: TextLength::Requested(512),
        masking: Masking::Always,
        layer: LayerRule::BeforeLast,
        rows: RowUse::Unpadded,
        ..T5
    }],
    time: TimeConvention::InverseSigma,
    negates_output: true,
    outputs_per_value: Some(1),
    steps: 50,
    guidance: 5.0,
    guidance_rule: GuidanceRule::FromConditional,
    has_guidance_limits: true,
    has_linear_sigmas: true,
    has_second_prompt: false,
    has_clip_skip: false,
    published_scaling: (0.3611, 0.1159),
    ..stable_diffusion_3::FACTS
};
