//! Stable Diffusion 1 and 2 (Rombach et al. 2022).

use crate::bundle::pipeline_kind::{
    GuidanceRule, LatentScaling, PipelineFacts, StrengthRule, TimeConvention,
};
use crate::bundle::preview_projection;
use crate::bundle::text_encoding::{CLIP, Masking, TextEncoderFacts};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Stable Diffusion",
    classes: &[
        "StableDiffusionPipeline",
        "StableDiffusionOnnxPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionInpaintPipelineLegacy",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
    ],
    network_classes: &["UNet2DConditionModel"],
    autoencoder_classes: &["AutoencoderKL", "AutoencoderTiny"],
    network_keys: "",
    required_inputs: &[],
    is_found_by_inputs: true,
    // The projection is not read.
    text_encoders: &[TextEncoderFacts {
        classes: &["CLIPTextModel", "CLIPTextModelWithProjection"],
        masking: Masking::Configured,
        ..CLIP
    }],
    time: TimeConvention::Step,
    predicts_flow: false,
    negates_output: false,
    outputs_per_value: None,
    steps: 50,
    guidance: 7.5,
    guidance_rule: GuidanceRule::FromUnconditional,
    has_guidance_limits: false,
    is_guidance_distilled: false,
    guidance_embeds_scale: 1.0,
    passes_eta: true,
    takes_image: true,
    strength: 0.8,
    inpaint_strength: 1.0,
    strength_rule: StrengthRule::Floor,
    latent_multiple: 1,
    packing: None,
    positions_per_token: 1,
    has_linear_sigmas: false,
    has_empirical_shift: false,
    latent_size: None,
    has_negative_prompt: true,
    has_second_prompt: false,
    has_clip_skip: true,
    has_micro_conditioning: false,
    may_zero_unconditional: false,
    latent_scaling: LatentScaling::Factor,
    published_scaling: (0.18215, 0.0),
    default_sample_size: 64,
    preview: Some(&preview_projection::STABLE_DIFFUSION),
};
