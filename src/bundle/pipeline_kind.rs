//! What distinguishes the families of text-to-image pipelines. [`families`](super::families) has the table of each.

use super::preview_projection::Factors;
use super::text_encoding::TextEncoderFacts;
use super::{PipelineKind, Role, Signature};

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

/// How the sampler's time step t, from 0 to 1000, becomes the network's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TimeConvention {
    /// t.
    Step,
    /// t · `timestep_scale` of the network's configuration.
    ScaledStep(f64),
    /// t / 1000, the noise level of a straight path.
    Sigma,
    /// 1 − t / 1000, the signal level of a straight path.
    InverseSigma,
}

/// How the outputs with and without the prompt are combined with a guidance weight w.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceRule {
    /// u + w · (c − u), for a weight of more than 1.
    FromUnconditional,
    /// c + w · (c − u), for a weight of more than 0.
    FromConditional,
}

/// What distinguishes the pipelines of one family. Defaults are those of the diffusers pipeline.
#[derive(Debug, Clone)]
pub struct PipelineFacts {
    /// The name of the pipeline in messages.
    pub(super) title: &'static str,
    /// The classes of pipelines in model_index.json.
    pub(super) classes: &'static [&'static str],
    /// The classes of the network.
    pub(super) network_classes: &'static [&'static str],
    /// The classes of the autoencoder.
    pub(super) autoencoder_classes: &'static [&'static str],
    /// The keys of the network's configuration that say nothing beside its graph, separated by blanks.
    pub(super) network_keys: &'static str,
    /// The inputs of the network without which it is of another family.
    pub(super) required_inputs: &'static [Role],
    /// Whether these inputs show the family, so that no class needs to be named.
    pub(super) is_found_by_inputs: bool,
    /// The text encoders, in the order of their folders.
    pub(crate) text_encoders: &'static [TextEncoderFacts],
    /// How the network takes the time.
    pub(super) time: TimeConvention,
    /// Whether the network predicts the velocity of a flow.
    pub(super) predicts_flow: bool,
    /// Whether the network predicts the negative of what its sampler takes.
    pub(super) negates_output: bool,
    /// How many values the network predicts per value of a sample, if all networks of the family predict as many.
    pub(crate) outputs_per_value: Option<usize>,
    /// The default number of steps.
    pub steps: usize,
    /// The default guidance weight.
    pub guidance: f64,
    /// How the outputs with and without the prompt are combined.
    pub guidance_rule: GuidanceRule,
    /// Whether a job may bound the norm of guided predictions, and end guidance early.
    pub has_guidance_limits: bool,
    /// Whether the network itself applies guidance, so that it is never evaluated without the prompt, even where
    /// it has no input for the weight.
    pub is_guidance_distilled: bool,
    /// The factor of the guidance weight as the network's input, where its configuration does not give one.
    pub(super) guidance_embeds_scale: f32,
    /// Whether the pipeline passes η to its sampler.
    pub(crate) passes_eta: bool,
    /// Whether the pipeline starts from images.
    pub takes_image: bool,
    /// The default strength of image-to-image.
    pub strength: f64,
    /// The default strength of inpainting.
    pub inpaint_strength: f64,
    /// How strength shortens the schedule.
    pub strength_rule: StrengthRule,
    /// The height and width of a latent must be multiples of this.
    pub latent_multiple: usize,
    /// The side of the patches of which the sampler's latents have one row each; `None` for latents that are not packed.
    pub packing: Option<usize>,
    /// How many positions of a latent are one token of the network's largest attention.
    pub(crate) positions_per_token: usize,
    /// Whether the default schedule has linearly spaced sigmas, shifted by the number of patches.
    pub has_linear_sigmas: bool,
    /// Whether this shift is FLUX.2's, which depends on the number of steps too.
    pub(crate) has_empirical_shift: bool,
    /// The default height and width of a latent, where the network's own sample does not give them.
    pub latent_size: Option<usize>,
    /// Whether a job may have a negative prompt. Without it, guidance compares with an empty prompt.
    pub has_negative_prompt: bool,
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
    /// `scaling_factor` and `shift_factor` of the published autoencoder.
    pub(super) published_scaling: (f32, f32),
    /// The height and width of a latent where no configuration has `sample_size`.
    pub(super) default_sample_size: usize,
    /// The published projection from latents to previews.
    pub(super) preview: Option<&'static Factors>,
}

impl PipelineKind {
    /// The pipeline whose denoiser has these inputs: the one that a class names, or else one that its inputs show. `None` if
    /// the denoiser takes no text, or if its family is not known.
    pub(crate) fn from_signature(signature: &Signature) -> Option<Self> {
        if !signature.has(Role::Text) {
            return None;
        }
        let fits = |kind: &Self| {
            let required = kind.facts().required_inputs;
            let takes_mask = required.contains(&Role::TextMask);
            required.iter().all(|role| signature.has(*role)) && takes_mask == signature.has(Role::TextMask)
        };
        let by_inputs = || Self::ALL.into_iter().filter(|kind| kind.facts().is_found_by_inputs).find(fits);
        signature.named_kind.filter(fits).or_else(by_inputs)
    }

    /// The name of the pipeline.
    pub fn title(self) -> &'static str {
        self.facts().title
    }
}

impl PipelineFacts {
    /// The default strength of image-to-image, or of inpainting.
    pub fn default_strength(&self, has_mask: bool) -> f64 {
        if has_mask { self.inpaint_strength } else { self.strength }
    }

    /// How the network takes the time, with the `timestep_scale` of its configuration.
    pub(super) fn time_convention(&self, timestep_scale: Option<f64>) -> TimeConvention {
        match (self.time, timestep_scale) {
            (TimeConvention::ScaledStep(_), Some(scale)) => TimeConvention::ScaledStep(scale),
            (time, _) => time,
        }
    }

    /// The network's input for a guidance weight, with the `guidance_embeds_scale` of its configuration.
    pub(crate) fn guidance_input(&self, weight: f64, embeds_scale: Option<f32>) -> f32 {
        weight as f32 * embeds_scale.unwrap_or(self.guidance_embeds_scale)
    }

    /// The default number of tokens of the text encoder that takes as many as a job asks for.
    pub(crate) fn sequence_length(&self) -> Option<usize> {
        self.text_encoders.iter().find_map(|encoder| encoder.length.default())
    }
}

impl TimeConvention {
    /// The network's input for a time step.
    pub(crate) fn convert(self, t: f64) -> f64 {
        match self {
            Self::Step => t,
            Self::ScaledStep(scale) => t * scale,
            Self::Sigma => t / 1000.0,
            Self::InverseSigma => (1000.0 - t) / 1000.0,
        }
    }
}

impl GuidanceRule {
    /// Whether a weight has an effect, so that the network is evaluated without the prompt too.
    pub fn is_on(self, weight: f64) -> bool {
        match self {
            Self::FromUnconditional => weight > 1.0,
            Self::FromConditional => weight > 0.0,
        }
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

    fn kind(names: &[&str], named: Option<PipelineKind>) -> Option<PipelineKind> {
        let value = |name: &str, axes: &[Option<usize>]| ValueInfo::with_axes(name, DataType::F32, axes);
        let image = |name: &str| value(name, &[None, Some(4), Some(8), Some(8)]);
        let time = value("timestep", &[None]);
        let conditioning = |name: &str| match name {
            "encoder_hidden_states" => value(name, &[None, None, Some(8)]),
            "encoder_attention_mask" => value(name, &[None, None]),
            "time_ids" => value(name, &[None, Some(6)]),
            "img_ids" | "txt_ids" => value(name, &[None, Some(3)]),
            _ => value(name, &[None, Some(8)]),
        };
        let inputs = names.iter().map(|name| conditioning(name)).chain([image("sample"), time]);
        let graph = GraphIo { inputs: inputs.collect(), outputs: vec![image("out_sample")] };
        let network = NetworkSize { named_kind: named, ..NetworkSize::default() };
        let signature = Signature::resolve(&graph, &Manifest::default(), network, 8).unwrap();
        PipelineKind::from_signature(&signature)
    }

    #[test]
    fn the_inputs_of_the_denoiser_determine_the_kind() {
        for (names, expected) in [
            (&[][..], None),
            (&["encoder_hidden_states"], Some(PipelineKind::StableDiffusion)),
            (&["encoder_hidden_states", "timestep_cond"], Some(PipelineKind::LatentConsistency)),
            (&["encoder_hidden_states", "text_embeds", "time_ids"], Some(PipelineKind::StableDiffusionXl)),
            (&["encoder_hidden_states", "pooled_projections"], Some(PipelineKind::StableDiffusion3)),
            (
                &["encoder_hidden_states", "pooled_projections", "img_ids", "txt_ids"],
                Some(PipelineKind::Flux),
            ),
            // Several families take a mask of the text.
            (&["encoder_hidden_states", "encoder_attention_mask"], None),
        ] {
            assert_eq!(kind(names, None), expected, "{names:?}");
        }
    }

    #[test]
    fn a_named_kind_needs_its_inputs() {
        let mask = &["encoder_hidden_states", "encoder_attention_mask"][..];
        let rows = &mask[..1];
        for (names, named, expected) in [
            (mask, PipelineKind::Sana, Some(PipelineKind::Sana)),
            (mask, PipelineKind::ZImage, None),
            (rows, PipelineKind::ZImage, Some(PipelineKind::ZImage)),
            (rows, PipelineKind::Sana, Some(PipelineKind::StableDiffusion)),
            // Without its input for the guidance weight, it is another model.
            (mask, PipelineKind::SanaSprint, None),
        ] {
            assert_eq!(kind(names, Some(named)), expected, "{named:?}");
        }
    }

    #[test]
    fn strength_is_rounded_as_the_kind_s_pipeline_rounds_it() {
        for (rule, left) in [(StrengthRule::Floor, 2), (StrengthRule::Ceil, 3), (StrengthRule::Rescaled, 5)] {
            assert_eq!(rule.steps_left(5, 0.5), left, "{rule:?}");
        }
    }

    #[test]
    fn the_weight_of_guidance_is_scaled_for_the_network() {
        let input = |kind: PipelineKind, scale| kind.facts().guidance_input(4.5, scale);
        assert_eq!(input(PipelineKind::Flux, None), 4.5);
        assert_eq!(input(PipelineKind::SanaSprint, None), 4.5 * 0.1);
        assert_eq!(input(PipelineKind::SanaSprint, Some(0.5)), 2.25);
    }

    #[test]
    fn time_is_given_as_the_family_takes_it() {
        let given = [
            TimeConvention::Step,
            TimeConvention::ScaledStep(0.5),
            TimeConvention::Sigma,
            TimeConvention::InverseSigma,
        ];
        assert_eq!(given.map(|time| time.convert(750.0)), [750.0, 375.0, 0.75, 0.25]);
    }
}
