//! Flux (Black Forest Labs 2024).

use super::stable_diffusion_3;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{PipelineFacts, TimeConvention};
use crate::bundle::text_encoding::{CLIP, Pooled, RowUse, T5, TextEncoderFacts};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Flux",
    classes: &["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"],
    network_classes: &["FluxTransformer2DModel"],
    required_inputs: &[Role::ImageIds],
    text_encoders: &[
        TextEncoderFacts { rows: RowUse::Unused, pooled: Some(Pooled::NotProjected), ..CLIP },
        TextEncoderFacts { rows: RowUse::Beside, ..T5 },
    ],
    time: TimeConvention::Sigma,
    guidance: 3.5,
    is_guidance_distilled: true,
    packing: Some(2),
    has_linear_sigmas: true,
    latent_size: Some(128),
    has_clip_skip: false,
    published_scaling: (0.3611, 0.1159),
    ..stable_diffusion_3::FACTS
};
