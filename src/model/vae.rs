//! The autoencoder, which maps images to latents and back (Rombach et al. 2022, section 3.1).

use std::sync::Arc;

use super::component::{Component, SampleInput, SampleValues};
use super::error::LatentError;
use super::tile_size::{CALIBRATION_SIDE, Extent, fits_unmeasured, largest_tile};
use super::vae_tiling::{Scale, tiled};
use crate::bundle::{AutoencoderIo, VaeConfig};
use crate::inference::SessionMemory;
use crate::tensor::Tensor;

/// The encoder or the decoder.
pub(super) struct Autoencoder {
    pub(super) component: Component,
    pub(super) io: AutoencoderIo,
}

/// How large pictures are tiled.
pub(super) struct Tiling {
    /// The longest side in pixels that is processed at once; `None`: as the memory budget allows.
    pub(super) configured: Option<usize>,
    /// The memory of the denoiser, for which tiles leave room.
    pub(super) denoiser: Option<Arc<SessionMemory>>,
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

/// The image [3, H, W] in −1..1 of a latent [C, H/f, W/f] that the denoiser produced.
pub(super) fn decode(
    decoder: &Autoencoder,
    config: VaeConfig,
    latent: &[f32],
    shape: &[usize],
    tiling: &Tiling,
) -> Result<Tensor, LatentError> {
    let mut unscaled = Tensor::new(shape, latent.to_vec());
    config.unscale(&mut unscaled.data);
    let scale = Scale::Up(config.factor);
    let decode = |latent: &Tensor| run(decoder, latent, scale, &[3]);
    let extent = Extent { height: shape[1], width: shape[2], values: shape[0] };
    let calibrate = |side: usize| decode(&Tensor::zeros([shape[0], side, side])).map(|_| ());
    let tile = decoder.tile(tiling, extent, config.factor, calibrate)?;
    match tile.filter(|side| shape[1] > *side || shape[2] > *side) {
        None => decode(&unscaled),
        Some(side) => tiled(&unscaled, side, scale, decode),
    }
}

/// The distribution of the latents of an image [3, H, W] in −1..1.
pub(super) fn encode(
    encoder: &Autoencoder,
    config: VaeConfig,
    image: &Tensor,
    tiling: &Tiling,
) -> Result<LatentDistribution, LatentError> {
    let scale = Scale::Down(config.factor);
    let encode = |image: &Tensor| run(encoder, image, scale, &[config.channels, 2 * config.channels]);
    let factor = config.factor;
    let extent = Extent {
        height: image.shape[1] / factor,
        width: image.shape[2] / factor,
        values: image.shape[0] * factor * factor,
    };
    let calibrate = |side: usize| encode(&Tensor::zeros([3, side * factor, side * factor])).map(|_| ());
    let tile = encoder.tile(tiling, extent, factor, calibrate)?.map(|side| side * factor);
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
    /// The longest side in latents that is processed at once; `None` for the whole. A graph of a fixed size processes the
    /// whole. Where nothing was measured and memory is not ample, `calibrate` evaluates a small square, whose memory shows
    /// that of larger ones.
    fn tile(
        &self,
        tiling: &Tiling,
        extent: Extent,
        factor: usize,
        calibrate: impl FnOnce(usize) -> Result<(), LatentError>,
    ) -> Result<Option<usize>, LatentError> {
        if self.io.size != [None, None] {
            return Ok(None);
        }
        if let Some(pixels) = tiling.configured {
            return Ok(Some(pixels / factor));
        }
        let memory = self.component.memory();
        if memory.budget().is_none() || extent.height.max(extent.width) <= CALIBRATION_SIDE {
            return Ok(None);
        }
        let (batch, others) =
            (self.io.batch as u64, tiling.denoiser.as_ref().map_or(0, |denoiser| denoiser.held()));
        if !memory.is_calibrated() {
            if fits_unmeasured(memory, extent, factor, batch, others) {
                return Ok(None);
            }
            calibrate(CALIBRATION_SIDE)?;
        }
        let side = largest_tile(memory, extent, batch, others);
        if let Some(side) = side {
            log::info!(
                "{}: {}×{} pixels are processed in tiles of {} pixels ([engine] memory)",
                self.component.name,
                extent.width * factor,
                extent.height * factor,
                side * factor
            );
        }
        Ok(side)
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
