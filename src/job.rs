//! A request becomes a job: parsed, checked against the models and limits, every default filled.

mod attachment;
mod init_image;
mod prompt;
pub mod receipt;
mod steps;
mod validate;

pub use attachment::{Attached, OnTopic};
pub use init_image::{DecodedInitImage, InitImage, Sizes};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, LatentComponents, PipelineFacts, PipelineKind, Signature};
use crate::image::Format;
use crate::inference::Backend;
use crate::model::{Model, TextConditioning};
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{Options, Sampler};

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
    /// How much of a guided prediction is brought back to the spread of one without guidance
    /// (Lin et al. 2024, section 3.4); 0 is none.
    pub guidance_rescale: Option<f64>,
    /// What is to be drawn, in words.
    pub prompt: Option<String>,
    /// What is not.
    pub negative_prompt: Option<String>,
    /// The same for the second text encoder.
    pub prompt_2: Option<String>,
    /// What is not, for the second text encoder.
    pub negative_prompt_2: Option<String>,
    /// How many of CLIP's last layers are left out.
    pub clip_skip: Option<u64>,
    /// How many tokens T5 takes.
    pub max_sequence_length: Option<u64>,
    /// A picture's width in pixels.
    pub width: Option<u64>,
    /// A picture's height in pixels.
    pub height: Option<u64>,
    /// SDXL: the height and width that the picture is to look as if it had been.
    pub original_size: Option<[u64; 2]>,
    /// SDXL: the top and left at which it is to look cropped.
    pub crop: Option<[u64; 2]>,
    /// SDXL: the height and width that it is to look made for.
    pub target_size: Option<[u64; 2]>,
    /// The picture from which to begin.
    pub image: Option<Attached>,
    /// Which part of it is drawn anew: the white one.
    pub mask: Option<Attached>,
    /// How much of the way is gone from the picture: 1 is all of it.
    pub strength: Option<f64>,
    /// Values of the model's further conditions.
    pub conditions: Option<BTreeMap<String, f64>>,
    /// The generator behind the seed.
    pub noise: Option<String>,
    /// How an image is encoded.
    pub format: Option<Format>,
    /// Publish x̂_0 after every so many evaluations.
    pub preview_every: Option<u64>,
    /// Take only as many of the steps as fit into so many milliseconds, and give up after them.
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
    /// Another request with this id was taken before.
    Conflict,
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
    /// The broker does not let the daemon publish on the requester's own topic.
    Denied,
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
        Self { code, field: None, message: message.to_string() }
    }

    fn field(code: ErrorCode, field: &str, message: impl ToString) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(code, message) }
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
    /// The most pixels of a picture.
    pub pixels: u64,
    /// The most bytes that open graphs may take, where there is a bound.
    pub memory: Option<u64>,
}

/// What is known of a loaded model where jobs are checked.
#[derive(Debug, Clone)]
pub struct ModelCard {
    /// The directory's contents.
    pub bundle: Arc<Bundle>,
    /// How its network is fed.
    pub signature: Signature,
    /// What serves it.
    pub origin: Backend,
    /// Values that the network gives for each of a sample's.
    pub outputs_per_value: usize,
    /// Which pipeline it is and what stands around its network, where it draws latents by a prompt.
    pub latent: Option<(PipelineKind, LatentComponents)>,
    /// The largest of its graphs with its weights, in bytes.
    pub largest_part: u64,
    /// Whether pictures can be turned into latents.
    pub encodes: bool,
}

impl ModelCard {
    /// Of a loaded model.
    pub fn of(model: &Model) -> Self {
        Self {
            bundle: Arc::new(model.bundle.clone()),
            signature: model.predictor.signature().clone(),
            origin: model.predictor.backend().clone(),
            outputs_per_value: model.outputs_per_value,
            latent: model.latent.as_ref().map(|latent| (latent.kind, latent.components.clone())),
            largest_part: model.session_sizes.iter().map(|part| part.bytes).max().unwrap_or(0),
            encodes: model.latent.as_ref().is_some_and(|latent| latent.has_encoder()),
        }
    }

    /// The facts of the model's pipeline. A model that is no latent diffusion pipeline has the defaults of Stable
    /// Diffusion.
    fn facts(&self) -> &'static PipelineFacts {
        self.latent.as_ref().map_or(PipelineKind::StableDiffusion, |(kind, _)| *kind).facts()
    }
}

/// A request that can be done, with every default filled in.
#[derive(Clone)]
pub struct Job {
    /// Its name in every answer.
    pub id: String,
    /// The model.
    pub model: ModelCard,
    /// The sampler's name as the request or the bundle has it.
    sampler_asked: Option<String>,
    /// The sampler's name.
    pub sampler_name: String,
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
    /// How much of the prediction's spread is brought back.
    pub guidance_rescale: f32,
    /// What is to be drawn in words, where the model takes them.
    pub wish: Option<Arc<TextConditioning>>,
    /// The sizes of samples and pictures.
    pub sizes: Sizes,
    /// The picture from which it begins.
    pub beginning: Option<Arc<InitImage>>,
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
            json.end()
                .map(|()| request)
                .map_err(|error| JobError::new(ErrorCode::BadRequest, format!("after the request: {error}")))
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
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl Job {
    /// The seed of the `index`-th image.
    pub fn image_seed(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }
}
