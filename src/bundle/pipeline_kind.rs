//! The kinds of text-to-image pipelines, and the facts in which they differ.

use std::ops::RangeInclusive;

use super::preview_projection::{self, Factors};
use super::{Role, Signature};

/// A kind of text-to-image pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineKind {
    /// Stable Diffusion 1 and 2.
    StableDiffusion,
    /// A latent consistency model (Luo et al. 2023) distilled from Stable Diffusion.
    LatentConsistency,
    /// SDXL.
    StableDiffusionXl,
    /// Stable Diffusion 3.
    StableDiffusion3,
    /// Flux.
    Flux,
}

/// How `strength` of image-to-image shortens the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrengthRule {
    /// The last `floor(steps · strength)` steps are run.
    Floor,
    /// The last `steps - floor(steps · (1 - strength))` steps are run.
    Ceil,
    /// All steps are run, spread over the noise levels below `strength`.
    Rescaled,
}

/// The keys of the autoencoder's configuration by which a pipeline converts latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentScaling {
    /// `scaling_factor`.
    Factor,
    /// `scaling_factor`, `latents_mean` and `latents_std`.
    FactorAndStatistics,
    /// `scaling_factor` and `shift_factor`.
    FactorAndShift,
}

/// What distinguishes the pipelines of one kind. Defaults are those of the diffusers pipeline.
#[derive(Debug, Clone)]
pub struct PipelineFacts {
    /// How many text encoders the bundle may have.
    pub text_encoders: RangeInclusive<usize>,
    /// Which text encoder, from 0, is T5.
    pub t5: Option<usize>,
    /// The default number of T5 tokens.
    pub sequence_length: usize,
    /// The default number of steps.
    pub steps: usize,
    /// The default guidance weight.
    pub guidance: f64,
    /// Whether the network itself applies guidance, so that it is never evaluated without the prompt, even where
    /// it has no input for the weight.
    pub is_guidance_distilled: bool,
    /// The default strength of image-to-image.
    pub strength: f64,
    /// The default strength of inpainting.
    pub inpaint_strength: f64,
    /// How strength shortens the schedule.
    pub strength_rule: StrengthRule,
    /// The height and width of a latent must be multiples of this.
    pub latent_multiple: usize,
    /// Whether the sampler's latents are packed: one row per patch of 2×2.
    pub is_packed: bool,
    /// Whether the default schedule has linearly spaced sigmas, shifted by the number of patches.
    pub has_linear_sigmas: bool,
    /// The default height and width of a latent, where the network's own sample does not give them.
    pub latent_size: Option<usize>,
    /// Whether the second text encoder may have a prompt of its own.
    pub has_second_prompt: bool,
    /// Whether layers of CLIP can be skipped.
    pub has_clip_skip: bool,
    /// Whether the network takes original size, crop and target size.
    pub has_micro_conditioning: bool,
    /// Whether `force_zeros_for_empty_prompt` of model_index.json applies.
    pub may_zero_unconditional: bool,
    /// The keys by which latents are converted for the autoencoder.
    pub latent_scaling: LatentScaling,
    /// The height and width of a latent where no configuration has `sample_size`.
    pub(super) default_sample_size: usize,
    /// The published projection from latents to previews.
    pub(super) preview: Option<&'static Factors>,
}

const STABLE_DIFFUSION: PipelineFacts = PipelineFacts {
    text_encoders: 1..=1,
    t5: None,
    sequence_length: 256,
    steps: 50,
    guidance: 7.5,
    is_guidance_distilled: false,
    strength: 0.8,
    inpaint_strength: 1.0,
    strength_rule: StrengthRule::Floor,
    latent_multiple: 1,
    is_packed: false,
    has_linear_sigmas: false,
    latent_size: None,
    has_second_prompt: false,
    has_clip_skip: true,
    has_micro_conditioning: false,
    may_zero_unconditional: false,
    latent_scaling: LatentScaling::Factor,
    default_sample_size: 64,
    preview: Some(&preview_projection::STABLE_DIFFUSION),
};

const LATENT_CONSISTENCY: PipelineFacts =
    PipelineFacts { steps: 4, guidance: 8.5, strength_rule: StrengthRule::Rescaled, ..STABLE_DIFFUSION };

const STABLE_DIFFUSION_XL: PipelineFacts = PipelineFacts {
    text_encoders: 1..=2,
    guidance: 5.0,
    strength: 0.3,
    inpaint_strength: 0.9999,
    has_second_prompt: true,
    has_micro_conditioning: true,
    may_zero_unconditional: true,
    latent_scaling: LatentScaling::FactorAndStatistics,
    default_sample_size: 128,
    preview: Some(&preview_projection::STABLE_DIFFUSION_XL),
    ..STABLE_DIFFUSION
};

const STABLE_DIFFUSION_3: PipelineFacts = PipelineFacts {
    text_encoders: 2..=3,
    t5: Some(2),
    steps: 28,
    guidance: 7.0,
    strength: 0.6,
    inpaint_strength: 0.6,
    strength_rule: StrengthRule::Ceil,
    latent_multiple: 2,
    has_second_prompt: true,
    latent_scaling: LatentScaling::FactorAndShift,
    default_sample_size: 128,
    preview: None,
    ..STABLE_DIFFUSION
};

const FLUX: PipelineFacts = PipelineFacts {
    text_encoders: 2..=2,
    t5: Some(1),
    sequence_length: 512,
    guidance: 3.5,
    is_guidance_distilled: true,
    is_packed: true,
    has_linear_sigmas: true,
    latent_size: Some(128),
    has_clip_skip: false,
    ..STABLE_DIFFUSION_3
};

impl PipelineKind {
    /// The pipeline whose denoiser has these inputs; `None` if the denoiser takes no text.
    pub(crate) fn from_signature(signature: &Signature) -> Option<Self> {
        if !signature.has(Role::Text) {
            return None;
        }
        let kind = match (signature.has(Role::Pooled), signature.has(Role::TimeIds)) {
            _ if signature.has(Role::ImageIds) => Self::Flux,
            (true, true) => Self::StableDiffusionXl,
            (true, false) => Self::StableDiffusion3,
            (false, _) if signature.has(Role::GuidanceEmbedding) => Self::LatentConsistency,
            (false, _) => Self::StableDiffusion,
        };
        Some(kind)
    }

    /// The name of the pipeline.
    pub fn title(self) -> &'static str {
        match self {
            Self::StableDiffusion => "Stable Diffusion",
            Self::LatentConsistency => "Latent consistency",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusion3 => "Stable Diffusion 3",
            Self::Flux => "Flux",
        }
    }

    /// The facts of this kind.
    pub fn facts(self) -> &'static PipelineFacts {
        match self {
            Self::StableDiffusion => &STABLE_DIFFUSION,
            Self::LatentConsistency => &LATENT_CONSISTENCY,
            Self::StableDiffusionXl => &STABLE_DIFFUSION_XL,
            Self::StableDiffusion3 => &STABLE_DIFFUSION_3,
            Self::Flux => &FLUX,
        }
    }
}

impl PipelineFacts {
    /// The default strength of image-to-image, or of inpainting.
    pub fn default_strength(&self, has_mask: bool) -> f64 {
        if has_mask { self.inpaint_strength } else { self.strength }
    }
}

impl StrengthRule {
    /// How many of `steps` are run at this strength.
    pub fn steps_left(self, steps: usize, strength: f64) -> usize {
        let share = steps as f64 * strength;
        match self {
            Self::Floor => share as usize,
            // In this order of operations, as the reference rounds.
            Self::Ceil => steps - (steps as f64 - share) as usize,
            Self::Rescaled => steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Manifest, NetworkSize};
    use crate::tensor::{DataType, GraphIo, ValueInfo};

    #[test]
    fn the_inputs_of_the_denoiser_determine_the_kind() {
        let value = |name: &str, axes: &[Option<usize>]| ValueInfo::with_axes(name, DataType::F32, axes);
        let image = |name: &str| value(name, &[None, Some(4), Some(8), Some(8)]);
        let time = value("timestep", &[None]);
        for (names, kind) in [
            (&[][..], None),
            (&["encoder_hidden_states"], Some(PipelineKind::StableDiffusion)),
            (&["encoder_hidden_states", "timestep_cond"], Some(PipelineKind::LatentConsistency)),
            (&["encoder_hidden_states", "text_embeds", "time_ids"], Some(PipelineKind::StableDiffusionXl)),
            (&["encoder_hidden_states", "pooled_projections"], Some(PipelineKind::StableDiffusion3)),
            (
                &["encoder_hidden_states", "pooled_projections", "img_ids", "txt_ids"],
                Some(PipelineKind::Flux),
            ),
        ] {
            let conditioning = |name: &str| match name {
                "encoder_hidden_states" => value(name, &[None, None, Some(8)]),
                "time_ids" => value(name, &[None, Some(6)]),
                "img_ids" | "txt_ids" => value(name, &[None, Some(3)]),
                _ => value(name, &[None, Some(8)]),
            };
            let inputs = names.iter().map(|name| conditioning(name)).chain([image("sample"), time.clone()]);
            let graph = GraphIo { inputs: inputs.collect(), outputs: vec![image("out_sample")] };
            let signature =
                Signature::resolve(&graph, &Manifest::default(), NetworkSize::default(), 8).unwrap();
            assert_eq!(PipelineKind::from_signature(&signature), kind, "{names:?}");
        }
    }

    #[test]
    fn strength_is_rounded_as_the_kind_s_pipeline_rounds_it() {
        for (rule, left) in [(StrengthRule::Floor, 2), (StrengthRule::Ceil, 3), (StrengthRule::Rescaled, 5)] {
            assert_eq!(rule.steps_left(5, 0.5), left, "{rule:?}");
        }
    }
}
