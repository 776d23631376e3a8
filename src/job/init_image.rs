//! What a job says of pictures: the one from which it begins, its mask, and the size of its own.

use std::sync::Arc;

use base64::Engine as _;

use super::{JobError, JobLimits, ModelCard, Request};
use crate::bundle::SampleKind;
use crate::image::{self, Pixels};
use crate::tensor::Tensor;
use diffusion_samplers::trajectory::KnownRegion;

/// The sizes of a job's samples and pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// A sample's axes as the sampler has it.
    pub sample: Vec<usize>,
    /// A latent's axes before it is packed; the sample's own where there are no latents.
    pub latent: Vec<usize>,
    /// The axes of what is published.
    pub picture: Vec<usize>,
}

/// The picture from which a job begins, as the request has it: a job that waits holds no more.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    image: String,
    mask: Option<String>,
    /// How much of the way is gone.
    pub strength: f64,
    shape: Vec<usize>,
    kind: SampleKind,
    range: [f32; 2],
    most: u64,
}

/// The picture from which a job begins, unpacked.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedInitImage {
    /// The picture in the network's or the autoencoder's range.
    pub picture: Tensor,
    /// For each pixel 1 where it is drawn anew and 0 where it is kept.
    pub mask: Option<Vec<f32>>,
}

impl Request {
    /// The sizes that the request or the model says.
    pub(super) fn check_sizes(&self, model: &ModelCard, limits: JobLimits) -> Result<Sizes, JobError> {
        let own = &model.signature.sample_shape;
        let Some((_, latent)) = &model.latent else {
            for (field, given) in [("width", self.width), ("height", self.height)] {
                let axis = if field == "width" { own.last() } else { own.get(1) };
                if given.is_some_and(|given| Some(&(given as usize)) != axis) {
                    let message =
                        format!("{} draws samples of shape {own:?} and no others", model.bundle.name);
                    return Err(JobError::range(field, message));
                }
            }
            return Ok(Sizes { sample: own.clone(), latent: own.clone(), picture: own.clone() });
        };
        let (vae, facts) = (latent.vae, model.facts());
        let step = vae.factor * facts.latent_multiple;
        let default = |axis: usize| facts.latent_size.or(own.get(axis).copied()).unwrap_or(0) * vae.factor;
        let axis = |field: &str, given: Option<u64>, default: usize| -> Result<usize, JobError> {
            let length = given.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
            if length == 0 || !length.is_multiple_of(step) {
                let message = format!("{field} is {length}, but must be a multiple of {step}");
                return Err(JobError::range(field, message));
            }
            if length != default && !model.signature.dynamic_size && !facts.is_packed {
                let message = format!("{field} is {length}, but the graph takes {default} only");
                return Err(JobError::range(field, message));
            }
            Ok(length)
        };
        let (height, width) =
            (axis("height", self.height, default(1))?, axis("width", self.width, default(2))?);
        if (height as u64).saturating_mul(width as u64) > limits.pixels {
            let message = format!(
                "{width}×{height} is more than the {} pixels that limits.pixels allows",
                limits.pixels
            );
            return Err(JobError::range("width", message));
        }
        let latent = vec![vae.channels, height / vae.factor, width / vae.factor];
        let sample =
            if facts.is_packed { vec![latent[1] * latent[2] / 4, 4 * latent[0]] } else { latent.clone() };
        Ok(Sizes { sample, latent, picture: vec![3, height, width] })
    }

    /// The picture from which the job begins, if it names one.
    pub(super) fn check_beginning(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
        limits: JobLimits,
    ) -> Result<Option<InitImage>, JobError> {
        let Some(image) = &self.image else {
            return match (&self.mask, self.strength) {
                (Some(_), _) => Err(JobError::range("mask", "mask needs an image of which it says a part")),
                (_, Some(_)) => Err(JobError::range("strength", "strength needs an image to begin with")),
                _ => Ok(None),
            };
        };
        if model.latent.is_some() && !model.encodes {
            let message = format!(
                "{} has no vae_encoder, without which it can't begin at a picture",
                model.bundle.name
            );
            return Err(JobError::range("image", message));
        }
        let range = if model.latent.is_some() { [-1.0, 1.0] } else { model.bundle.manifest.sample.range };
        let strength = self.strength.unwrap_or(model.facts().default_strength(self.mask.is_some()));
        if !(0.0..=1.0).contains(&strength) {
            let message = format!("strength is {strength}, but must lie between 0 and 1");
            return Err(JobError::range("strength", message));
        }
        let beginning = InitImage {
            image: image.base64("image")?.clone(),
            mask: self.mask.as_ref().map(|mask| mask.base64("mask").cloned()).transpose()?,
            strength,
            shape: sizes.picture.clone(),
            kind: model.bundle.manifest.sample.kind,
            range,
            most: limits.pixels,
        };
        beginning.unpacked()?;
        Ok(Some(beginning))
    }
}

fn read(field: &str, text: &str, pixels: Pixels<'_>) -> Result<Vec<f32>, JobError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|error| JobError::range(field, format!("{field} is no base64: {error}")))?;
    image::decode(&bytes, pixels).map_err(|error| JobError::range(field, format!("{field}: {error}")))
}

impl InitImage {
    /// Unpack picture and mask.
    pub fn unpacked(&self) -> Result<DecodedInitImage, JobError> {
        let Self { shape, kind, range, most, .. } = self;
        let pixels = Pixels { shape, kind: *kind, range: *range, most: *most };
        let picture = Tensor::new(shape.clone(), read("image", &self.image, pixels)?);
        let mask = self.mask.as_ref().map(|text| {
            let plane = [&[1], &shape[1..]].concat();
            let whole = Pixels { range: [0.0, 1.0], ..pixels };
            let one = Pixels { shape: &plane, ..whole };
            read("mask", text, one).or_else(|error| read("mask", text, whole).map_err(|_| error))
        });
        Ok(DecodedInitImage { picture, mask: mask.transpose()? })
    }
}

impl DecodedInitImage {
    /// What a sampler of the network's own pixels keeps: all but what the mask says.
    pub fn known(&self) -> Option<Arc<KnownRegion>> {
        let anew = self.mask.as_ref()?;
        let channels = self.picture.data.len() / anew.len();
        let mask = anew.repeat(channels).iter().map(|anew| 1.0 - anew).collect();
        Some(Arc::new(KnownRegion { sample: self.picture.data.clone(), mask }))
    }
}
