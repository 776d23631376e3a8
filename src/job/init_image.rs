//! The size of a job's images, and the image and mask that it starts from.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::attention_memory;
use super::taken_sizes::TakenSizes;
use super::{JobError, JobLimits, ModelCard, Request};
use crate::bundle::{PipelineTask, SampleKind};
use crate::image::{self, Content, DecodeTarget};
use crate::model::LatentError;
use crate::tensor::Tensor;
use diffusion_samplers::trajectory::KnownRegion;

/// The shapes of a job's samples and images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// The shape that the sampler works on.
    pub sample: Vec<usize>,
    /// The latent's shape before packing; equal to `sample` without a VAE.
    pub latent: Vec<usize>,
    /// The shape of the published image: channels, height, width.
    pub image: Vec<usize>,
}

/// The init image and mask, compressed.
///
/// A queued job keeps the files instead of the pixels: `limits.queue` jobs of `limits.pixels` float32 pixels would
/// not fit in memory. They are therefore decoded twice, to validate the request and to prepare the job.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    image: Vec<u8>,
    mask: Option<Vec<u8>>,
    /// img2img strength, 0 to 1: how much noise is added; 1 ignores the image.
    pub strength: f64,
    shape: Vec<usize>,
    kind: SampleKind,
    range: [f32; 2],
    max_pixels: u64,
}

/// The SHA-256 of the files of an init image and its mask, in hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PictureDigests {
    pub(super) image: Option<String>,
    pub(super) mask: Option<String>,
}

/// The decoded init image and mask.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedInitImage {
    /// The image, in the value range of the network or the VAE.
    pub image: Tensor,
    /// One value per pixel: 1 is repainted, 0 is kept.
    pub mask: Option<Vec<f32>>,
}

impl Request {
    /// Resolves the image's size from the request and the model.
    pub(super) fn check_sizes(&self, model: &ModelCard, limits: JobLimits) -> Result<Sizes, JobError> {
        let own = &model.signature.sample_shape;
        let Some((_, components)) = &model.latent else {
            for (field, given, axis) in
                [("width", self.width, own.last()), ("height", self.height, own.get(1))]
            {
                if given.is_some_and(|given| Some(&(given as usize)) != axis) {
                    let name = model.name();
                    let message = format!("{name} only makes samples of shape {own:?}; remove {field}");
                    return Err(JobError::out_of_range(field, message));
                }
            }
            return Ok(Sizes { sample: own.clone(), latent: own.clone(), image: own.clone() });
        };
        let (vae, facts) = (components.vae, model.facts());
        let taken = TakenSizes::new(model, components, self.image.is_some());
        let height = taken.check("height", self.height, 0)?;
        let width = taken.check("width", self.width, 1)?;
        if (height as u64).saturating_mul(width as u64) > limits.pixels {
            let longer = if height > width { "height" } else { "width" };
            let message = format!(
                "{width}×{height} pixels are more than {} (limits.pixels); use a smaller {longer}",
                limits.pixels
            );
            return Err(JobError::out_of_range(longer, message));
        }
        if let (Some((kind, _)), Some(memory)) = (&model.latent, attention_memory::machine_memory()) {
            attention_memory::check(*kind, (height, width), (vae.factor, taken.multiple()), memory)?;
        }
        let latent = vec![vae.channels, height / vae.factor, width / vae.factor];
        let packed = |side: usize| vec![latent[1] * latent[2] / (side * side), side * side * latent[0]];
        let sample = facts.packing.map_or_else(|| latent.clone(), packed);
        let fixed = model.signature.fixed_patches().filter(|_| facts.packing.is_some());
        if let Some(patches) = fixed.filter(|patches| *patches != sample[0]) {
            let message = format!(
                "{width}×{height} pixels are {} patches, but the network of {} only takes {patches}; use another width \
                 or height",
                sample[0],
                model.name()
            );
            return Err(JobError::out_of_range("width", message));
        }
        Ok(Sizes { sample, latent, image: vec![3, height, width] })
    }

    /// The number of pixels of which each side must be a multiple.
    pub(super) fn size_multiple(&self, model: &ModelCard) -> usize {
        model
            .latent
            .as_ref()
            .map_or(1, |(_, components)| TakenSizes::new(model, components, self.image.is_some()).multiple())
    }

    /// Validates the init image and the mask, which includes decoding them.
    pub(super) fn check_init_image(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
        limits: JobLimits,
    ) -> Result<Option<(InitImage, DecodedInitImage)>, JobError> {
        if model.latent.is_some() && model.signature.is_inpainting() {
            for (field, is_given) in [("image", self.image.is_some()), ("mask", self.mask.is_some())] {
                if !is_given {
                    return Err(JobError::out_of_range(field, LatentError::MissingImage));
                }
            }
        }
        let Some(image) = &self.image else {
            return match (&self.mask, self.strength) {
                (Some(_), _) => Err(JobError::out_of_range("mask", "mask needs an image; add image")),
                (_, Some(_)) => Err(JobError::out_of_range("strength", "strength needs an image; add image")),
                _ => Ok(None),
            };
        };
        if model.latent.is_some() && !model.facts().takes_image {
            let message = format!("the pipeline of {} only starts from noise; remove image", model.name());
            return Err(JobError::out_of_range("image", message));
        }
        if model.latent.is_some() && !model.has_vae_encoder {
            return Err(JobError::out_of_range("image", without_encoder(model)));
        }
        let range = if model.latent.is_some() { [-1.0, 1.0] } else { model.bundle.manifest.sample.range };
        let strength = self.strength.unwrap_or(model.facts().default_strength(self.mask.is_some()));
        if !(0.0..=1.0).contains(&strength) {
            let message = format!("strength is {strength}, but must lie between 0 and 1");
            return Err(JobError::out_of_range("strength", message));
        }
        let init_image = InitImage {
            image: image.to_bytes("image")?,
            mask: self.mask.as_ref().map(|mask| mask.to_bytes("mask")).transpose()?,
            strength,
            shape: sizes.image.clone(),
            kind: model.bundle.manifest.sample.kind,
            range,
            max_pixels: limits.pixels,
        };
        let decoded = init_image.decode()?;
        Ok(Some((init_image, decoded)))
    }
}

impl InitImage {
    /// The task of a job that starts from an image, or from noise alone.
    pub(super) fn task(init_image: Option<&Self>) -> PipelineTask {
        match init_image {
            Some(image) if image.mask.is_some() => PipelineTask::Inpainting,
            _ => PipelineTask::Generation,
        }
    }

    pub(super) fn digests(&self) -> PictureDigests {
        let digest = |file: &Vec<u8>| format!("{:x}", Sha256::digest(file));
        PictureDigests { image: Some(digest(&self.image)), mask: self.mask.as_ref().map(digest) }
    }

    /// Decodes the image and the mask.
    pub fn decode(&self) -> Result<DecodedInitImage, JobError> {
        let Self { shape, kind, range, max_pixels, .. } = self;
        let target = DecodeTarget {
            content: Content::Image,
            shape,
            kind: *kind,
            range: *range,
            max_pixels: *max_pixels,
        };
        let image = Tensor::new(shape.clone(), decode("image", &self.image, target)?);
        let of_mask = DecodeTarget { content: Content::Mask, range: [0.0, 1.0], ..target };
        let mask = self.mask.as_ref().map(|file| decode("mask", file, of_mask));
        Ok(DecodedInitImage { image, mask: mask.transpose()? })
    }
}

fn decode(field: &str, file: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, JobError> {
    image::decode(file, target).map_err(|error| JobError::out_of_range(field, format!("{field}: {error}")))
}

impl DecodedInitImage {
    /// Returns the region that the mask keeps, for a sampler that inpaints in pixel space.
    pub(super) fn known_region(&self) -> Option<Arc<KnownRegion>> {
        let repainted = self.mask.as_ref()?;
        let channels = self.image.data.len() / repainted.len();
        let mask = repainted.repeat(channels).iter().map(|repainted| 1.0 - repainted).collect();
        Some(Arc::new(KnownRegion { sample: self.image.data.clone(), mask }))
    }
}

/// Why a job on a model without the encoder of its autoencoder starts from noise.
fn without_encoder(model: &ModelCard) -> String {
    let name = model.name();
    let graph = model.bundle.directory().join("vae_encoder/model.onnx");
    let is_cut = graph.parent().is_some_and(Path::is_dir) && !graph.exists();
    match is_cut {
        true => format!(
            "{} is missing, so {name} can't start from an image; export it again, or remove image",
            graph.display()
        ),
        false => {
            format!("{name} has no vae_encoder, so it can't start from an image; export one, or remove image")
        }
    }
}
