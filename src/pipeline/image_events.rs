//! Turns the events of images in the batch into events of their jobs.

use super::batcher::{ImageEvent, ImageId};
use super::codec_worker::{CodecTask, CodecWorker};
use super::event::{JobEvent, Sample};
use super::queue::{OnEvent, Queue};
use super::running_job::RunningJob;
use crate::bundle::Manifest;
use crate::inference::Backend;
use crate::job::{ErrorCode, JobError};
use crate::model::LatentPipeline;
use crate::tensor::Tensor;
use diffusion_samplers::simd::all_finite;

/// Handles the image events of one step.
pub(super) struct ImageEvents<'a> {
    pub(super) jobs: &'a mut Queue,
    pub(super) codec: &'a mut CodecWorker,
    pub(super) latent: Option<&'a LatentPipeline>,
    pub(super) manifest: &'a Manifest,
    pub(super) on_event: &'a mut OnEvent<'a>,
    /// Numbers of the jobs that failed; their other images are still in the batch.
    pub(super) failed: Vec<u64>,
}

impl ImageEvents<'_> {
    /// `backend` is the one that evaluated the image.
    pub(super) fn handle(&mut self, backend: &Backend, image: ImageId, event: ImageEvent) {
        // If an image fails, its job is removed from the queue while its other images are in the batch.
        let Some(running) = self.jobs.get_mut(image.job) else { return };
        match event {
            ImageEvent::Evaluated => {
                if let Some(progress) = running.record_evaluation() {
                    (self.on_event)(&running.job, progress);
                }
            }
            ImageEvent::Preview(x0) => {
                if let Some(picture) = preview(running, x0, self.latent, self.manifest) {
                    let image_event =
                        JobEvent::Preview { index: image.index, image: Sample { picture, latents: None } };
                    (self.on_event)(&running.job, image_event);
                }
            }
            ImageEvent::Finished(sample) if !all_finite(&sample) => {
                let error = overflow_error(running, image.index);
                self.fail(image, error);
            }
            ImageEvent::Finished(sample) => {
                let (Some(_), Some(prepared)) = (self.latent, running.prepared()) else {
                    let finished = self.jobs.finish_image(image, sample, None, backend, self.on_event);
                    return finished.unwrap_or_else(|error| self.fail(image, error));
                };
                let latents = prepared.unpack(sample, &running.job.sizes);
                let shape = running.job.sizes.latent.clone();
                self.codec.submit(CodecTask::Decode { image, latents, shape });
            }
            ImageEvent::NonFinite { evaluation, t } => {
                let error = non_finite_error(running, image.index, evaluation, t);
                self.fail(image, error);
            }
        }
    }
}

impl ImageEvents<'_> {
    /// Fails the job of an image.
    fn fail(&mut self, image: ImageId, error: JobError) {
        self.jobs.fail(image.job, error, self.on_event);
        self.failed.push(image.job);
    }
}

/// Returns x̂_0 as a picture. A latent model needs a linear projection to RGB for it.
fn preview(
    running: &RunningJob,
    x0: Vec<f32>,
    latent: Option<&LatentPipeline>,
    manifest: &Manifest,
) -> Option<Tensor> {
    let sizes = &running.job.sizes;
    match (latent, running.prepared()) {
        (Some(latent), Some(prepared)) => {
            latent.preview(&prepared.unpack(x0, sizes), &sizes.latent, manifest)
        }
        _ => Some(Tensor::new(sizes.image.clone(), x0)),
    }
}

fn overflow_error(running: &RunningJob, index: usize) -> JobError {
    let message = format!(
        "image {index} contains NaN or infinity, although the network's outputs are finite: they are too large for \
         {}; check prediction_type in the scheduler's configuration, or use another sampler",
        running.job.sampler_name
    );
    JobError::new(ErrorCode::NonFinite, message)
}

fn non_finite_error(running: &RunningJob, index: usize, evaluation: usize, t: f64) -> JobError {
    let message = format!(
        "the network's output contains NaN or infinity at evaluation {evaluation} of {} (time step {t}) of \
         image {index}; if the model is in float16, try float32",
        running.job.sampler.evaluations()
    );
    JobError::new(ErrorCode::NonFinite, message)
}
