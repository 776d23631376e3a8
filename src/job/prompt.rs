//! What a job says in words, and how strongly the network follows them.

use super::init_image::Sizes;
use super::{JobError, ModelCard, Request};
use crate::model::{PipelineKind, Role, TextConditioning};

/// No prompt is longer, in bytes; encoders take far less.
const LONGEST: usize = 20_000;

impl Request {
    /// The words of a job; none for a model that takes none.
    pub(super) fn check_wish(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
    ) -> Result<Option<TextConditioning>, JobError> {
        let Some((family, _)) = &model.latent else {
            return self.refuse_words(model).map(|()| None);
        };
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
        let embedded = |role: Role| model.signature.tensors.iter().any(|input| input.role == role);
        let by_network =
            embedded(Role::GuidanceEmbedding) || embedded(Role::Guidance) || *family == PipelineKind::Flux;
        let guidance = self.check_weight(model, default_guidance(*family, by_network))?;
        let guided = guidance > 1.0 && !by_network;
        if (self.negative_prompt.is_some() || self.negative_prompt_2.is_some()) && by_network {
            let message = format!(
                "{} is told the weight of guidance and never evaluated without the prompt, so that a negative \
                 prompt has no effect: leave it out",
                model.bundle.name
            );
            return Err(JobError::range("negative_prompt", message));
        }
        self.refuse_what_says_nothing(model, *family)?;
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
            sizes: [oh, ow, top, left, th, tw],
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
    fn refuse_what_says_nothing(&self, model: &ModelCard, family: PipelineKind) -> Result<(), JobError> {
        let (xl, sd) = (family == PipelineKind::StableDiffusionXl, family == PipelineKind::StableDiffusion);
        let given = [
            ("prompt_2", self.prompt_2.is_some() && sd),
            ("negative_prompt_2", self.negative_prompt_2.is_some() && sd),
            ("clip_skip", self.clip_skip.is_some() && family == PipelineKind::Flux),
            ("max_sequence_length", self.max_sequence_length.is_some() && (sd || xl)),
            ("original_size", self.original_size.is_some() && !xl),
            ("crop", self.crop.is_some() && !xl),
            ("target_size", self.target_size.is_some() && !xl),
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

/// The reference pipelines' own.
fn default_guidance(family: PipelineKind, by_network: bool) -> f64 {
    match family {
        PipelineKind::StableDiffusion if by_network => 8.5,
        PipelineKind::StableDiffusion => 7.5,
        PipelineKind::StableDiffusionXl => 5.0,
        PipelineKind::StableDiffusion3 => 7.0,
        PipelineKind::Flux => 3.5,
    }
}
