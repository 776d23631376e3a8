//! PixArt-Sigma (Chen et al. 2024).

use super::{stable_diffusion, stable_diffusion_xl};
use crate::bundle::Role;
use crate::bundle::pipeline_kind::PipelineFacts;
use crate::bundle::text_encoding::{Masking, PLAIN, T5, Template, TextEncoderFacts, TextLength};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "PixArt-Sigma",
    classes: &["PixArtSigmaPipeline"],
    network_classes: &["PixArtTransformer2DModel"],
    network_keys: "\
        activation_fn attention_bias caption_channels double_self_attention interpolation_scale \
        norm_elementwise_affine norm_type num_embeds_ada_norm num_vector_embeds use_additional_conditions",
    required_inputs: &[Role::TextMask],
    is_found_by_inputs: false,
    text_encoders: &[TextEncoderFacts {
        template: Template { lowers_case: true, ..PLAIN },
        length: TextLength::Requested(300),
        masking: Masking::Always,
        ..T5
    }],
    // The noise, then its variance, which the pipeline leaves out.
    outputs_per_value: None,
    steps: 20,
    guidance: 4.5,
    takes_image: false,
    // The network takes patches of 2×2.
    latent_multiple: 2,
    positions_per_token: 4,
    has_clip_skip: false,
    published_scaling: (0.13025, 0.0),
    default_sample_size: 128,
    preview: stable_diffusion_xl::FACTS.preview,
    ..stable_diffusion::FACTS
};
