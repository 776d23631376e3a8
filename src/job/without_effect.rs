//! Refuses fields that would have no effect on the job.

use super::init_image::Sizes;
use super::{JobError, ModelCard, Request};
use crate::bundle::{Projection, Role};
use crate::image::{Format, check_format};
use crate::model::TextConditioning;
use diffusion_samplers::sampler::SamplerSpec;

impl Request {
    /// Refuses fields that the model or the sampler would ignore. `guidance` is the job's guidance scale.
    pub(super) fn refuse_without_effect(
        &self,
        model: &ModelCard,
        spec: &SamplerSpec,
        sizes: &Sizes,
        text: Option<&TextConditioning>,
        guidance: f64,
    ) -> Result<(), JobError> {
        let is_guided = text.map_or(guidance != 1.0, |text| text.guided);
        let has_text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let name = model.name();
        if spec.inpaints() && self.strength.is_some() {
            let reason = format!("{}, which starts from noise", spec.name);
            return Err(without_effect("strength", &reason));
        }
        if text.is_some() && self.guidance.is_some() && !model.takes_guidance() {
            return Err(without_effect("guidance", &format!("{name}, which is distilled for one scale")));
        }
        if text.is_some() && model.has_one_text_encoder() {
            let reason = format!("{name}, which has one text encoder");
            for (field, is_set) in [
                ("prompt_2", self.prompt_2.is_some()),
                ("negative_prompt_2", self.negative_prompt_2.is_some()),
            ] {
                if is_set {
                    return Err(without_effect(field, &reason));
                }
            }
        }
        for (field, is_set) in [
            ("negative_prompt", has_text(&self.negative_prompt)),
            ("negative_prompt_2", has_text(&self.negative_prompt_2)),
            ("guidance_rescale", self.guidance_rescale.is_some_and(|rescale| rescale > 0.0)),
        ] {
            if is_set && !is_guided {
                return Err(if model.has_embedded_guidance() {
                    without_effect(field, &format!("{name}, which takes the guidance scale as an input"))
                } else {
                    let message = format!(
                        "{field} has no effect at guidance {guidance}; set a larger guidance, or remove {field}"
                    );
                    JobError::out_of_range(field, message)
                });
            }
        }
        if self.preview_every.is_some() && !model.has_preview(sizes) {
            let message = format!(
                "{name} has no projection for previews; add one with `denoised fit-preview`, or remove preview_every"
            );
            return Err(JobError::out_of_range("preview_every", message));
        }
        Ok(())
    }
}

fn without_effect(field: &str, reason: &str) -> JobError {
    JobError::out_of_range(field, format!("{field} has no effect on {reason}; remove {field}"))
}

impl ModelCard {
    /// Returns whether the network applies guidance itself, so that it is never evaluated without the prompt.
    pub(super) fn has_embedded_guidance(&self) -> bool {
        self.latent.is_some() && (self.facts().is_guidance_distilled || self.has_guidance_input())
    }

    /// Returns whether a job's guidance scale reaches the network or the combination of its outputs.
    fn takes_guidance(&self) -> bool {
        self.has_guidance_input() || !self.has_embedded_guidance()
    }

    fn has_guidance_input(&self) -> bool {
        self.signature.has(Role::GuidanceEmbedding) || self.signature.has(Role::Guidance)
    }

    fn has_one_text_encoder(&self) -> bool {
        self.latent.as_ref().is_some_and(|(_, components)| components.text_encoders.len() == 1)
    }

    /// Returns whether x̂₀ can be shown before the job is finished.
    fn has_preview(&self, sizes: &Sizes) -> bool {
        let manifest = &self.bundle.manifest;
        match &self.latent {
            None => check_format(Format::Png, manifest.sample.kind, &sizes.image).is_ok(),
            Some((kind, _)) => {
                let projection = manifest.preview.clone().or_else(|| Projection::published(*kind));
                projection.is_some_and(|projection| projection.factors.len() == sizes.latent[0])
            }
        }
    }
}
