//! What a job says in words, and how strongly the network follows them.

use super::init_image::Sizes;
use super::{JobError, ModelCard, Request};
use crate::bundle::{PipelineFacts, Role};
use crate::model::TextConditioning;

/// No prompt is longer, in bytes; encoders take far less.
const LONGEST: usize = 20_000;

impl Request {
    /// The words of a job; none for a model that takes none.
    pub(super) fn check_wish(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
    ) -> Result<Option<TextConditioning>, JobError> {
        if model.latent.is_none() {
            return self.refuse_words(model).map(|()| None);
        }
        let texts = [
            ("prompt", &self.prompt),
            ("negative_prompt", &self.negative_prompt),
            ("prompt_2", &self.prompt_2),
            ("negative_prompt_2", &self.negative_prompt_2),
        ];
        for (field, text) in texts {
            let length = text.as_ref().map_or(0, String::len);
            if length > LONGEST {
                let message = format!("{field} has {length} bytes, but {LONGEST} are the most that is taken");
                return Err(JobError::range(field, message));
            }
        }
        let Some(prompt) = &self.prompt else {
            let message = format!("{} draws what a prompt says: give one, if only \"\"", model.bundle.name);
            return Err(JobError::range("prompt", message));
        };
        let facts = model.facts();
        let by_network = facts.is_guidance_distilled
            || model.signature.has(Role::GuidanceEmbedding)
            || model.signature.has(Role::Guidance);
        let guidance = self.check_weight(model, facts.guidance)?;
        let guided = guidance > 1.0 && !by_network;
        if (self.negative_prompt.is_some() || self.negative_prompt_2.is_some()) && by_network {
            let message = format!(
                "{} is told the weight of guidance and never evaluated without the prompt, so that a negative \
                 prompt has no effect: leave it out",
                model.bundle.name
            );
            return Err(JobError::range("negative_prompt", message));
        }
        self.refuse_what_says_nothing(model, facts)?;
        if let Some(n) = self.max_sequence_length.filter(|n| !(1..=512).contains(n)) {
            let message = format!("max_sequence_length is {n}, but must lie between 1 and 512");
            return Err(JobError::range("max_sequence_length", message));
        }
        let or = |second: &Option<String>, first: &str| second.clone().unwrap_or_else(|| first.to_owned());
        let negative = match (&self.negative_prompt, &self.negative_prompt_2) {
            (None, None) => None,
            (first, second) => {
                let first = first.clone().unwrap_or_default();
                Some([first.clone(), or(second, &first)])
            }
        };
        let (height, width) = (sizes.picture[1] as f32, sizes.picture[2] as f32);
        let [oh, ow] = self.original_size.map_or([height, width], |size| size.map(|n| n as f32));
        let [top, left] = self.crop.map_or([0.0, 0.0], |crop| crop.map(|n| n as f32));
        let [th, tw] = self.target_size.map_or([height, width], |size| size.map(|n| n as f32));
        Ok(Some(TextConditioning {
            prompt: [prompt.clone(), or(&self.prompt_2, prompt)],
            negative,
            clip_skip: self.clip_skip.map(|n| n as usize).filter(|n| *n > 0),
            max_sequence_length: self.max_sequence_length.map(|n| n as usize),
            guidance,
            guided,
            time_ids: [oh, ow, top, left, th, tw],
        }))
    }

    fn check_weight(&self, model: &ModelCard, default: f64) -> Result<f64, JobError> {
        let weight = self.guidance.or(model.bundle.manifest.default.guidance).unwrap_or(default);
        if (0.0..=100.0).contains(&weight) {
            return Ok(weight);
        }
        let message = format!("guidance is {weight}, but must lie between 0 and 100");
        Err(JobError::range("guidance", message))
    }

    /// Words and sizes that other families have.
    fn refuse_what_says_nothing(&self, model: &ModelCard, facts: &PipelineFacts) -> Result<(), JobError> {
        let given = [
            ("prompt_2", self.prompt_2.is_some() && !facts.has_second_prompt),
            ("negative_prompt_2", self.negative_prompt_2.is_some() && !facts.has_second_prompt),
            ("clip_skip", self.clip_skip.is_some() && !facts.has_clip_skip),
            ("max_sequence_length", self.max_sequence_length.is_some() && facts.t5.is_none()),
            ("original_size", self.original_size.is_some() && !facts.has_micro_conditioning),
            ("crop", self.crop.is_some() && !facts.has_micro_conditioning),
            ("target_size", self.target_size.is_some() && !facts.has_micro_conditioning),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((field, _)) => {
                let message = format!("{field} says nothing to {}; leave it out", model.bundle.name);
                Err(JobError::range(field, message))
            }
        }
    }

    fn refuse_words(&self, model: &ModelCard) -> Result<(), JobError> {
        let given = [
            ("prompt", self.prompt.is_some()),
            ("prompt_2", self.prompt_2.is_some()),
            ("negative_prompt", self.negative_prompt.is_some()),
            ("negative_prompt_2", self.negative_prompt_2.is_some()),
            ("clip_skip", self.clip_skip.is_some()),
            ("max_sequence_length", self.max_sequence_length.is_some()),
            ("original_size", self.original_size.is_some()),
            ("crop", self.crop.is_some()),
            ("target_size", self.target_size.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((field, _)) => Err(JobError::range(
                field,
                format!("{} takes no words, so {field} says nothing", model.bundle.name),
            )),
        }
    }
}
