//! A request becomes a job: parsed, checked against the models and limits, every default filled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diffusion::noise::Generator;
use crate::diffusion::sampler::{Family, Options, Sampler, SamplerError};
use crate::image::Format;
use crate::model::{Bundle, Model, Origin, Signature};

/// What a requester may say; every field has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Names the job in every answer; `[A-Za-z0-9._-]{1,64}`.
    pub id: Option<String>,
    /// The model's name; the first one loaded if missing.
    pub model: Option<String>,
    /// The sampler's name; the bundle's default if missing.
    pub sampler: Option<String>,
    /// The number of steps.
    pub steps: Option<u64>,
    /// The first image's seed; image i uses seed + i. A random one if missing.
    pub seed: Option<u64>,
    /// How many images.
    pub count: Option<u64>,
    /// The class, for a class-conditional model.
    pub class: Option<i64>,
    /// The weight of classifier-free guidance; 1 is none.
    pub guidance: Option<f64>,
    /// η of DDIM.
    pub eta: Option<f64>,
    /// Values of the model's further conditions.
    pub conditions: Option<BTreeMap<String, f64>>,
    /// The generator behind the seed.
    pub noise: Option<String>,
    /// How an image is encoded.
    pub format: Option<Format>,
    /// Publish x̂_0 after every so many evaluations.
    pub preview_every: Option<u64>,
    /// Give up after so many milliseconds.
    pub deadline_ms: Option<u64>,
    /// Who rides first when a batch is full; higher goes first.
    pub priority: Option<i32>,
    /// Evaluate each image in batches of its own.
    pub exact: Option<bool>,
}

/// What kind of fault an error message tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is no JSON, or a field is unknown or of the wrong type.
    BadRequest,
    /// A field's value can't be served.
    OutOfRange,
    /// There is no such model.
    UnknownModel,
    /// There is no such sampler, or it can't serve the model.
    UnknownSampler,
    /// The queue is full.
    QueueFull,
    /// The daemon is not ready or is stopping.
    Unavailable,
    /// The job was cancelled.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// The network's output held NaN or infinity.
    NonFinite,
    /// The engine failed.
    Engine,
    /// The image can't be encoded.
    Encoding,
}

/// Why a job is not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct JobError {
    /// The kind.
    pub code: ErrorCode,
    /// The request's field at fault, if one is.
    pub field: Option<String>,
    /// What happened and what to do.
    pub message: String,
}

impl JobError {
    /// An error of no particular field.
    pub fn new(code: ErrorCode, message: impl ToString) -> Self {
        Self {
            code,
            field: None,
            message: message.to_string(),
        }
    }

    fn field(code: ErrorCode, field: &str, message: impl ToString) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(code, message)
        }
    }

    fn range(field: &str, message: impl ToString) -> Self {
        Self::field(ErrorCode::OutOfRange, field, message)
    }
}

/// Bounds on what one job may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// The most steps.
    pub steps: u64,
    /// The most images.
    pub count: u64,
}

/// What is known of a loaded model where jobs are checked.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// The directory's contents.
    pub bundle: Arc<Bundle>,
    /// How its network is fed.
    pub signature: Signature,
    /// What serves it.
    pub origin: Origin,
    /// Values that the network gives for each of a sample's.
    pub outputs_per_value: usize,
}

impl ModelCard {
    /// Of a loaded model.
    pub fn of(model: &Model) -> Self {
        Self {
            bundle: Arc::new(model.bundle.clone()),
            signature: model.predictor.signature().clone(),
            origin: model.predictor.origin().clone(),
            outputs_per_value: model.outputs_per_value,
        }
    }
}

/// A request that can be done, with every default filled in.
#[derive(Clone)]
pub struct Job {
    /// Its name in every answer.
    pub id: String,
    /// The model.
    pub model: ModelCard,
    /// The sampler's name.
    pub sampler_name: &'static str,
    /// The sampler with its plan.
    pub sampler: Arc<dyn Sampler>,
    /// The sampler's steps and η.
    pub options: Options,
    /// The first image's seed.
    pub seed: u64,
    /// The generator behind the seed.
    pub noise: Generator,
    /// How many images.
    pub count: usize,
    /// The class, if any.
    pub class: Option<i64>,
    /// The weight of guidance; 1 where there is none.
    pub guidance: f64,
    /// The conditions' values in the manifest's order.
    pub conditions: Vec<f32>,
    /// How an image is encoded.
    pub format: Format,
    /// Previews after every so many evaluations.
    pub preview_every: Option<usize>,
    /// How long it may take.
    pub deadline: Option<Duration>,
    /// Who rides first.
    pub priority: i32,
    /// Whether each image has batches of its own.
    pub exact: bool,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("model", &self.model.bundle.name)
            .field("sampler", &self.sampler_name)
            .field("options", &self.options)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// A request's bytes as fields, or an error that names the field at fault; the id is told where
/// it could be read.
pub fn parse(payload: &[u8]) -> Result<Request, (Option<String>, JobError)> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let request: Result<Request, _> = serde_path_to_error::deserialize(&mut json);
    request
        .map_err(|error| {
            let path = error.path().to_string();
            let message = error.inner().to_string();
            if path == "." {
                JobError::new(ErrorCode::BadRequest, format!("the request is not valid JSON: {message}"))
            } else {
                JobError::field(ErrorCode::BadRequest, &path, format!("{path}: {message}"))
            }
        })
        .and_then(|request| {
            json.end().map(|()| request).map_err(|error| {
                JobError::new(ErrorCode::BadRequest, format!("after the request: {error}"))
            })
        })
        .map_err(|error| (readable_id(payload), error))
}

fn readable_id(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct JustId {
        id: String,
    }
    let JustId { id } = serde_json::from_slice(payload).ok()?;
    is_id(&id).then_some(id)
}

/// Whether this may name a job.
pub fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

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
    ) -> Result<(&'static str, Arc<dyn Sampler>), JobError> {
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
        let family = match name {
            Some(name) => Family::by_name(name),
            None => Family::by_class(&model.bundle.scheduler.class),
        }
        .map_err(fault)?;
        let sampler =
            (family.build)(&mut model.bundle.scheduler.settings(), options).map_err(fault)?;
        if sampler.outputs_per_value() > model.outputs_per_value {
            let message = format!(
                "{} needs a network that also predicts variances (variance_type), and {} does not",
                family.name, model.bundle.name
            );
            return Err(JobError::field(ErrorCode::UnknownSampler, "sampler", message));
        }
        Ok((family.name, sampler))
    }

    fn check_class(&self, model: &ModelCard) -> Result<Option<i64>, JobError> {
        let name = &model.bundle.name;
        let classes = model.bundle.classes();
        match (self.class, &model.signature.class) {
            (Some(_), None) => Err(JobError::range("class", format!("{name} has no classes"))),
            (Some(class), Some(_)) if class < 0 || class as u64 >= classes as u64 => {
                let message = format!("class is {class}, but {name} has classes 0 to {}", classes.saturating_sub(1));
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
                let message = format!("{} has no condition {name:?}; it has: [{}]", model.bundle.name, names.join(", "));
                return Err(JobError::range(&field, message));
            };
            if !(condition.min..=condition.max).contains(value) {
                let message = format!("{field} is {value}, but must lie between {} and {}", condition.min, condition.max);
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
                let message = format!("noise is {name:?}, but must be one of: {}", Generator::NAMES.join(", "));
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

impl Job {
    /// The seed of the `index`-th image.
    pub fn image_seed(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }
}
