//! FLUX.2 klein (Black Forest Labs 2026).
//!
//! The decoder's graph takes latents as the network predicts them: it undoes the batch norm of the autoencoder, whose numbers
//! are in no configuration.

use super::flux;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{LatentScaling, PipelineFacts};
use crate::bundle::text_encoding::{
    LayerRule, Masking, PLAIN, Prefix, T5, Template, TextEncoderFacts, TextLength,
};
use crate::bundle::text_model::QWEN;

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "FLUX.2 klein",
    classes: &["Flux2KleinPipeline"],
    network_classes: &["Flux2Transformer2DModel"],
    autoencoder_classes: &["AutoencoderKLFlux2"],
    network_keys: "axes_dims_rope eps mlp_ratio rope_theta timestep_guidance_channels",
    required_inputs: &[Role::ImageIds],
    is_found_by_inputs: false,
    text_encoders: &[TextEncoderFacts {
        model: &QWEN,
        classes: &["Qwen3Model", "Qwen3ForCausalLM"],
        // The chat template of one user message, with thinking turned off.
        template: Template {
            before: Prefix::Text("<|im_start|>user\n"),
            after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            chat_thinking: Some(false),
            ..PLAIN
        },
        length: TextLength::Requested(512),
        masking: Masking::Always,
        layer: LayerRule::Numbered(&[9, 18, 27]),
        ..T5
    }],
    steps: 50,
    guidance: 4.0,
    is_guidance_distilled: false,
    takes_image: false,
    latent_multiple: 1,
    packing: Some(1),
    has_empirical_shift: true,
    latent_size: Some(64),
    has_negative_prompt: false,
    has_second_prompt: false,
    latent_scaling: LatentScaling::Factor,
    published_scaling: (1.0, 0.0),
    default_sample_size: 64,
    ..flux::FACTS
};
