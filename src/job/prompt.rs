//! A job's prompts, and how strongly the network follows them.

use super::init_image::Sizes;
use super::{JobError, ModelCard, Request};
use crate::bundle::PipelineFacts;
use crate::model::{LatentError, TextConditioning};

/// The longest prompt, in bytes; the text encoders take far less.
const MAX_PROMPT_LEN: usize = 20_000;

/// The most tokens of a text encoder that takes as many as a job asks for.
pub(super) const MAX_SEQUENCE_LENGTH: u64 = 512;

impl Request {
    /// Validates the prompts and the fields around them. Returns `None` for a model without text encoders.
    pub(super) fn check_text(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
    ) -> Result<Option<TextConditioning>, JobError> {
        if model.latent.is_none() {
            return self.refuse_text(model).map(|()| None);
        }
        let facts = model.facts();
        self.check_prompt_lengths()?;
        let Some(prompt) = &self.prompt else {
            let message = format!("{} needs a prompt; \"\" is allowed", model.name());
            return Err(JobError::out_of_range("prompt", message));
        };
        let is_embedded = model.has_embedded_guidance();
        let guidance = self.check_guidance_scale(model)?;
        self.refuse_unsupported_fields(model, facts)?;
        self.check_guidance_limits()?;
        if let Some(n) = self.max_sequence_length.filter(|n| !(1..=MAX_SEQUENCE_LENGTH).contains(n)) {
            let message =
                format!("max_sequence_length is {n}, but must lie between 1 and {MAX_SEQUENCE_LENGTH}");
            return Err(JobError::out_of_range("max_sequence_length", message));
        }
        check_sequence_length(model, self.max_sequence_length)?;
        check_clip_skip(model, self.clip_skip)?;
        // As the reference's `prompt_2 or prompt`, for which an empty text is none.
        let or = |second: &Option<String>, first: &str| {
            second.clone().filter(|second| !second.is_empty()).unwrap_or_else(|| first.to_owned())
        };
        let negative = match (&self.negative_prompt, &self.negative_prompt_2) {
            (None, None) => None,
            (None, Some(_)) if model.zeroes_missing_negative() => None,
            (first, second) => {
                let first = first.clone().unwrap_or_default();
                Some([first.clone(), or(second, &first)])
            }
        };
        Ok(Some(TextConditioning {
            prompt: [prompt.clone(), or(&self.prompt_2, prompt)],
            negative,
            clip_skip: self.clip_skip.map(|n| n as usize).filter(|n| *n > 0),
            max_sequence_length: self
                .max_sequence_length
                .map(|n| n as usize)
                .or_else(|| default_sequence_length(model)),
            guidance,
            guidance_rule: facts.guidance_rule,
            cfg_normalization: self.cfg_normalization.filter(|limit| *limit > 0.0),
            cfg_truncation: self.cfg_truncation.filter(|share| *share < 1.0),
            guided: facts.guidance_rule.is_on(guidance) && !is_embedded,
            time_ids: self.micro_conditioning(sizes),
        }))
    }

    fn check_prompt_lengths(&self) -> Result<(), JobError> {
        for (field, text) in [
            ("prompt", &self.prompt),
            ("negative_prompt", &self.negative_prompt),
            ("prompt_2", &self.prompt_2),
            ("negative_prompt_2", &self.negative_prompt_2),
        ] {
            let length = text.as_ref().map_or(0, String::len);
            if length > MAX_PROMPT_LEN {
                let message = format!("{field} has {length} bytes, but at most {MAX_PROMPT_LEN} are taken");
                return Err(JobError::out_of_range(field, message));
            }
        }
        Ok(())
    }

    /// SDXL's `time_ids`: original size, crop, target size.
    fn micro_conditioning(&self, sizes: &Sizes) -> [f32; 6] {
        let own = [sizes.image[1] as f32, sizes.image[2] as f32];
        let pair = |given: Option<[u64; 2]>, default| given.map_or(default, |pair| pair.map(|n| n as f32));
        let [original_height, original_width] = pair(self.original_size, own);
        let [top, left] = pair(self.crop, [0.0, 0.0]);
        let [target_height, target_width] = pair(self.target_size, own);
        [original_height, original_width, top, left, target_height, target_width]
    }

    fn check_guidance_scale(&self, model: &ModelCard) -> Result<f64, JobError> {
        let scale = self.guidance.unwrap_or(model.bundle.defaults.guidance.value);
        if (0.0..=100.0).contains(&scale) {
            return Ok(scale);
        }
        let message = format!("guidance is {scale}, but must lie between 0 and 100");
        Err(JobError::out_of_range("guidance", message))
    }

    fn check_guidance_limits(&self) -> Result<(), JobError> {
        for (field, given, max) in
            [("cfg_normalization", self.cfg_normalization, 100), ("cfg_truncation", self.cfg_truncation, 1)]
        {
            if let Some(value) = given.filter(|value| !(0.0..=f64::from(max)).contains(value)) {
                let message = format!("{field} is {value}, but must lie between 0 and {max}");
                return Err(JobError::out_of_range(field, message));
            }
        }
        Ok(())
    }

    /// Refuses fields that other pipelines have.
    fn refuse_unsupported_fields(&self, model: &ModelCard, facts: &PipelineFacts) -> Result<(), JobError> {
        let fields = [
            ("negative_prompt", self.negative_prompt.is_some(), facts.has_negative_prompt),
            ("prompt_2", self.prompt_2.is_some(), facts.has_second_prompt),
            ("negative_prompt_2", self.negative_prompt_2.is_some(), facts.has_second_prompt),
            ("clip_skip", self.clip_skip.is_some(), facts.has_clip_skip),
            ("max_sequence_length", self.max_sequence_length.is_some(), facts.sequence_length().is_some()),
            ("cfg_normalization", self.cfg_normalization.is_some(), facts.has_guidance_limits),
            ("cfg_truncation", self.cfg_truncation.is_some(), facts.has_guidance_limits),
            ("original_size", self.original_size.is_some(), facts.has_micro_conditioning),
            ("crop", self.crop.is_some(), facts.has_micro_conditioning),
            ("target_size", self.target_size.is_some(), facts.has_micro_conditioning),
        ];
        match fields.iter().find(|(_, is_given, is_supported)| *is_given && !is_supported) {
            None => Ok(()),
            Some((field, ..)) => {
                let message = format!("{} does not support {field}; remove it", model.name());
                Err(JobError::out_of_range(field, message))
            }
        }
    }

    /// Refuses all text fields.
    fn refuse_text(&self, model: &ModelCard) -> Result<(), JobError> {
        let fields = [
            ("prompt", self.prompt.is_some()),
            ("prompt_2", self.prompt_2.is_some()),
            ("negative_prompt", self.negative_prompt.is_some()),
            ("negative_prompt_2", self.negative_prompt_2.is_some()),
            ("clip_skip", self.clip_skip.is_some()),
            ("cfg_normalization", self.cfg_normalization.is_some()),
            ("cfg_truncation", self.cfg_truncation.is_some()),
            ("max_sequence_length", self.max_sequence_length.is_some()),
            ("original_size", self.original_size.is_some()),
            ("crop", self.crop.is_some()),
            ("target_size", self.target_size.is_some()),
        ];
        match fields.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((field, _)) => {
                let message = format!("{} takes no text; remove {field}", model.name());
                Err(JobError::out_of_range(field, message))
            }
        }
    }
}

/// The default number of tokens, if it is not the pipeline's and the graphs take it.
fn default_sequence_length(model: &ModelCard) -> Option<usize> {
    let default = model.bundle.defaults.max_sequence_length.as_ref()?;
    let is_fixed = model.size_limits.is_some_and(|limits| limits.fixes_sequence_length);
    Some(default.value).filter(|_| !is_fixed)
}

/// Refuses a number of tokens that the graphs do not take.
fn check_sequence_length(model: &ModelCard, given: Option<u64>) -> Result<(), JobError> {
    let limits = model.size_limits.filter(|limits| limits.fixes_sequence_length);
    match (limits, given) {
        (Some(limits), Some(n)) if n != limits.sequence_length as u64 => {
            let fixed = limits.sequence_length;
            let message = format!(
                "max_sequence_length is {n}, but the graphs of {} only take {fixed}; use {fixed}",
                model.name()
            );
            Err(JobError::out_of_range("max_sequence_length", message))
        }
        _ => Ok(()),
    }
}

/// Refuses to skip more layers than the text encoders have.
fn check_clip_skip(model: &ModelCard, given: Option<u64>) -> Result<(), JobError> {
    let largest = model.size_limits.map_or(0, |limits| limits.largest_clip_skip);
    match given {
        Some(n) if n > largest as u64 => {
            let error = match largest {
                0 => LatentError::NoLayers,
                max => LatentError::Layers { requested: usize::try_from(n).unwrap_or(usize::MAX), max },
            };
            Err(JobError::out_of_range("clip_skip", error))
        }
        _ => Ok(()),
    }
}
