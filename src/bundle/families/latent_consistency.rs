//! Latent consistency models (Luo et al. 2023), which pipelines of Stable Diffusion load too.

use super::stable_diffusion;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{PipelineFacts, StrengthRule};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "Latent consistency",
    classes: &[
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionOnnxPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionInpaintPipelineLegacy",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
    ],
    required_inputs: &[Role::GuidanceEmbedding],
    steps: 4,
    guidance: 8.5,
    passes_eta: false,
    strength_rule: StrengthRule::Rescaled,
    ..stable_diffusion::FACTS
};
