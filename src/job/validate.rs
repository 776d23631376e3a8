//! Validation: a request, the models and the limits become a job or an error.

use std::sync::Arc;
use std::time::Duration;

use super::steps::{build_sampler, default_steps, find_sampler};
use super::{
    ErrorCode, InitImage, Job, JobError, ModelCard, Request, is_id, seed, shortened_id, working_memory,
};
use crate::image::{DEFAULT_QUALITY, Encoding};
use crate::units::{binary_size, counted};
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::Options;

/// Limits on a single job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// The maximum number of steps.
    pub steps: u64,
    /// The maximum number of images.
    pub count: u64,
    /// The maximum number of pixels of an image, sent or made.
    pub pixels: u64,
    /// The memory for open sessions with their evaluations in bytes, if it is limited.
    pub memory: Option<u64>,
}

impl Request {
    /// Validates every field and fills in the defaults. `random` supplies an id and a seed if they are missing.
    pub fn check(
        &self,
        models: &[Arc<ModelCard>],
        limits: JobLimits,
        random: impl Fn() -> u64,
    ) -> Result<Job, JobError> {
        if self.stream.is_some() {
            let message = "only the daemon draws from a stream, on request over MQTT; remove stream";
            return Err(JobError::out_of_range("stream", message));
        }
        let id = match &self.id {
            Some(id) if is_id(id) => id.clone(),
            Some(id) => return Err(id_error(id)),
            None => format!("{:016x}", random()),
        };
        let model = self.find_model(models)?;
        check_memory(model, limits)?;
        check_decoder(model)?;
        let manifest = &model.bundle.manifest;
        let sizes = self.check_sizes(model, limits)?;
        if let Some(limit) = limits.memory {
            working_memory::check(model, &sizes, self.size_multiple(model), limit)?;
        }
        let init_image = self.check_init_image(model, &sizes, limits)?;
        let text = self.check_text(model, &sizes)?;
        let image = init_image.as_ref().map(|(image, _)| image);
        let digests = image.map(InitImage::digests).unwrap_or_default();
        let steps =
            in_range("steps", self.steps, limits.steps, || default_steps(model, image, limits.steps))?;
        let requested_sampler = self.sampler.clone().or_else(|| manifest.default.sampler.clone());
        let spec = find_sampler(model, requested_sampler.as_deref())?;
        // A sampler with its own inpainting starts from noise; all others start from the init image.
        let (init_image, known) = match init_image {
            Some((_, decoded)) if spec.inpaints() => {
                let message = format!("{} needs a mask; white pixels are repainted", spec.name);
                let known = decoded.known_region();
                (None, Some(known.ok_or_else(|| JobError::out_of_range("mask", message))?))
            }
            Some((init_image, _)) => (Some(Arc::new(init_image)), None),
            None if spec.inpaints() => {
                let message =
                    format!("{} needs a picture, and a mask whose white pixels are repainted", spec.name);
                return Err(JobError::out_of_range("image", message));
            }
            None => (None, None),
        };
        let default_eta = model.bundle.defaults.eta.as_ref().filter(|_| self.sampler.is_none());
        let eta = self.eta.or(default_eta.map(|eta| eta.value));
        let options = Options { eta, known, ..Options::new(steps) };
        let (sampler, options) = build_sampler(model, &spec, options, &sizes, init_image.as_deref())?;
        let class = self.check_class(model)?;
        let guidance = match &text {
            Some(text) => text.guidance,
            None => self.check_guidance(model, class)?,
        };
        let guidance_rescale = self.check_guidance_rescale()?;
        let preview_every = self.check_preview_every()?;
        let controls = self.check_controls(model, &sizes, limits)?;
        let mut ignored = self.ignored_fields(model, &spec, &sizes, text.as_ref(), guidance);
        ignored.extend(self.fields_without_evaluation(sampler.evaluations(), &controls));
        let encoding = self.check_encoding(model, &sizes.image)?;
        let count = in_range("count", self.count, limits.count, || 1)?;
        Ok(Job {
            id,
            requested_sampler,
            sampler_name: spec.name,
            sampler,
            options,
            seed: self.check_seed(count)?.unwrap_or_else(|| seed::seed_from_random_bits(random())),
            noise: self.check_noise()?,
            count,
            class,
            guidance,
            guidance_rescale,
            ignored,
            text: text.map(Arc::new),
            init_image,
            sizes,
            encoding,
            preview_every,
            deadline: self.deadline_ms.map(Duration::from_millis),
            arrival: None,
            priority: self.priority.unwrap_or(0),
            exact: self.exact.unwrap_or(false),
            loras: self.check_loras(model)?,
            guess_mode: self.guess_mode.unwrap_or(false) && !controls.is_empty(),
            controls,
            digests,
            conditions: self.check_conditions(model)?,
            model: Arc::clone(model),
        })
    }

    pub(super) fn find_model<'a>(
        &self,
        models: &'a [Arc<ModelCard>],
    ) -> Result<&'a Arc<ModelCard>, JobError> {
        let found = match &self.model {
            None => models.first(),
            Some(name) => models.iter().find(|card| card.name() == name),
        };
        found.ok_or_else(|| {
            let known: Vec<_> = models.iter().map(|model| model.name()).collect();
            let requested = self.model.as_deref().unwrap_or("");
            let message = format!("there is no model {requested:?}; there are: {}", known.join(", "));
            JobError::of_field(ErrorCode::UnknownModel, "model", message)
        })
    }

    fn check_class(&self, model: &ModelCard) -> Result<Option<i64>, JobError> {
        let name = model.name();
        let classes = model.bundle.classes();
        let last = classes.saturating_sub(1);
        match (self.class, &model.signature.class) {
            (Some(_), None) => {
                Err(JobError::out_of_range("class", format!("{name} has no classes; remove class")))
            }
            (Some(class), Some(_)) if class < 0 || class as u64 >= classes as u64 => {
                let message = format!("class is {class}, but {name} has classes 0 to {last}");
                Err(JobError::out_of_range("class", message))
            }
            (None, Some(_)) if model.bundle.manifest.classes.null.is_none() => {
                let message = format!("{name} needs a class; choose one from 0 to {last}");
                Err(JobError::out_of_range("class", message))
            }
            (class, _) => Ok(class),
        }
    }

    fn check_guidance(&self, model: &ModelCard, class: Option<i64>) -> Result<f64, JobError> {
        let can_guide = class.is_some() && model.bundle.manifest.classes.null.is_some();
        match self.guidance {
            None if can_guide => Ok(model.bundle.defaults.guidance.value),
            None | Some(1.0) => Ok(1.0),
            Some(scale) if !(0.0..=100.0).contains(&scale) => {
                let message = format!("guidance is {scale}, but must lie between 0 and 100");
                Err(JobError::out_of_range("guidance", message))
            }
            Some(_) if !can_guide => Err(JobError::out_of_range("guidance", guidance_fault(model))),
            Some(scale) => Ok(scale),
        }
    }

    /// Returns the conditions' values in the manifest's order.
    fn check_conditions(&self, model: &ModelCard) -> Result<Vec<f32>, JobError> {
        let known = &model.bundle.manifest.conditions;
        for (name, value) in self.conditions.iter().flatten() {
            let field = format!("conditions.{name}");
            let Some(condition) = known.get(name) else {
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                let advice = match names.is_empty() {
                    true => "it has none; remove conditions".to_owned(),
                    false => format!("its conditions are: {}", names.join(", ")),
                };
                let message = format!("{} has no condition {name:?}; {advice}", model.name());
                return Err(JobError::out_of_range(&field, message));
            };
            let (min, max) = (condition.min, condition.max);
            if !(*value as f32).is_finite() {
                let message =
                    format!("{field} is {value}, but the network takes 32-bit numbers; use a smaller one");
                return Err(JobError::out_of_range(&field, message));
            }
            if !(min..=max).contains(value) {
                let message = format!("{field} is {value}, but must lie between {min} and {max}");
                return Err(JobError::out_of_range(&field, message));
            }
        }
        let value = |name: &String, default: f64| {
            let value = self.conditions.as_ref().and_then(|values| values.get(name));
            *value.unwrap_or(&default) as f32
        };
        Ok(known.iter().map(|(name, condition)| value(name, condition.default)).collect())
    }

    fn check_encoding(&self, model: &ModelCard, shape: &[usize]) -> Result<Encoding, JobError> {
        let format = self.format.unwrap_or_default();
        crate::image::check_format(format, model.bundle.manifest.sample.kind, shape)
            .map_err(|error| JobError::out_of_range("format", error))?;
        let quality = in_range("quality", self.quality, 100, || usize::from(DEFAULT_QUALITY))?;
        Ok(Encoding { format, quality: quality as u8 })
    }

    fn check_preview_every(&self) -> Result<Option<usize>, JobError> {
        match self.preview_every {
            Some(0) => Err(JobError::out_of_range("preview_every", "preview_every must be at least 1")),
            every => Ok(every.map(|n| usize::try_from(n).unwrap_or(usize::MAX))),
        }
    }

    fn check_guidance_rescale(&self) -> Result<f32, JobError> {
        match self.guidance_rescale.unwrap_or(0.0) {
            share if (0.0..=1.0).contains(&share) => Ok(share as f32),
            share => {
                let message = format!("guidance_rescale is {share}, but must lie between 0 and 1");
                Err(JobError::out_of_range("guidance_rescale", message))
            }
        }
    }

    /// Returns the seed of the first image, if one is given. Each further image has the next one.
    fn check_seed(&self, count: usize) -> Result<Option<u64>, JobError> {
        let largest = seed::largest(count);
        match self.seed {
            Some(seed) if seed > largest => {
                let message = format!(
                    "seed is {seed}, but image i has seed + i, and the largest seed is {}; use {largest} or less for {}",
                    u64::MAX,
                    counted(count as u64, "image")
                );
                Err(JobError::out_of_range("seed", message))
            }
            seed => Ok(seed),
        }
    }

    fn check_noise(&self) -> Result<Generator, JobError> {
        match &self.noise {
            None => Ok(Generator::default()),
            Some(name) => Generator::from_name(name).ok_or_else(|| {
                let message =
                    format!("noise is {name:?}, but must be one of: {}", Generator::NAMES.join(", "));
                JobError::out_of_range("noise", message)
            }),
        }
    }
}

/// Why a job without text cannot be guided.
fn guidance_fault(model: &ModelCard) -> String {
    let name = model.name();
    if model.signature.class.is_none() {
        format!("guidance needs a class, and {name} has no classes; remove guidance")
    } else if model.bundle.manifest.classes.null.is_none() {
        format!(
            "guidance needs a null label (classes.null in denoised.toml), which {name} lacks; remove guidance"
        )
    } else {
        let last = model.bundle.classes().saturating_sub(1);
        format!("guidance needs a class; choose one from 0 to {last}, or remove guidance")
    }
}

/// The error for an id that is not valid.
pub(super) fn id_error(id: &str) -> JobError {
    let shown = shortened_id(id);
    let message =
        format!("id is {shown:?}, but must be 1 to 64 letters, digits, dots, underscores or hyphens");
    JobError::out_of_range("id", message)
}

fn check_decoder(model: &ModelCard) -> Result<(), JobError> {
    if model.latent.as_ref().is_none_or(|(_, components)| components.decoder.is_some()) {
        return Ok(());
    }
    let message = format!(
        "{} has no vae_decoder/model.onnx, without which latents do not become pictures; choose another model",
        model.name()
    );
    Err(JobError::of_field(ErrorCode::UnknownModel, "model", message))
}

fn check_memory(model: &ModelCard, limits: JobLimits) -> Result<(), JobError> {
    match limits.memory {
        Some(memory) if model.largest_graph > memory => {
            let message = format!(
                "{} has a graph of {}, more than the {} that [engine] memory allows; raise it, or use another model",
                model.name(),
                binary_size(model.largest_graph),
                binary_size(memory)
            );
            Err(JobError::out_of_range("model", message))
        }
        _ => Ok(()),
    }
}

fn in_range(
    field: &str,
    given: Option<u64>,
    max: u64,
    default: impl FnOnce() -> usize,
) -> Result<usize, JobError> {
    match given {
        None => Ok(default()),
        Some(n) if (1..=max).contains(&n) => Ok(n as usize),
        Some(n) => {
            let key = if n > max { limit_key(field, max) } else { "" };
            Err(JobError::out_of_range(
                field,
                format!("{field} is {n}, but must lie between 1 and {max}{key}"),
            ))
        }
    }
}

/// The largest values of `limits.steps` and `limits.count`.
const MAX_STEPS: u64 = 100_000;
const MAX_COUNT: u64 = 10_000;

/// The key that limits a field to `max`, in parentheses; nothing if no larger value can be configured.
pub(super) fn limit_key(field: &str, max: u64) -> &'static str {
    match field {
        "steps" if max < MAX_STEPS => " (limits.steps)",
        "count" if max < MAX_COUNT => " (limits.count)",
        "width" | "height" => " (limits.pixels)",
        _ => "",
    }
}
