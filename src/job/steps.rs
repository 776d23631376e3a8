//! A job's way from noise to sample: by the request's sampler and steps, or in fewer of them.

use std::sync::Arc;

use super::init_image::{InitImage, Sizes};
use super::{ErrorCode, Job, JobError, ModelCard};
use crate::bundle::StrengthRule;
use diffusion_samplers::sampler::{self, Options, Patches, Sampler, SamplerError, Strength};

/// A sampler with its plan.
pub(super) struct Plan {
    /// The sampler's name.
    pub(super) name: String,
    pub(super) sampler: Arc<dyn Sampler>,
    pub(super) options: Options,
}

/// Plan the way of a sampler, of the model's own where none is named.
pub(super) fn plan(
    model: &ModelCard,
    name: Option<&str>,
    mut options: Options,
    sizes: &Sizes,
    beginning: Option<&InitImage>,
) -> Result<Plan, JobError> {
    let fault = |error: SamplerError| {
        let (code, field) = match &error {
            SamplerError::Steps { .. } => (ErrorCode::OutOfRange, "steps"),
            SamplerError::Eta { .. } => (ErrorCode::OutOfRange, "eta"),
            SamplerError::Whole { .. } => (ErrorCode::OutOfRange, "image"),
            _ => (ErrorCode::UnknownSampler, "sampler"),
        };
        JobError::field(code, field, error)
    };
    let choice = match name {
        Some(name) => sampler::by_name(name),
        None => sampler::by_class(&model.bundle.scheduler.class),
    }
    .map_err(fault)?;
    match beginning {
        Some(beginning) if choice.family_name() == "repaint" => {
            let needed = || JobError::range("mask", "repaint needs a mask: white is drawn anew");
            options.known = Some(beginning.unpacked()?.known().ok_or_else(needed)?);
        }
        Some(beginning) => options.strength = strength(model, beginning, options.steps)?,
        None => {}
    }
    options.patches = patches(model, sizes);
    let scheduler = &model.bundle.scheduler;
    choice.check_class(&scheduler.class, &mut scheduler.settings()).map_err(fault)?;
    let sampler = choice.build(&mut model.bundle.scheduler.settings(), &options).map_err(fault)?;
    if sampler.outputs_per_value() > model.outputs_per_value {
        let message = format!(
            "{} needs a network that also predicts variances (variance_type), and {} does not",
            choice.name, model.bundle.name
        );
        return Err(JobError::field(ErrorCode::UnknownSampler, "sampler", message));
    }
    Ok(Plan { name: choice.name, sampler, options })
}

impl Job {
    /// The same job in so many steps.
    pub fn in_steps(&self, steps: usize) -> Result<Self, JobError> {
        let options = Options { steps, ..self.options.clone() };
        let beginning = self.beginning.as_deref();
        let Plan { sampler, options, .. } =
            plan(&self.model, self.sampler_asked.as_deref(), options, &self.sizes, beginning)?;
        Ok(Self { sampler, options, ..self.clone() })
    }
}

pub(super) fn default_steps(model: &ModelCard) -> usize {
    model.bundle.manifest.default.steps.unwrap_or(model.facts().steps)
}

/// Which part of the way is left from a picture.
fn strength(model: &ModelCard, beginning: &InitImage, steps: usize) -> Result<Strength, JobError> {
    let strength = beginning.strength;
    let rule = model.facts().strength_rule;
    if rule == StrengthRule::Rescaled {
        return Ok(Strength::Rescaled(strength));
    }
    let left = rule.steps_left(steps, strength);
    if left == 0 {
        let message = format!("strength {strength} leaves none of {steps} steps; take more of either");
        return Err(JobError::range("strength", message));
    }
    Ok(Strength::LastSteps(left))
}

/// What a schedule that follows the picture's size must know of it.
fn patches(model: &ModelCard, sizes: &Sizes) -> Option<Patches> {
    model.latent.as_ref()?;
    Some(Patches { count: sizes.latent[1] * sizes.latent[2] / 4, even: model.facts().has_linear_sigmas })
}
