//! A request checked against the models and limits.

use std::sync::Arc;
use std::time::Duration;

use super::picture::{Beginning, Sizes, is_distilled};
use super::{ErrorCode, Job, JobError, JobLimits, ModelCard, Request, is_id};
use crate::diffusion::noise::Generator;
use crate::diffusion::sampler::{self, Options, Part, Patches, Sampler, SamplerError};
use crate::image::Format;
use crate::model::Family;

impl Request {
    /// Check every field against the models and limits; `fresh` gives an id or a seed where the
    /// requester named none.
    pub fn check(
        &self,
        models: &[ModelCard],
        limits: JobLimits,
        fresh: impl Fn() -> u64,
    ) -> Result<Job, JobError> {
        let id = match &self.id {
            Some(id) if is_id(id) => id.clone(),
            Some(_) => {
                return Err(JobError::range("id", "id must match [A-Za-z0-9._-]{1,64}"));
            }
            None => format!("{:016x}", fresh()),
        };
        let model = self.find_model(models)?;
        if let Some(memory) = limits.memory.filter(|memory| model.largest_part > *memory) {
            let message = format!(
                "{} has a graph of {} MiB, more than the {} MiB that [engine] memory allows",
                model.bundle.name,
                model.largest_part >> 20,
                memory >> 20
            );
            return Err(JobError::field(ErrorCode::OutOfRange, "model", message));
        }
        let manifest = &model.bundle.manifest;
        let sizes = self.check_sizes(model, limits)?;
        let beginning = self.check_beginning(model, &sizes, limits)?;
        let wish = self.check_wish(model, &sizes)?;
        let options = Options {
            eta: self.eta,
            ..Options::of_steps(in_range("steps", self.steps, limits.steps, || default_steps(model))?)
        };
        let (sampler_name, sampler, options) =
            self.build_sampler(model, options, &sizes, beginning.as_ref())?;
        // What RePaint keeps, it keeps by itself.
        let beginning = beginning.filter(|_| options.known.is_none()).map(Arc::new);
        let class = self.check_class(model)?;
        let format = self.check_format(model, &sizes.picture)?;
        Ok(Job {
            id,
            sampler_name,
            sampler,
            options,
            seed: self.seed.unwrap_or_else(&fresh),
            noise: self.generator()?,
            count: in_range("count", self.count, limits.count, || 1)?,
            class,
            guidance: match &wish {
                Some(wish) => wish.guidance,
                None => self.check_guidance(model, class)?,
            },
            guidance_rescale: self.check_rescale()?,
            wish: wish.map(Arc::new),
            // What RePaint keeps, it keeps by itself.
            beginning,
            sizes,
            conditions: manifest
                .conditions
                .iter()
                .map(|(name, condition)| {
                    let given = self.conditions.as_ref().and_then(|given| given.get(name));
                    given.map_or(condition.default, |value| *value) as f32
                })
                .collect(),
            format,
            preview_every: match self.preview_every {
                Some(0) => return Err(JobError::range("preview_every", "preview_every must be at least 1")),
                every => every.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            },
            deadline: self.deadline_ms.map(Duration::from_millis),
            priority: self.priority.unwrap_or(0),
            exact: self.exact.unwrap_or(false),
            model: self.check_conditions(model)?.clone(),
        })
    }

    fn find_model<'a>(&self, models: &'a [ModelCard]) -> Result<&'a ModelCard, JobError> {
        let found = match &self.model {
            None => models.first(),
            Some(name) => models.iter().find(|card| &card.bundle.name == name),
        };
        found.ok_or_else(|| {
            let known: Vec<_> = models.iter().map(|card| card.bundle.name.as_str()).collect();
            let asked = self.model.as_deref().unwrap_or("");
            let message = format!("there is no model {asked:?}; there are: {}", known.join(", "));
            JobError::field(ErrorCode::UnknownModel, "model", message)
        })
    }

    fn build_sampler(
        &self,
        model: &ModelCard,
        mut options: Options,
        sizes: &Sizes,
        beginning: Option<&Beginning>,
    ) -> Result<(String, Arc<dyn Sampler>, Options), JobError> {
        let default = model.bundle.manifest.default.sampler.as_deref();
        let name = self.sampler.as_deref().or(default);
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
            Some(beginning) => options.part = part(model, beginning, options.steps)?,
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
        Ok((choice.name, sampler, options))
    }

    fn check_class(&self, model: &ModelCard) -> Result<Option<i64>, JobError> {
        let name = &model.bundle.name;
        let classes = model.bundle.classes();
        match (self.class, &model.signature.class) {
            (Some(_), None) => Err(JobError::range("class", format!("{name} has no classes"))),
            (Some(class), Some(_)) if class < 0 || class as u64 >= classes as u64 => {
                let message =
                    format!("class is {class}, but {name} has classes 0 to {}", classes.saturating_sub(1));
                Err(JobError::range("class", message))
            }
            (None, Some(_)) if model.bundle.manifest.classes.null.is_none() => {
                let message = format!("{name} draws a class and has no label for none: name one");
                Err(JobError::range("class", message))
            }
            (class, _) => Ok(class),
        }
    }

    fn check_guidance(&self, model: &ModelCard, class: Option<i64>) -> Result<f64, JobError> {
        let manifest = &model.bundle.manifest;
        let guidable = class.is_some() && manifest.classes.null.is_some();
        match self.guidance {
            None if guidable => Ok(manifest.default.guidance.unwrap_or(1.0)),
            None | Some(1.0) => Ok(1.0),
            Some(weight) if !(0.0..=100.0).contains(&weight) => {
                let message = format!("guidance is {weight}, but must lie between 0 and 100");
                Err(JobError::range("guidance", message))
            }
            Some(_) if !guidable => {
                let message = "guidance needs a class, and a model with a label for no class";
                Err(JobError::range("guidance", message))
            }
            Some(weight) => Ok(weight),
        }
    }

    fn check_conditions<'a>(&self, model: &'a ModelCard) -> Result<&'a ModelCard, JobError> {
        let known = &model.bundle.manifest.conditions;
        for (name, value) in self.conditions.iter().flatten() {
            let field = format!("conditions.{name}");
            let Some(condition) = known.get(name) else {
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                let message = format!(
                    "{} has no condition {name:?}; it has: [{}]",
                    model.bundle.name,
                    names.join(", ")
                );
                return Err(JobError::range(&field, message));
            };
            if !(condition.min..=condition.max).contains(value) {
                let message = format!(
                    "{field} is {value}, but must lie between {} and {}",
                    condition.min, condition.max
                );
                return Err(JobError::range(&field, message));
            }
        }
        Ok(model)
    }

    fn check_format(&self, model: &ModelCard, shape: &[usize]) -> Result<Format, JobError> {
        let format = self.format.unwrap_or_default();
        let sample = &model.bundle.manifest.sample;
        crate::image::check(format, sample.kind, shape)
            .map(|()| format)
            .map_err(|error| JobError::range("format", error))
    }

    fn check_rescale(&self) -> Result<f32, JobError> {
        match self.guidance_rescale.unwrap_or(0.0) {
            share if (0.0..=1.0).contains(&share) => Ok(share as f32),
            _ => Err(JobError::range("guidance_rescale", "guidance_rescale must lie between 0 and 1")),
        }
    }

    fn generator(&self) -> Result<Generator, JobError> {
        match &self.noise {
            None => Ok(Generator::default()),
            Some(name) => Generator::from_name(name).ok_or_else(|| {
                let message =
                    format!("noise is {name:?}, but must be one of: {}", Generator::NAMES.join(", "));
                JobError::range("noise", message)
            }),
        }
    }
}

fn default_steps(model: &ModelCard) -> usize {
    // The reference pipelines' own.
    let family = model.latent.as_ref().map(|(family, _)| *family);
    let default = match family {
        _ if is_distilled(model) => 4,
        Some(Family::StableDiffusion3 | Family::Flux) => 28,
        _ => 50,
    };
    model.bundle.manifest.default.steps.unwrap_or(default)
}

/// Which part of the way is left from a picture.
fn part(model: &ModelCard, beginning: &Beginning, steps: usize) -> Result<Part, JobError> {
    let strength = beginning.strength;
    if is_distilled(model) {
        return Ok(Part::Over(strength));
    }
    let share = steps as f64 * strength;
    let left = match model.latent.as_ref().map(|(family, _)| *family) {
        // What the reference cuts to a whole number differs.
        Some(Family::StableDiffusion3 | Family::Flux) => steps - (steps as f64 - share) as usize,
        _ => share as usize,
    };
    if left == 0 {
        let message = format!("strength {strength} leaves none of {steps} steps; take more of either");
        return Err(JobError::range("strength", message));
    }
    Ok(Part::Last(left))
}

/// What a schedule that follows the picture's size must know of it.
fn patches(model: &ModelCard, sizes: &Sizes) -> Option<Patches> {
    let (family, _) = model.latent.as_ref()?;
    Some(Patches { count: sizes.latent[1] * sizes.latent[2] / 4, even: *family == Family::Flux })
}

fn in_range(
    field: &str,
    given: Option<u64>,
    most: u64,
    default: impl FnOnce() -> usize,
) -> Result<usize, JobError> {
    match given {
        None => Ok(default()),
        Some(n) if (1..=most).contains(&n) => Ok(n as usize),
        Some(n) => {
            let message = format!("{field} is {n}, but must lie between 1 and {most}");
            Err(JobError::range(field, message))
        }
    }
}
