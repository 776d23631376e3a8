//! Jobs: a [`Request`] is parsed, validated against the models and the limits, and becomes a [`Job`].

mod attachment;
mod attention_memory;
mod cancellation;
mod control;
mod error;
mod id;
mod init_image;
mod lora;
mod model_card;
mod model_request;
mod prompt;
pub mod receipt;
mod request;
mod seed;
mod steps;
mod stream;
mod taken_sizes;
mod validate;
mod without_effect;
mod working_memory;
mod written_receipt;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::image::Encoding;
use crate::model::{LoraChoice, TextConditioning};
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{Options, Sampler};

pub(crate) use attachment::is_address;
pub use attachment::{Attachment, RetainedTopic};
pub use cancellation::{invalid_cancellation, parse_cancellation};
pub use control::{ControlChoice, ControlRequest};
pub use error::{ErrorCode, JobError};
pub use id::{id_near_start, is_id, shortened_id, to_id};
pub(crate) use init_image::PictureDigests;
pub use init_image::{DecodedInitImage, InitImage, Sizes};
pub use lora::LoraRequest;
pub use model_card::ModelCard;
pub use model_request::{
    ModelLoadRequest, ModelTarget, ModelUnloadRequest, parse_model_load, parse_model_unload,
};
pub(crate) use request::read_request;
pub use request::{Request, parse, parse_within};
pub(crate) use seed::seed_from_random_bits;
pub use stream::{StreamRequest, StreamSettings};
pub use validate::JobLimits;
use validate::id_error;
pub use written_receipt::{SourceFiles, SourceRole, WrittenReceipt};

/// A valid request with every default filled in.
#[derive(Clone)]
pub struct Job {
    /// The id in every response.
    pub id: String,
    /// The model.
    pub model: Arc<ModelCard>,
    /// The sampler's name in the request or the bundle; `None` for the scheduler class's own.
    requested_sampler: Option<String>,
    /// The sampler's name.
    pub sampler_name: String,
    /// The sampler, built for this number of steps.
    pub sampler: Arc<dyn Sampler>,
    /// The options that the sampler was built with.
    pub options: Options,
    /// The seed of the first image.
    pub seed: u64,
    /// The noise generator.
    pub noise: Generator,
    /// The number of images.
    pub count: usize,
    /// The class label.
    pub class: Option<i64>,
    /// The guidance scale; 1 without guidance.
    pub guidance: f64,
    /// The guidance rescale φ.
    pub guidance_rescale: f32,
    /// A sentence for each field of the request that has no effect.
    pub ignored: Vec<String>,
    /// The prompts, for a model that takes text.
    pub text: Option<Arc<TextConditioning>>,
    /// The shapes of samples and images.
    pub sizes: Sizes,
    /// The image that img2img or inpainting starts from.
    pub init_image: Option<Arc<InitImage>>,
    /// The SHA-256 of the files of the init image and of the mask.
    pub(crate) digests: PictureDigests,
    /// The values of further conditions, in the manifest's order.
    pub conditions: Vec<f32>,
    /// The format of the images, with its quality.
    pub encoding: Encoding,
    /// A preview is published after every n evaluations.
    pub preview_every: Option<usize>,
    /// The time limit, from the request's arrival.
    pub deadline: Option<Duration>,
    /// When the request arrived. `None` for a job whose time begins when a pipeline accepts it.
    pub(crate) arrival: Option<Instant>,
    /// Jobs with a higher priority enter a full batch first.
    pub priority: i32,
    /// Whether each image is evaluated in a batch of its own.
    pub exact: bool,
    /// The LoRAs.
    pub loras: Vec<LoraChoice>,
    /// The pictures that steer the job through ControlNets.
    pub controls: Arc<[ControlChoice]>,
    /// Whether the controls are in guess mode.
    pub guess_mode: bool,
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

impl Job {
    /// The same job, whose time limit begins at this time instead of when a pipeline accepts it.
    pub fn with_arrival(self, arrival: Instant) -> Self {
        Self { arrival: Some(arrival), ..self }
    }

    /// The side of the patches of which samples have one row each; `None` for latents that are not packed.
    pub(crate) fn packing(&self) -> Option<usize> {
        self.model.latent.as_ref().and_then(|(kind, _)| kind.facts().packing)
    }

    /// Returns the seed of the image with this index.
    pub fn image_seed(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }
}
