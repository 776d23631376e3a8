//! SDXL (Podell et al. 2023).

use super::stable_diffusion;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{LatentScaling, PipelineFacts};
use crate::bundle::preview_projection;
use crate::bundle::text_encoding::{CLIP, LayerRule, Pooled, TextEncoderFacts};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Stable Diffusion XL",
    classes: &[
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
    ],
    required_inputs: &[Role::Pooled, Role::TimeIds],
    text_encoders: &[
        // SDXL's refiner has the second one alone.
        TextEncoderFacts { is_optional: true, layer: LayerRule::BeforeLast, ..CLIP },
        TextEncoderFacts {
            classes: &["CLIPTextModelWithProjection"],
            layer: LayerRule::BeforeLast,
            pooled: Some(Pooled::Projected),
            ..CLIP
        },
    ],
    guidance: 5.0,
    strength: 0.3,
    inpaint_strength: 0.9999,
    // There is no attention in the first level.
    positions_per_token: 4,
    has_second_prompt: true,
    has_micro_conditioning: true,
    may_zero_unconditional: true,
    latent_scaling: LatentScaling::FactorAndStatistics,
    published_scaling: (0.13025, 0.0),
    default_sample_size: 128,
    preview: Some(&preview_projection::STABLE_DIFFUSION_XL),
    ..stable_diffusion::FACTS
};
