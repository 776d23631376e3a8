//! A job's inputs as the network takes them: encoded prompts, and the latents of its init image.

use std::sync::Arc;

use super::packing;
use crate::bundle::{PipelineKind, Signature, VaeConfig};
use crate::job::{DecodedInitImage, ErrorCode, InitImage, Job, JobError, Sizes};
use crate::model::{
    Conditions, JobControls, JobLoras, LatentDistribution, LatentError, LatentPipeline, LoraFault,
};
use crate::tensor::Tensor;
use diffusion_samplers::rng::Noise;
use diffusion_samplers::sampler;
use diffusion_samplers::trajectory::KnownRegion;

/// The encoded inputs of a job, shared by its images.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) conditions: Arc<Conditions>,
    pub(super) loras: Option<Arc<JobLoras>>,
    pub(super) controls: Option<Arc<JobControls>>,
    init: Option<EncodedInitImage>,
    kind: Option<PipelineKind>,
}

#[derive(Debug)]
struct EncodedInitImage {
    image: LatentSource,
    inpainting: Option<Inpainting>,
    /// Whether the network takes the mask and the masked image as extra channels.
    is_network_input: bool,
    /// Whether `strength` is 1: with a mask, sampling then starts from noise alone.
    starts_from_noise: bool,
}

#[derive(Debug)]
struct Inpainting {
    masked_image: LatentSource,
    /// 1 for each value of the latent that is generated, 0 where the image is kept.
    mask: Vec<f32>,
}

/// Where the latent of an image comes from.
#[derive(Debug)]
enum LatentSource {
    /// The model works in pixel space: the image itself.
    Pixels(Vec<f32>),
    /// A latent is sampled from the VAE's posterior.
    Distribution(LatentDistribution, VaeConfig),
}

impl LatentSource {
    fn sample(&self, noise: &mut Noise) -> Vec<f32> {
        match self {
            Self::Pixels(sample) => sample.clone(),
            Self::Distribution(posterior, config) => posterior.sample(*config, |z| noise.fill(z)),
        }
    }
}

impl Prepared {
    /// Encodes a job's prompts and init image.
    pub(super) fn new(
        job: &Job,
        latent: Option<&LatentPipeline>,
        signature: &Signature,
    ) -> Result<Self, JobError> {
        let init = job.init_image.as_deref();
        let starts_from_noise = init.is_some_and(|init| init.strength == 1.0);
        let decoded = init.map(InitImage::decode).transpose()?;
        let Some(latent) = latent else {
            let init = decoded.map(|decoded| pixel_space_init(decoded, starts_from_noise));
            return Ok(Self { init, ..Self::default() });
        };
        let loras = match job.loras.as_slice() {
            [] => None,
            choices => Some(latent.load_loras(choices).map_err(|(index, fault)| lora_error(index, &fault))?),
        };
        let conditions = match &job.text {
            Some(prompts) => latent.conditions(prompts, signature, &job.sizes.latent, loras.as_deref()),
            None => Ok(Conditions::default()),
        };
        let is_network_input = signature.is_inpainting();
        let init =
            latent_space_init(latent, decoded.as_ref(), &job.sizes, is_network_input, starts_from_noise);
        Ok(Self {
            conditions: Arc::new(conditions.map_err(|error| latent_error(&error))?),
            loras,
            controls: job.decode_controls()?.map(Arc::new),
            init: init.map_err(|error| latent_error(&error))?,
            kind: Some(latent.kind),
        })
    }

    /// Returns the initial state of an image's trajectory, and its extra channels. `initial_noise` generates
    /// the initial noise. Random numbers are drawn in the order of the reference: the init image's latent,
    /// the noise, the masked image's latent.
    pub(super) fn initial_state(
        &self,
        sizes: &Sizes,
        noise: &mut Noise,
        initial_noise: impl FnOnce(&mut Noise) -> Vec<f32>,
    ) -> (sampler::InitialState, Vec<f32>) {
        let Some(init) = &self.init else {
            let noise = self.pack(initial_noise(noise), sizes);
            return (sampler::InitialState::from_noise(noise), Vec::new());
        };
        // With extra channels, the latent of the whole image is used only if sampling starts from it.
        let needs_image = !(init.is_network_input && init.starts_from_noise);
        let image = needs_image.then(|| self.pack(init.image.sample(noise), sizes));
        let initial = self.pack(initial_noise(noise), sizes);
        let mut extra_channels = Vec::new();
        let mut inpaint = None;
        if let Some(Inpainting { masked_image, mask }) = &init.inpainting {
            let masked_latent = masked_image.sample(noise);
            if init.is_network_input {
                let plane = mask.len() / sizes.latent[0];
                extra_channels = [&mask[..plane], &masked_latent].concat();
            } else if let Some(image) = &image {
                let known_mask = mask.iter().map(|generated| 1.0 - generated).collect();
                inpaint =
                    Some(Arc::new(KnownRegion { sample: image.clone(), mask: self.pack(known_mask, sizes) }));
            }
        }
        let image = image.filter(|_| !(init.inpainting.is_some() && init.starts_from_noise));
        (sampler::InitialState { noise: initial, image, inpaint }, extra_channels)
    }

    /// The side of the patches of which the sampler's latents have one row each.
    fn packing(&self) -> Option<usize> {
        self.kind?.facts().packing
    }

    /// Converts a latent to the layout of the sampler.
    fn pack(&self, latent: Vec<f32>, sizes: &Sizes) -> Vec<f32> {
        match self.packing() {
            Some(side) => packing::pack(&latent, &sizes.latent, side),
            None => latent,
        }
    }

    /// Converts a sample to the layout of the VAE.
    pub(super) fn unpack(&self, sample: Vec<f32>, sizes: &Sizes) -> Vec<f32> {
        match self.packing() {
            Some(side) => packing::unpack(sample, &sizes.latent, side),
            None => sample,
        }
    }
}

/// The init image of a model that works in pixel space.
fn pixel_space_init(decoded: DecodedInitImage, starts_from_noise: bool) -> EncodedInitImage {
    let values = decoded.image.data.len();
    let inpainting = decoded.mask.map(|mask| Inpainting {
        masked_image: LatentSource::Pixels(Vec::new()),
        mask: mask.repeat(values / mask.len()),
    });
    EncodedInitImage {
        image: LatentSource::Pixels(decoded.image.data),
        inpainting,
        is_network_input: false,
        starts_from_noise,
    }
}

/// Encodes the init image, and the masked image if there is a mask.
fn latent_space_init(
    latent: &LatentPipeline,
    decoded: Option<&DecodedInitImage>,
    sizes: &Sizes,
    is_network_input: bool,
    starts_from_noise: bool,
) -> Result<Option<EncodedInitImage>, LatentError> {
    let has_mask = decoded.is_some_and(|decoded| decoded.mask.is_some());
    if is_network_input && !has_mask {
        return Err(LatentError::MissingImage);
    }
    let Some(decoded) = decoded else { return Ok(None) };
    let config = latent.components.vae;
    let config = if has_mask { config.without_statistics() } else { config };
    let encode =
        |picture: &Tensor| Ok::<_, LatentError>(LatentSource::Distribution(latent.encode(picture)?, config));
    let inpainting = decoded.mask.as_ref().map(|mask| {
        let masked_image = encode(&masked(&decoded.image, mask))?;
        Ok::<_, LatentError>(Inpainting {
            masked_image,
            mask: resize_mask(mask, &sizes.image, &sizes.latent),
        })
    });
    let (image, inpainting) = (encode(&decoded.image)?, inpainting.transpose()?);
    Ok(Some(EncodedInitImage { image, inpainting, is_network_input, starts_from_noise }))
}

/// The job's error for the LoRA at this index.
fn lora_error(index: usize, fault: &LoraFault) -> JobError {
    JobError::of_field(ErrorCode::OutOfRange, &format!("loras[{index}].name"), fault)
}

/// Converts an error of the text encoders or the VAE to the job's error.
pub(super) fn latent_error(error: &LatentError) -> JobError {
    let field = match error {
        LatentError::Evaluation { .. }
        | LatentError::Session(_)
        | LatentError::NonFinite { .. }
        | LatentError::Autoencoder { .. }
        | LatentError::Embeddings { .. }
        | LatentError::MissingComponent(_) => None,
        LatentError::Tokens(_) => Some("prompt"),
        LatentError::NoLayers | LatentError::Layers { .. } => Some("clip_skip"),
        LatentError::MissingImage => Some("image"),
    };
    let code = match error {
        LatentError::NonFinite { .. } => ErrorCode::NonFinite,
        _ if field.is_some() => ErrorCode::OutOfRange,
        _ => ErrorCode::Engine,
    };
    JobError { field: field.map(str::to_owned), ..JobError::new(code, error) }
}

/// Sets the generated region of a picture to 0.
fn masked(picture: &Tensor, mask: &[f32]) -> Tensor {
    let data = picture.data.iter().zip(mask.iter().cycle());
    let masked = |(x, generated): (&f32, &f32)| if *generated < 0.5 { *x } else { 0.0 };
    Tensor { data: data.map(masked).collect(), ..picture.clone() }
}

/// Resizes a pixel mask to a latent by the nearest pixel, repeated for each channel.
fn resize_mask(mask: &[f32], picture: &[usize], latent: &[usize]) -> Vec<f32> {
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
    fn a_mask_is_resized_by_its_nearest_pixels() {
        let mask = [1.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(resize_mask(&mask, &[3, 2, 4], &[2, 1, 2]), [1.0, 0.0, 1.0, 0.0]);
    }
}
