//! The autoencoder, which maps images to latents and back (Rombach et al. 2022, section 3.1).

use super::component::{Component, SampleInput, SampleValues};
use super::error::LatentError;
use super::vae_tiling::{Scale, tiled};
use crate::bundle::{AutoencoderIo, VaeConfig};
use crate::tensor::Tensor;

/// The encoder or the decoder.
pub(super) struct Autoencoder {
    pub(super) component: Component,
    pub(super) io: AutoencoderIo,
}

/// The output of the encoder for an image.
#[derive(Debug, Clone, PartialEq)]
pub enum LatentDistribution {
    /// A normal distribution for each value of the latent.
    Normal {
        /// The means.
        mean: Vec<f32>,
        /// The standard deviations.
        deviation: Vec<f32>,
    },
    /// A latent that the graph has drawn itself (exports of optimum up to 1.21).
    Drawn(Vec<f32>),
}

impl LatentDistribution {
    /// Draws a latent, scaled as the denoiser takes it. `draw` fills a slice with standard normal noise.
    pub fn sample(&self, config: VaeConfig, draw: impl FnOnce(&mut [f32])) -> Vec<f32> {
        let mut latent = match self {
            Self::Drawn(latent) => latent.clone(),
            Self::Normal { mean, deviation } => {
                let mut z = vec![0.0; mean.len()];
                draw(&mut z);
                let values = mean.iter().zip(deviation).zip(z);
                values.map(|((mean, deviation), z)| mean + deviation * z).collect()
            }
        };
        config.scale(&mut latent);
        latent
    }
}

/// The image [3, H, W] in −1..1 of a latent [C, H/f, W/f] that the denoiser produced. With `tile`, it is decoded in tiles
/// of at most `tile` pixels a side.
pub(super) fn decode(
    decoder: &Autoencoder,
    config: VaeConfig,
    latent: &[f32],
    shape: &[usize],
    tile: Option<usize>,
) -> Result<Tensor, LatentError> {
    let mut unscaled = Tensor::new(shape, latent.to_vec());
    config.unscale(&mut unscaled.data);
    let scale = Scale::Up(config.factor);
    let decode = |latent: &Tensor| run(decoder, latent, scale, &[3]);
    let tile = decoder.tile(tile).map(|tile| tile / config.factor);
    match tile.filter(|side| shape[1] > *side || shape[2] > *side) {
        None => decode(&unscaled),
        Some(side) => tiled(&unscaled, side, scale, decode),
    }
}

/// The distribution of the latents of an image [3, H, W] in −1..1. With `tile`, it is encoded in tiles of at most `tile`
/// pixels a side.
pub(super) fn encode(
    encoder: &Autoencoder,
    config: VaeConfig,
    image: &Tensor,
    tile: Option<usize>,
) -> Result<LatentDistribution, LatentError> {
    let scale = Scale::Down(config.factor);
    let encode = |image: &Tensor| run(encoder, image, scale, &[config.channels, 2 * config.channels]);
    let tile = encoder.tile(tile);
    let found = match tile.filter(|tile| image.shape[1] > *tile || image.shape[2] > *tile) {
        None => encode(image)?,
        Some(side) => tiled(image, side, scale, encode)?,
    };
    let mut data = found.data;
    if found.shape[0] == config.channels {
        if !config.is_deterministic {
            log::warn!(
                "this vae_encoder draws the latent itself, so that a seed does not reproduce an image-to-image job; \
                 export it with optimum 1.22 or later"
            );
        }
        return Ok(LatentDistribution::Drawn(data));
    }
    let deviations = data.split_off(data.len() / 2);
    let deviation = deviations.iter().map(|log| (0.5 * log.clamp(-30.0, 20.0)).exp()).collect();
    Ok(LatentDistribution::Normal { mean: data, deviation })
}

impl Autoencoder {
    /// The longest side that is processed at once. A graph of a fixed size processes the whole.
    fn tile(&self, configured: Option<usize>) -> Option<usize> {
        configured.filter(|_| self.io.size == [None, None])
    }
}

/// Evaluates a graph on a picture or a latent. The number of channels of the result must be one of `channels`.
fn run(
    autoencoder: &Autoencoder,
    input: &Tensor,
    scale: Scale,
    channels: &[usize],
) -> Result<Tensor, LatentError> {
    let Autoencoder { component, io } = autoencoder;
    let values = SampleValues::F32(input.data.clone());
    let input_values = SampleInput { name: &io.input, shape: input.shape.clone(), values };
    let mut outputs = component.run(&[input_values], &[&io.output])?;
    let Some(found) = outputs.pop() else { return Ok(Tensor::default()) };
    let (height, width) = (scale.apply(input.shape[1]), scale.apply(input.shape[2]));
    if !channels.iter().any(|n| found.shape == [*n, height, width]) {
        let channels: Vec<_> = channels.iter().map(usize::to_string).collect();
        let expected = format!("[{}, {height}, {width}]", channels.join(" or "));
        let (component, output) = (component.name.clone(), io.output.clone());
        return Err(LatentError::Autoencoder { component, output, expected, found: found.shape });
    }
    Ok(Tensor::new(found.shape, found.values))
}
