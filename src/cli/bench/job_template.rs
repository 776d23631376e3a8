//! Requests that are measured: the model's usual job, and jobs for single evaluations.

use std::sync::Arc;

use anyhow::anyhow;

use super::ladder::ImageSize;
use crate::image;
use crate::job::{Attachment, Job, JobError, JobLimits, ModelCard, Request};
use crate::model::Model;

/// The prompt for a model that takes text. Its length does not matter: prompts are padded.
const PROMPT: &str = "a red fox in the snow";
/// The seed of every job, so that two runs of the command do the same.
const SEED: u64 = 1;
/// A job's steps beyond those that are measured, so that it does not end before.
const MORE_STEPS: u64 = 3;

/// What all jobs of a model need.
pub(super) struct JobTemplate {
    request: Request,
    /// The size of the init image and the mask, for an inpainting model whose job has no other size.
    init_size: Option<ImageSize>,
    limits: JobLimits,
}

impl JobTemplate {
    /// `memory` is the budget of the sessions in bytes.
    pub(super) fn new(model: &Model, memory: Option<u64>) -> Self {
        let takes_text =
            model.latent.as_ref().is_some_and(|latent| !latent.components.text_encoders.is_empty());
        let signature = model.predictor.signature();
        let request = Request {
            seed: Some(SEED),
            class: signature.class.as_ref().map(|_| 0),
            prompt: takes_text.then(|| PROMPT.to_owned()),
            ..Request::default()
        };
        let limits = JobLimits { steps: 100_000, count: 10_000, pixels: 1 << 28, memory };
        Self { request, init_size: init_size(model), limits }
    }

    /// Returns the model's usual job: one picture.
    pub(super) fn default_job(&self, card: &Arc<ModelCard>, steps: Option<u64>) -> anyhow::Result<Job> {
        let request = Request { steps, ..self.request.clone() };
        self.check(card, request, None)?.map_err(|error| match error.field.as_deref() {
            Some("steps") if steps.is_some() => anyhow!("--steps: {error}"),
            _ => anyhow!(error).context("cannot run the model's usual job"),
        })
    }

    /// Returns a job for each size and each number of samples in an evaluation, without guidance: each image is one
    /// sample. Without sizes, the model's.
    pub(super) fn evaluation_jobs(
        &self,
        card: &Arc<ModelCard>,
        sizes: &[ImageSize],
        batches: &[usize],
        repeat: usize,
    ) -> anyhow::Result<Vec<Job>> {
        let sizes: Vec<_> = if sizes.is_empty() { vec![None] } else { sizes.iter().map(Some).collect() };
        let shapes = sizes.into_iter().flat_map(|size| batches.iter().map(move |batch| (size, *batch)));
        let job = |(size, batch): (Option<&ImageSize>, usize)| {
            let request = Request {
                id: Some("evaluations".to_owned()),
                steps: Some(repeat as u64 + MORE_STEPS),
                guidance: Some(1.0),
                count: Some(batch as u64),
                width: size.map(|size| size.width),
                height: size.map(|size| size.height),
                ..self.request.clone()
            };
            self.check(card, request, size)?.map_err(|error| match (size, error.field.as_deref()) {
                (Some(_), Some(field @ ("width" | "height"))) => {
                    let advice = format!("remove {field}");
                    anyhow!("--size: {}", error.message.replace(&advice, "remove --size"))
                }
                _ => anyhow!(error).context("cannot evaluate the model"),
            })
        };
        shapes.map(job).collect()
    }

    /// Checks a request, with an init image of its size if the model needs one.
    fn check(
        &self,
        card: &Arc<ModelCard>,
        request: Request,
        size: Option<&ImageSize>,
    ) -> anyhow::Result<Result<Job, JobError>> {
        let init_size = self.init_size.map(|usual| size.copied().unwrap_or(usual));
        let picture = init_size.map(white_picture).transpose()?;
        let request = Request { image: picture.clone(), mask: picture, ..request };
        Ok(request.check(std::slice::from_ref(card), self.limits, || SEED))
    }
}

/// The usual size of a model's pictures, if the network takes an init image.
fn init_size(model: &Model) -> Option<ImageSize> {
    let signature = model.predictor.signature();
    let factor = model.latent.as_ref()?.components.vae.factor;
    match signature.sample_shape.as_slice() {
        [_, height, width] if signature.is_inpainting() => {
            let pixels = |length: &usize| (length * factor) as u64;
            Some(ImageSize { width: pixels(width), height: pixels(height) })
        }
        _ => None,
    }
}

/// The init image and the mask for an inpainting model.
fn white_picture(size: ImageSize) -> anyhow::Result<Attachment> {
    let (width, height) = (u32::try_from(size.width)?, u32::try_from(size.height)?);
    let white = ::image::GrayImage::from_pixel(width, height, ::image::Luma([255]));
    Ok(Attachment::from_bytes(&image::png(&white.into())?))
}
