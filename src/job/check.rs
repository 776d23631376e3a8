//! A request checked against the models and limits.

use std::sync::Arc;
use std::time::Duration;

use super::{ErrorCode, Job, JobError, JobLimits, ModelCard, Request, is_id};
use crate::diffusion::noise::Generator;
use crate::diffusion::sampler::{self, Options, Sampler, SamplerError};
use crate::image::Format;

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
        let manifest = &model.bundle.manifest;
        let options = Options {
            steps: in_range("steps", self.steps, limits.steps, || default_steps(model))?,
            eta: self.eta,
            known: self.known.clone(),
            part: Default::default(),
        };
        let (sampler_name, sampler) = self.build_sampler(model, &options)?;
        let class = self.check_class(model)?;
        Ok(Job {
            id,
            sampler_name,
            sampler,
            options,
            seed: self.seed.unwrap_or_else(&fresh),
            noise: self.generator()?,
            count: in_range("count", self.count, limits.count, || 1)?,
            class,
            guidance: self.check_guidance(model, class)?,
            conditions: manifest
                .conditions
                .iter()
                .map(|(name, condition)| {
                    let given = self.conditions.as_ref().and_then(|given| given.get(name));
                    given.map_or(condition.default, |value| *value) as f32
                })
                .collect(),
            format: self.check_format(model)?,
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
        options: &Options,
    ) -> Result<(String, Arc<dyn Sampler>), JobError> {
        let default = model.bundle.manifest.default.sampler.as_deref();
        let name = self.sampler.as_deref().or(default);
        let fault = |error: SamplerError| {
            let (code, field) = match &error {
                SamplerError::Steps { .. } => (ErrorCode::OutOfRange, "steps"),
                SamplerError::Eta { .. } => (ErrorCode::OutOfRange, "eta"),
                _ => (ErrorCode::UnknownSampler, "sampler"),
            };
            JobError::field(code, field, error)
        };
        let choice = match name {
            Some(name) => sampler::by_name(name),
            None => sampler::by_class(&model.bundle.scheduler.class),
        }
        .map_err(fault)?;
        if options.known.is_some() && choice.family_name() != "repaint" {
            let message = format!("{} keeps no part of an image; repaint does", choice.name);
            return Err(JobError::range("image", message));
        }
        choice.check_class(&model.bundle.scheduler.class).map_err(fault)?;
        let sampler = choice.build(&mut model.bundle.scheduler.settings(), options).map_err(fault)?;
        if sampler.outputs_per_value() > model.outputs_per_value {
            let message = format!(
                "{} needs a network that also predicts variances (variance_type), and {} does not",
                choice.name, model.bundle.name
            );
            return Err(JobError::field(ErrorCode::UnknownSampler, "sampler", message));
        }
        Ok((choice.name, sampler))
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

    fn check_format(&self, model: &ModelCard) -> Result<Format, JobError> {
        let format = self.format.unwrap_or_default();
        let sample = &model.bundle.manifest.sample;
        crate::image::check(format, sample.kind, &model.signature.sample_shape)
            .map(|()| format)
            .map_err(|error| JobError::range("format", error))
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
    model.bundle.manifest.default.steps.unwrap_or(50)
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
