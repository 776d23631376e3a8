//! What a job needs before its first image rides: its words and its picture, as the network takes them.

use std::sync::Arc;

use crate::bundle::{Signature, VaeConfig};
use crate::job::{DecodedInitImage, ErrorCode, InitImage, Job, JobError, Sizes};
use crate::model::{Conditions, LatentError, LatentPipeline, Posterior};
use crate::tensor::Tensor;
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler;
use diffusion_samplers::trajectory::KnownRegion;

/// A job's conditions, and its picture's latents where it begins at one.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) conditions: Arc<Conditions>,
    picture: Option<Picture>,
    is_packed: bool,
}

/// The picture at which a job begins.
#[derive(Debug)]
struct Picture {
    whole: Source,
    /// With a mask: what is seen beside it, for each latent 1 where it is drawn anew, and whether the
    /// network is told both.
    masked: Option<(Source, Vec<f32>)>,
    told: bool,
    /// Whether all of the way is gone, so that a walk with a mask begins at noise alone.
    from_noise: bool,
}

/// Where the sample of a picture comes from.
#[derive(Debug)]
enum Source {
    /// The picture is the sample.
    Pixels(Vec<f32>),
    /// A latent is drawn from here.
    Latents(Posterior, VaeConfig),
}

impl Source {
    fn draw(&self, noise: &mut Noise) -> Vec<f32> {
        match self {
            Self::Pixels(sample) => sample.clone(),
            Self::Latents(posterior, config) => posterior.sample(*config, |z| noise.fill(z)),
        }
    }
}

impl Prepared {
    /// Prepare a job on a model's networks.
    pub(super) fn of(
        job: &Job,
        latent: Option<&LatentPipeline>,
        signature: &Signature,
    ) -> Result<Self, JobError> {
        let beginning = job.beginning.as_deref();
        let from_noise = beginning.is_some_and(|beginning| beginning.strength == 1.0);
        let seen = beginning.map(InitImage::unpacked).transpose()?;
        match latent {
            None => Ok(Self { picture: seen.map(|seen| of_pixels(seen, from_noise)), ..Self::default() }),
            Some(latent) => {
                let conditions = match &job.wish {
                    Some(wish) => latent.conditions(wish, signature, &job.sizes.latent),
                    None => Ok(Conditions::default()),
                };
                let told = signature.is_inpainting();
                let picture = picture_of_latents(latent, seen.as_ref(), &job.sizes, told, from_noise);
                Ok(Self {
                    conditions: Arc::new(conditions.map_err(|error| of_latents(&error))?),
                    picture: picture.map_err(|error| of_latents(&error))?,
                    is_packed: latent.kind.facts().is_packed,
                })
            }
        }
    }

    /// Where an image's walk begins, and the further channels that its network is told; `draw` makes the
    /// initial noise. Every draw comes in the reference's order: the picture's latent, the noise, the latent
    /// of what is seen of it.
    pub(super) fn begin(
        &self,
        sizes: &Sizes,
        noise: &mut Noise,
        draw: impl FnOnce(&mut Noise) -> Vec<f32>,
    ) -> (sampler::InitialState, Vec<f32>) {
        let Some(picture) = &self.picture else {
            return (sampler::InitialState::from_noise(self.packed(draw(noise), sizes)), Vec::new());
        };
        // Where the network is told what is seen, the whole picture counts only where the walk begins at it.
        let needs_whole = !(picture.told && picture.from_noise);
        let whole = needs_whole.then(|| self.packed(picture.whole.draw(noise), sizes));
        let initial = self.packed(draw(noise), sizes);
        let mut beside = Vec::new();
        let mut keep = None;
        let is_masked = picture.masked.is_some();
        if let Some((seen, mask)) = &picture.masked {
            let seen = seen.draw(noise);
            if picture.told {
                let plane = mask.len() / sizes.latent[0];
                beside = [&mask[..plane], &seen].concat();
            } else if let Some(whole) = &whole {
                let mask = mask.iter().map(|anew| 1.0 - anew).collect();
                keep = Some(Arc::new(KnownRegion { sample: whole.clone(), mask: self.packed(mask, sizes) }));
            }
        }
        let image = whole.filter(|_| !(is_masked && picture.from_noise));
        (sampler::InitialState { noise: initial, image, inpaint: keep }, beside)
    }

    /// Latents as the sampler has them.
    fn packed(&self, latent: Vec<f32>, sizes: &Sizes) -> Vec<f32> {
        if !self.is_packed {
            return latent;
        }
        places(&sizes.latent).map(|place| latent[place]).collect()
    }

    /// Samples as the autoencoder has them.
    pub(super) fn unpacked(&self, sample: Vec<f32>, sizes: &Sizes) -> Vec<f32> {
        if !self.is_packed {
            return sample;
        }
        let mut latent = vec![0.0; sample.len()];
        places(&sizes.latent).zip(sample).for_each(|(place, x)| latent[place] = x);
        latent
    }
}

/// A picture that is the sample itself.
fn of_pixels(seen: DecodedInitImage, from_noise: bool) -> Picture {
    let values = seen.picture.data.len();
    let masked = seen.mask.map(|mask| (Source::Pixels(Vec::new()), mask.repeat(values / mask.len())));
    Picture { masked, whole: Source::Pixels(seen.picture.data), told: false, from_noise }
}

/// A picture whose latents are drawn, with those of what is seen of it; `told` if the network takes both.
fn picture_of_latents(
    latent: &LatentPipeline,
    seen: Option<&DecodedInitImage>,
    sizes: &Sizes,
    told: bool,
    from_noise: bool,
) -> Result<Option<Picture>, LatentError> {
    let is_masked = seen.is_some_and(|seen| seen.mask.is_some());
    if told && !is_masked {
        return Err(LatentError::MissingImage);
    }
    let Some(seen) = seen else { return Ok(None) };
    let config = latent.components.vae;
    let drawn_from =
        |picture: &Tensor| Ok::<_, LatentError>(Source::Latents(latent.encode(picture)?, config));
    let masked = seen.mask.as_ref().map(|mask| {
        let plane = smaller(mask, &sizes.picture, &sizes.latent);
        Ok::<_, LatentError>((drawn_from(&without(&seen.picture, mask))?, plane))
    });
    let (whole, masked) = (drawn_from(&seen.picture)?, masked.transpose()?);
    Ok(Some(Picture { whole, masked, told, from_noise }))
}

/// What a job is told where the networks around the network fail it.
pub(super) fn of_latents(error: &LatentError) -> JobError {
    let field = match error {
        LatentError::Evaluation(_) | LatentError::MissingComponent(_) => None,
        LatentError::Tokens(_) => Some("prompt"),
        LatentError::NoLayers | LatentError::Layers { .. } => Some("clip_skip"),
        LatentError::MissingImage => Some("image"),
    };
    let code = if field.is_some() { ErrorCode::OutOfRange } else { ErrorCode::Engine };
    JobError { field: field.map(str::to_owned), ..JobError::new(code, error) }
}

/// For each packed value its place in a latent [C, H, W]: patches of two by two in rows, each with all
/// channels, of each its four values.
fn places(latent: &[usize]) -> impl Iterator<Item = usize> + use<> {
    let [channels, height, width] = [latent[0], latent[1], latent[2]];
    (0..channels * height * width).map(move |i| {
        let (patch, within) = (i / (4 * channels), i % (4 * channels));
        let (channel, corner) = (within / 4, within % 4);
        let (row, column) = (patch / (width / 2), patch % (width / 2));
        channel * height * width + (2 * row + corner / 2) * width + 2 * column + corner % 2
    })
}

/// A picture with 0 wherever it is drawn anew.
fn without(picture: &Tensor, mask: &[f32]) -> Tensor {
    let data = picture.data.iter().zip(mask.iter().cycle());
    Tensor { data: data.map(|(x, anew)| if *anew < 0.5 { *x } else { 0.0 }).collect(), ..picture.clone() }
}

/// A mask of pixels as one of latents, the nearest pixel's value for all channels.
fn smaller(mask: &[f32], picture: &[usize], latent: &[usize]) -> Vec<f32> {
    let (height, width) = (latent[1], latent[2]);
    let (rows, columns) = (picture[1] / height, picture[2] / width);
    let at = |i: usize| mask[i / width * rows * picture[2] + i % width * columns];
    let plane: Vec<f32> = (0..height * width).map(|i| if at(i) < 0.5 { 0.0 } else { 1.0 }).collect();
    plane.repeat(latent[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_takes_every_value_once_and_back() {
        let latent = [2, 4, 6];
        let mut seen: Vec<_> = places(&latent).collect();
        // The first patch: both rows of the first channel's corner, then the second channel's.
        assert_eq!(seen[..8], [0, 1, 6, 7, 24, 25, 30, 31]);
        seen.sort_unstable();
        assert_eq!(seen, (0..48).collect::<Vec<_>>());
    }

    #[test]
    fn a_mask_is_halved_by_its_nearest_pixels() {
        let mask = [1.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(smaller(&mask, &[3, 2, 4], &[2, 1, 2]), [1.0, 0.0, 1.0, 0.0]);
    }
}
