//! The defaults and the fields of diffusers' pipelines, in one table.

use crate::model::PipelineKind;

/// What differs between the reference pipelines.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReferencePipeline {
    /// The default number of steps.
    pub(super) steps: usize,
    /// The default guidance scale.
    pub(super) guidance: f64,
    /// The default guidance scale of a network that takes it as an input.
    pub(super) embedded_guidance: f64,
    /// Whether the network always takes the guidance scale as an input.
    pub(super) embeds_guidance: bool,
    /// The default strength of img2img.
    pub(super) strength: f64,
    /// The default strength of inpainting.
    pub(super) inpaint_strength: f64,
    /// How a strength that leaves a fraction of a step is rounded.
    pub(super) rounds_steps_up: bool,
    /// The side of the transformer's patches, in latent pixels; 1 for a U-Net.
    pub(super) patch: usize,
    /// The default side of the image in latent pixels, for a network that takes packed patches.
    pub(super) packed_side: Option<usize>,
    /// Whether there is a second prompt.
    pub(super) second_prompt: bool,
    /// Whether CLIP's last layers can be skipped.
    pub(super) clip_skip: bool,
    /// Whether there is a T5 encoder, whose sequence length can be chosen.
    pub(super) sequence_length: bool,
    /// Whether there is SDXL's size and crop micro-conditioning.
    pub(super) micro_conditioning: bool,
}

const STABLE_DIFFUSION: ReferencePipeline = ReferencePipeline {
    steps: 50,
    guidance: 7.5,
    embedded_guidance: 8.5,
    embeds_guidance: false,
    strength: 0.8,
    inpaint_strength: 1.0,
    rounds_steps_up: false,
    patch: 1,
    packed_side: None,
    second_prompt: false,
    clip_skip: true,
    sequence_length: false,
    micro_conditioning: false,
};

const STABLE_DIFFUSION_XL: ReferencePipeline = ReferencePipeline {
    guidance: 5.0,
    embedded_guidance: 5.0,
    strength: 0.3,
    inpaint_strength: 0.9999,
    second_prompt: true,
    micro_conditioning: true,
    ..STABLE_DIFFUSION
};

const STABLE_DIFFUSION_3: ReferencePipeline = ReferencePipeline {
    steps: 28,
    guidance: 7.0,
    embedded_guidance: 7.0,
    strength: 0.6,
    inpaint_strength: 0.6,
    rounds_steps_up: true,
    patch: 2,
    second_prompt: true,
    sequence_length: true,
    ..STABLE_DIFFUSION
};

const FLUX: ReferencePipeline = ReferencePipeline {
    guidance: 3.5,
    embedded_guidance: 3.5,
    embeds_guidance: true,
    packed_side: Some(128),
    clip_skip: false,
    ..STABLE_DIFFUSION_3
};

/// Returns the table's row of a pipeline.
pub(super) fn reference(kind: PipelineKind) -> &'static ReferencePipeline {
    match kind {
        PipelineKind::StableDiffusion => &STABLE_DIFFUSION,
        PipelineKind::StableDiffusionXl => &STABLE_DIFFUSION_XL,
        PipelineKind::StableDiffusion3 => &STABLE_DIFFUSION_3,
        PipelineKind::Flux => &FLUX,
    }
}
