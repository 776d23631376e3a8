//! A request checked against the models and limits.

use std::sync::Arc;
use std::time::Duration;

use super::steps::{Plan, default_steps, plan};
use super::{ErrorCode, Job, JobError, JobLimits, ModelCard, Request, is_id};
use crate::image::Format;
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::Options;

impl Request {
    /// Check every field against the models and limits; `fresh` gives an id or a seed where the
    /// requester named none.
    pub fn check(
        &self,
        models: &[Arc<ModelCard>],
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
            ..Options::new(in_range("steps", self.steps, limits.steps, || default_steps(model))?)
        };
        let asked = self.sampler.clone().or_else(|| manifest.default.sampler.clone());
        let Plan { name: sampler_name, sampler, options } =
            plan(model, asked.as_deref(), options, &sizes, beginning.as_ref())?;
        // What RePaint keeps, it keeps by itself.
        let beginning = beginning.filter(|_| options.known.is_none()).map(Arc::new);
        self.check_conditions(model)?;
        let class = self.check_class(model)?;
        let format = self.check_format(model, &sizes.picture)?;
        Ok(Job {
            id,
            sampler_asked: asked,
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
            model: Arc::clone(model),
        })
    }

    fn find_model<'a>(&self, models: &'a [Arc<ModelCard>]) -> Result<&'a Arc<ModelCard>, JobError> {
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

    fn check_conditions(&self, model: &ModelCard) -> Result<(), JobError> {
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
        Ok(())
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
