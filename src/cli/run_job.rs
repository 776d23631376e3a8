//! Runs jobs without a daemon, and encodes their images.

use super::open_model::LoadDisplay;
use super::progress::ProgressDisplay;
use crate::config::LimitsConfig;
use crate::image::{self, EmbeddedText, Encoding, Format, ImageError};
use crate::inference::EngineOptions;
use crate::job::receipt::{ImageReceipt, Receipt};
use crate::job::{Job, JobError, JobLimits};
use crate::model::Model;
use crate::pipeline::{JobEvent, Pipeline, Sample};

/// Wider limits than the daemon's, because no other requester waits. A number of pixels that the configuration sets counts.
pub(super) const LIMITS: JobLimits =
    JobLimits { steps: 100_000, count: 10_000, pixels: 1 << 28, memory: None };

/// The limits of a job with this configuration.
pub(super) fn limits(engine: &EngineOptions, configured: &LimitsConfig) -> JobLimits {
    let is_default = configured.pixels == LimitsConfig::default().pixels;
    let pixels = if is_default { LIMITS.pixels } else { configured.pixels.0 };
    JobLimits { memory: engine.memory, pixels, ..LIMITS }
}

/// An image of a job.
pub(super) struct DrawnImage {
    /// How it was made.
    pub(super) receipt: Box<Receipt>,
    /// The sample, or the picture decoded from it.
    pub(super) picture: Vec<f32>,
    /// The sample before the VAE; the same as `picture` without one.
    pub(super) latents: Vec<f32>,
}

/// Encodes the prompts, and closes the text encoders, which no other job needs, before the first step. The network is opened
/// meanwhile if memory has room for it beside them: that maps its weights and reads none. The pipeline finds the embeddings
/// in the cache and the network in memory, and reports errors.
pub(super) fn encode_prompts(model: &mut Model, job: &Job) {
    let Model { predictor, latent, .. } = model;
    let (Some(latent), Some(text)) = (latent, &job.text) else { return };
    let signature = predictor.signature().clone();
    std::thread::scope(|scope| {
        // Other providers may build an engine, for which they get all memory.
        if latent.overlaps && !predictor.backend().prepares_shapes() {
            let open = || {
                if let Err(error) = predictor.open() {
                    log::debug!("cannot open the network in advance: {error}");
                }
            };
            // Without the thread, the first step opens the network.
            if let Err(error) =
                std::thread::Builder::new().name("network".to_owned()).spawn_scoped(scope, open)
            {
                log::debug!("cannot start a thread that opens the network: {error}");
            }
        }
        // The job reports what is wrong with a LoRA.
        let Ok(loras) = latent.load_loras(&job.loras) else { return };
        if latent.conditions(text, &signature, &job.sizes.latent, Some(&loras)).is_ok() {
            latent.close_text_encoders();
        }
    });
}

/// Runs a job, shows its progress, and returns its images in order. The first step of the first job removes `loading`.
pub(super) fn run_job(
    pipeline: &mut Pipeline,
    mut loading: Option<LoadDisplay>,
    job: &Job,
) -> Result<Vec<DrawnImage>, JobError> {
    let mut images = Vec::new();
    let mut failure = None;
    let mut progress = ProgressDisplay::new(&job.model.bundle.name);
    pipeline.accept(job.clone());
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Progress { step, of, eta_ms } => {
                loading = None;
                progress.show(step, of, eta_ms);
            }
            JobEvent::Image { receipt, image: Sample { picture, latents } } => {
                let latents = latents.unwrap_or_else(|| picture.data.clone());
                images.push(DrawnImage { receipt, picture: picture.data, latents });
            }
            JobEvent::Failed(error) => failure = Some(error),
            JobEvent::Preview { .. } | JobEvent::Finished { .. } => {}
        });
    }
    drop(loading);
    progress.end();
    images.sort_by_key(|image| image.receipt.index);
    failure.map_or(Ok(images), Err)
}

/// The receipt of one picture that shows these images of a job.
pub(super) fn picture_receipt(images: &[DrawnImage]) -> Option<ImageReceipt> {
    let receipt = images.first()?.receipt.image.clone();
    let count = (images.len() > 1).then_some(images.len());
    Some(ImageReceipt { count, ..receipt })
}

/// Encodes the images of a job as one picture: a grid of several. It is no array.
pub(super) fn encode_picture(
    images: &[DrawnImage],
    job: &Job,
    format: Format,
    text: Option<&EmbeddedText>,
) -> Result<Vec<u8>, ImageError> {
    let description = &job.model.bundle.manifest.sample;
    let pictures = images.iter().map(|image| image::to_image(&image.picture, &job.sizes.image, description));
    let picture = match pictures.collect::<Result<Vec<_>, _>>()?.as_slice() {
        [single] => single.clone(),
        several => image::grid(several, 1)?,
    };
    image::encode_image(Encoding { format, ..job.encoding }, &picture, text)
}
