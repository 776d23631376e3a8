//! Finds fields that have no effect on the job.

use super::control::ControlChoice;
use super::init_image::Sizes;
use super::{Job, ModelCard, Request};
use crate::bundle::Role;
use crate::image::{Format, check_format};
use crate::model::{TextConditioning, is_in_window};
use crate::units::counted;
use diffusion_samplers::sampler::SamplerSpec;

impl Request {
    /// Returns a sentence for each field that the model or the sampler ignores. `guidance` is the job's guidance scale.
    pub(super) fn ignored_fields(
        &self,
        model: &ModelCard,
        spec: &SamplerSpec,
        sizes: &Sizes,
        text: Option<&TextConditioning>,
        guidance: f64,
    ) -> Vec<String> {
        let is_guided = text.map_or(guidance != 1.0, |text| text.guided);
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let name = model.name();
        let takes_guidance = text.is_none() || model.takes_guidance();
        let has_one_text_encoder = text.is_some() && model.has_one_text_encoder();
        let distilled = format!("{name}, which is distilled for one scale");
        let unguided = if !takes_guidance {
            distilled.clone()
        } else if model.has_embedded_guidance() {
            format!("{name}, which takes the guidance scale as an input")
        } else {
            format!("this job, whose guidance is {guidance}")
        };
        let one_encoder = format!("{name}, which has one text encoder");
        let no_projection =
            format!("{name}, which has no projection for previews (see `denoised fit-preview`)");
        let format = self.format.unwrap_or_default();
        let lossless = format!("{}, which loses nothing", format.name());
        let zeroed = format!(
            "{name}, which takes zeros where negative_prompt is missing (force_zeros_for_empty_prompt)"
        );
        [
            (
                "strength",
                self.strength.is_some() && spec.inpaints(),
                &format!("{}, which starts from noise", spec.name),
            ),
            ("guidance", self.guidance.is_some() && !takes_guidance, &distilled),
            (
                "guidance",
                text.is_some_and(|text| !text.guided && takes_guidance && !model.has_embedded_guidance())
                    && self.guidance.is_some_and(|scale| scale > 0.0 && scale < 1.0),
                &format!("{name}, whose pipeline has no guidance up to a scale of 1"),
            ),
            ("prompt_2", is_set(&self.prompt_2) && has_one_text_encoder, &one_encoder),
            ("negative_prompt_2", is_set(&self.negative_prompt_2) && has_one_text_encoder, &one_encoder),
            ("negative_prompt", is_set(&self.negative_prompt) && !is_guided, &unguided),
            (
                "negative_prompt_2",
                is_set(&self.negative_prompt_2) && !is_guided && !has_one_text_encoder,
                &unguided,
            ),
            (
                "negative_prompt_2",
                is_set(&self.negative_prompt_2)
                    && is_guided
                    && !has_one_text_encoder
                    && self.negative_prompt.is_none()
                    && model.zeroes_missing_negative(),
                &zeroed,
            ),
            (
                "guidance_rescale",
                self.guidance_rescale.is_some_and(|rescale| rescale > 0.0) && !is_guided,
                &unguided,
            ),
            ("cfg_truncation", self.cfg_truncation.is_some_and(|share| share < 1.0) && !is_guided, &unguided),
            (
                "cfg_normalization",
                self.cfg_normalization.is_some_and(|limit| limit > 0.0) && !is_guided,
                &unguided,
            ),
            (
                "guess_mode",
                self.guess_mode == Some(true) && self.controls.as_ref().is_none_or(Vec::is_empty),
                &"this job, which has no controls".to_owned(),
            ),
            ("quality", self.quality.is_some() && format != Format::Jpeg, &lossless),
            ("preview_every", self.preview_every.is_some() && !model.has_preview(sizes), &no_projection),
        ]
        .into_iter()
        .filter(|(_, is_ignored, _)| *is_ignored)
        .map(|(field, _, reason)| format!("{field} has no effect on {reason}"))
        .collect()
    }

    /// Returns a sentence for each field that would act at an evaluation that the job does not have.
    pub(super) fn fields_without_evaluation(
        &self,
        evaluations: usize,
        controls: &[ControlChoice],
    ) -> Vec<String> {
        let job = format!("this job, which has {}", counted(evaluations as u64, "evaluation"));
        let idle = |(index, control): (usize, &ControlChoice)| {
            let window @ [start, end] = [control.start, control.end];
            let counts = (0..evaluations).any(|i| is_in_window(window, i, evaluations));
            (!counts).then(|| {
                format!("controls[{index}] has no effect on {job}, none of them between start {start} and end {end}")
            })
        };
        let mut sentences: Vec<_> = controls.iter().enumerate().filter_map(idle).collect();
        if self.guess_mode == Some(true) && !controls.is_empty() && sentences.len() == controls.len() {
            sentences.push("guess_mode has no effect on this job, whose controls have none".to_owned());
        }
        if self.preview_every.is_some_and(|every| every > evaluations as u64) {
            sentences.push(format!("preview_every has no effect on {job}"));
        }
        sentences
    }
}

impl Job {
    /// Returns whether the job's pictures can be shown before they are finished.
    pub(crate) fn has_preview(&self) -> bool {
        self.model.has_preview(&self.sizes)
    }
}

impl ModelCard {
    /// Returns whether the network applies guidance itself, so that it is never evaluated without the prompt.
    pub(crate) fn has_embedded_guidance(&self) -> bool {
        self.latent.as_ref().is_some_and(|(kind, components)| {
            kind.facts().is_guidance_distilled || components.is_distilled || self.has_guidance_input()
        })
    }

    /// Returns whether a job's guidance scale reaches the network or the combination of its outputs.
    pub(crate) fn takes_guidance(&self) -> bool {
        self.has_guidance_input() || !self.has_embedded_guidance()
    }

    fn has_guidance_input(&self) -> bool {
        self.signature.has(Role::GuidanceEmbedding) || self.signature.has(Role::Guidance)
    }

    /// Returns whether the embeddings of a missing negative prompt are zeros.
    pub(super) fn zeroes_missing_negative(&self) -> bool {
        self.latent.as_ref().is_some_and(|(kind, components)| {
            kind.facts().may_zero_unconditional && components.force_zeros_for_empty_prompt
        })
    }

    fn has_one_text_encoder(&self) -> bool {
        self.latent.as_ref().is_some_and(|(_, components)| components.text_encoders.len() == 1)
    }

    /// Returns whether x̂₀ can be shown before the job is finished.
    fn has_preview(&self, sizes: &Sizes) -> bool {
        let manifest = &self.bundle.manifest;
        match &self.latent {
            None => check_format(Format::Png, manifest.sample.kind, &sizes.image).is_ok(),
            Some((kind, _)) => manifest.projection(*kind, sizes.latent[0]).is_some(),
        }
    }
}
