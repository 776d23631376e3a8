//! Stable Diffusion 3 (Esser et al. 2024).

use super::stable_diffusion;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{LatentScaling, PipelineFacts, StrengthRule};
use crate::bundle::text_encoding::{CLIP, LayerRule, Pooled, RowUse, T5, TextEncoderFacts, TextLength};

const PROJECTED_CLIP: TextEncoderFacts = TextEncoderFacts {
    classes: &["CLIPTextModelWithProjection"],
    layer: LayerRule::BeforeLast,
    pooled: Some(Pooled::Projected),
    ..CLIP
};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Stable Diffusion 3",
    classes: &[
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ],
    network_classes: &["SD3Transformer2DModel"],
    required_inputs: &[Role::Pooled],
    text_encoders: &[
        PROJECTED_CLIP,
        PROJECTED_CLIP,
        TextEncoderFacts { is_optional: true, length: TextLength::Requested(256), rows: RowUse::After, ..T5 },
    ],
    predicts_flow: true,
    steps: 28,
    guidance: 7.0,
    passes_eta: false,
    strength: 0.6,
    inpaint_strength: 0.6,
    strength_rule: StrengthRule::Ceil,
    latent_multiple: 2,
    // The network takes patches of 2×2.
    positions_per_token: 4,
    has_second_prompt: true,
    latent_scaling: LatentScaling::FactorAndShift,
    published_scaling: (1.5305, 0.0609),
    default_sample_size: 128,
    preview: None,
    ..stable_diffusion::FACTS
};
