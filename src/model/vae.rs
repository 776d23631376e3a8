//! The autoencoder, which maps images to latents and back (Rombach et al. 2022, section 3.1).

use super::error::LatentError;
use super::vae_tiling::{Scale, tiled};
use crate::bundle::VaeConfig;
use crate::inference::{EvaluationError, Input, PooledSession, Session, Values};
use crate::tensor::{GraphIo, Tensor, ValueInfo};

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
    decoder: &PooledSession,
    config: VaeConfig,
    latent: &[f32],
    shape: &[usize],
    tile: Option<usize>,
) -> Result<Tensor, LatentError> {
    let mut unscaled = Tensor::new(shape, latent.to_vec());
    config.unscale(&mut unscaled.data);
    let scale = Scale::Up(config.factor);
    let decode = |latent: &Tensor| Ok(run(decoder, latent, scale, &[3])?.1);
    match tile.map(|tile| tile / config.factor).filter(|side| shape[1] > *side || shape[2] > *side) {
        None => decode(&unscaled),
        Some(side) => tiled(&unscaled, side, scale, decode),
    }
}

/// The distribution of the latents of an image [3, H, W] in −1..1. With `tile`, it is encoded in tiles of at most `tile`
/// pixels a side.
pub(super) fn encode(
    encoder: &PooledSession,
    config: VaeConfig,
    image: &Tensor,
    tile: Option<usize>,
) -> Result<LatentDistribution, LatentError> {
    let mut output = String::new();
    let scale = Scale::Down(config.factor);
    let mut encode = |image: &Tensor| {
        let (name, found) = run(encoder, image, scale, &[config.channels, 2 * config.channels])?;
        output = name;
        Ok::<_, LatentError>(found)
    };
    let found = match tile.filter(|tile| image.shape[1] > *tile || image.shape[2] > *tile) {
        None => encode(image)?,
        Some(side) => tiled(image, side, scale, encode)?,
    };
    let mut data = found.data;
    if output != "latent_parameters" {
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

/// Evaluates a graph with one input. Returns the name and the values of its output, whose number of channels must be one of
/// `channels`.
fn run(
    pooled: &PooledSession,
    input: &Tensor,
    scale: Scale,
    channels: &[usize],
) -> Result<(String, Tensor), LatentError> {
    let mut data = Vec::new();
    let (name, shape) = pooled.with_session(|session: &mut dyn Session| {
        let (first, output) = first_names(session.graph());
        let input = Input::new(&first, [&[1], &input.shape[..]].concat(), Values::F32(&input.data));
        session.run(&[input], &output, &mut data).map(|shape| (output, shape))
    })??;
    let (height, width) = (scale.apply(input.shape[1]), scale.apply(input.shape[2]));
    if !channels.iter().any(|n| shape == [1, *n, height, width]) {
        let expected = format!("[1, {channels:?}, {height}, {width}]");
        return Err(EvaluationError::OutputShape { output: name, expected, found: shape }.into());
    }
    Ok((name, Tensor::new(&shape[1..], data)))
}

/// The names of a graph's first input and first output.
fn first_names(graph: &GraphIo) -> (String, String) {
    let name = |values: &[ValueInfo]| values.first().map_or_else(String::new, |value| value.name.clone());
    (name(&graph.inputs), name(&graph.outputs))
}
