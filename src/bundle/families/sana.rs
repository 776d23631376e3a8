//! SANA (Xie et al. 2024).

use super::stable_diffusion_3;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{LatentScaling, PipelineFacts, TimeConvention};
use crate::bundle::text_encoding::{
    Masking, PLAIN, Prefix, RowUse, T5, Template, TextEncoderFacts, TextLength,
};
use crate::bundle::text_model::GEMMA;

/// The keys of SanaTransformer2DModel.
pub(super) const NETWORK_KEYS: &str = "\
    attention_bias caption_channels cross_attention_head_dim guidance_embeds interpolation_scale \
    mlp_ratio norm_elementwise_affine num_cross_attention_heads";

/// Gemma, with SANA's instruction before a prompt: `complex_human_instruction` of the pipeline.
pub(super) const ENCODER: TextEncoderFacts = TextEncoderFacts {
    model: &GEMMA,
    classes: &["Gemma2Model", "Gemma2ForCausalLM"],
    template: Template {
        before: Prefix::Instruction(include_str!("sana_instruction.json")),
        has_negative: false,
        lowers_case: true,
        ..PLAIN
    },
    length: TextLength::Requested(300),
    masking: Masking::Always,
    rows: RowUse::FirstAndLast,
    ..T5
};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "SANA",
    classes: &["SanaPipeline"],
    network_classes: &["SanaTransformer2DModel"],
    autoencoder_classes: &["AutoencoderDC"],
    network_keys: NETWORK_KEYS,
    required_inputs: &[Role::TextMask],
    is_found_by_inputs: false,
    text_encoders: &[ENCODER],
    time: TimeConvention::ScaledStep(1.0),
    outputs_per_value: Some(1),
    steps: 20,
    guidance: 4.5,
    passes_eta: true,
    takes_image: false,
    latent_multiple: 1,
    positions_per_token: 1,
    has_second_prompt: false,
    has_clip_skip: false,
    latent_scaling: LatentScaling::Factor,
    published_scaling: (0.41407, 0.0),
    default_sample_size: 32,
    ..stable_diffusion_3::FACTS
};
