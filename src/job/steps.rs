//! The sampler and the steps of a job, and the same job in fewer steps.

use std::sync::Arc;

use super::init_image::{InitImage, Sizes};
use super::{ErrorCode, Job, JobError, ModelCard};
use crate::bundle::StrengthRule;
use diffusion_samplers::sampler::{self, Options, Patches, Sampler, SamplerError, SamplerSpec, Strength};

/// Finds the sampler with this name, or the one of the bundle's scheduler class.
pub(super) fn find_sampler(model: &ModelCard, name: Option<&str>) -> Result<SamplerSpec, JobError> {
    match name {
        Some(name) => sampler::by_name(name),
        None => sampler::by_class(&model.bundle.scheduler.class),
    }
    .map_err(|error| sampler_error(&error))
}

/// Builds a sampler for a model, and returns it with the options that it was built with.
pub(super) fn build_sampler(
    model: &ModelCard,
    spec: &SamplerSpec,
    mut options: Options,
    sizes: &Sizes,
    init_image: Option<&InitImage>,
) -> Result<(Arc<dyn Sampler>, Options), JobError> {
    if let Some(init_image) = init_image {
        options.strength = strength(model, init_image, options.steps)?;
    }
    options.patches = patches(model, sizes);
    options.eta = options.eta.or_else(|| pipeline_eta(model, spec));
    let scheduler = &model.bundle.scheduler;
    spec.check_class(&scheduler.class, &mut scheduler.settings()).map_err(|error| sampler_error(&error))?;
    let build = |options: &Options| {
        spec.build(&mut scheduler.settings_for(spec, InitImage::task(init_image)), options)
    };
    let sampler = build(&options).map_err(|error| {
        let works = |steps: &usize| {
            let strength = init_image.map(|image| strength(model, image, *steps)).transpose();
            let strength = strength.ok().map(|strength| strength.unwrap_or(options.strength));
            strength.is_some_and(|strength| {
                build(&Options { steps: *steps, strength, ..options.clone() }).is_ok()
            })
        };
        if !depends_on_steps(&error) {
            return sampler_error(&error);
        }
        match other_steps(options.steps, model.bundle.defaults.steps.value).find(works) {
            Some(other) => {
                let (steps, name) = (options.steps, &spec.name);
                let message = format!(
                    "steps is {steps}, which {name} cannot do with this model; use {other} ({error})"
                );
                JobError::out_of_range("steps", message)
            }
            None => sampler_error(&error),
        }
    })?;
    if sampler.outputs_per_value() > model.outputs_per_value {
        let message = format!(
            "{} needs a network that also predicts variances (variance_type), which {} does not; choose another \
             sampler",
            spec.name,
            model.name()
        );
        return Err(JobError::of_field(ErrorCode::UnknownSampler, "sampler", message));
    }
    Ok((sampler, options))
}

/// Whether another number of steps may avoid an error that does not say so.
fn depends_on_steps(error: &SamplerError) -> bool {
    matches!(error, SamplerError::NotFinite { .. } | SamplerError::Setting(_))
}

/// Numbers of steps to try in place of one that a sampler cannot do: the nearest, then fewer, then the default.
fn other_steps(steps: usize, default: usize) -> impl Iterator<Item = usize> {
    let near = (1..=3).flat_map(move |n| [steps.saturating_sub(n), steps + n]);
    let fewer = (1..=3).map(move |n| steps >> n);
    near.chain(fewer).chain([default]).filter(move |other| (1..=steps.max(default) + 3).contains(other))
}

fn sampler_error(error: &SamplerError) -> JobError {
    let (code, field) = match error {
        SamplerError::Steps { .. } => (ErrorCode::OutOfRange, "steps"),
        SamplerError::Eta { .. } => (ErrorCode::OutOfRange, "eta"),
        SamplerError::NoImageStart { .. } => (ErrorCode::OutOfRange, "image"),
        _ => (ErrorCode::UnknownSampler, "sampler"),
    };
    JobError::of_field(code, field, error)
}

impl Job {
    /// Returns the same job with another number of steps.
    pub fn with_steps(&self, steps: usize) -> Result<Self, JobError> {
        let spec = find_sampler(&self.model, self.requested_sampler.as_deref())?;
        let options = Options { steps, ..self.options.clone() };
        let (sampler, options) =
            build_sampler(&self.model, &spec, options, &self.sizes, self.init_image.as_deref())?;
        Ok(Self { sampler, options, ..self.clone() })
    }
}

/// The default number of steps: the model's, or as many as `strength` needs to leave one of them.
pub(super) fn default_steps(model: &ModelCard, init_image: Option<&InitImage>, max: u64) -> usize {
    let steps = model.bundle.defaults.steps.value;
    let Some(init_image) = init_image else { return steps };
    let leaves_some = |n: &usize| model.facts().strength_rule.steps_left(*n, init_image.strength) > 0;
    (steps..=usize::try_from(max).unwrap_or(usize::MAX)).find(leaves_some).unwrap_or(steps)
}

/// The η that the reference pipeline passes to a sampler, if it passes one.
fn pipeline_eta(model: &ModelCard, spec: &SamplerSpec) -> Option<f64> {
    let (kind, _) = model.latent.as_ref()?;
    spec.pipeline_eta().filter(|_| kind.facts().passes_eta)
}

/// The part of the schedule that img2img runs.
fn strength(model: &ModelCard, init_image: &InitImage, steps: usize) -> Result<Strength, JobError> {
    let strength = init_image.strength;
    let rule = model.facts().strength_rule;
    if rule == StrengthRule::Rescaled {
        return Ok(Strength::Rescaled(strength));
    }
    let left = rule.steps_left(steps, strength);
    if left == 0 {
        let message = format!("strength {strength} leaves none of {steps} steps; increase strength or steps");
        return Err(JobError::out_of_range("strength", message));
    }
    Ok(Strength::LastSteps(left))
}

/// The number of patches, which a schedule that depends on the image's size needs.
fn patches(model: &ModelCard, sizes: &Sizes) -> Option<Patches> {
    model.latent.as_ref()?;
    let side = model.facts().packing.unwrap_or(2);
    Some(Patches {
        count: sizes.latent[1] * sizes.latent[2] / (side * side),
        linear_sigmas: model.facts().has_linear_sigmas,
        empirical_shift: model.facts().has_empirical_shift,
    })
}
