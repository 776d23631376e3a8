//! The autoencoder: pictures become latents and latents pictures (Rombach et al. 2022, section 3.1).

use crate::inference::session::{Input, Tensor, Values};
use crate::inference::session_pool::PooledSession;
use crate::model::latent_pipeline::LatentError;
use crate::model::predictor::EvaluationError;
use crate::model::vae_tiling::{Ratio, tiled};

/// What the autoencoder's configuration says of its latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VaeConfig {
    /// A latent's channels.
    pub channels: usize,
    /// How many of a picture's pixels, along each axis, one of a latent stands for.
    pub factor: usize,
    /// `scaling_factor`.
    pub scaling: f32,
    /// `shift_factor`.
    pub shift: f32,
}

/// The encoder's answer for a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Posterior {
    /// A normal distribution, to be drawn from: each latent value's mean and standard deviation.
    Normal {
        /// The means.
        mean: Vec<f32>,
        /// The standard deviations.
        deviation: Vec<f32>,
    },
    /// The graph has drawn already (exports of optimum up to 1.21).
    Drawn(Vec<f32>),
}

impl Posterior {
    /// A latent of the distribution, scaled as the network takes it; `draw` fills standard normal noise in.
    pub fn sample(&self, config: VaeConfig, draw: impl FnOnce(&mut [f32])) -> Vec<f32> {
        let scaled = |x: f32| (x - config.shift) * config.scaling;
        match self {
            Self::Drawn(latent) => latent.iter().map(|x| scaled(*x)).collect(),
            Self::Normal { mean, deviation } => {
                let mut z = vec![0.0; mean.len()];
                draw(&mut z);
                let values = mean.iter().zip(deviation).zip(z);
                values.map(|((mean, deviation), z)| scaled(mean + deviation * z)).collect()
            }
        }
    }
}

/// A picture [3, H, W] in −1..1 of a latent [C, H/f, W/f] as the network gives it; in tiles of at most
/// `tile` pixels a side, if one is named.
pub(crate) fn decode(
    decoder: &PooledSession,
    config: VaeConfig,
    latent: &[f32],
    shape: &[usize],
    tile: Option<usize>,
) -> Result<Tensor, LatentError> {
    let unscaled = latent.iter().map(|x| x / config.scaling + config.shift).collect();
    let unscaled = Tensor::new(shape, unscaled);
    let ratio = Ratio::Times(config.factor);
    let work = |part: &Tensor| Ok(run(decoder, part, ratio, &[3])?.1);
    match tile.map(|tile| tile / config.factor).filter(|side| shape[1] > *side || shape[2] > *side) {
        None => work(&unscaled),
        Some(side) => tiled(&unscaled, side, ratio, work),
    }
}

/// The distribution of the latents of a picture [3, H, W] in −1..1, in tiles as well.
pub(crate) fn encode(
    encoder: &PooledSession,
    config: VaeConfig,
    picture: &Tensor,
    tile: Option<usize>,
) -> Result<Posterior, LatentError> {
    let mut output = String::new();
    let ratio = Ratio::Over(config.factor);
    let mut work = |part: &Tensor| {
        let (name, found) = run(encoder, part, ratio, &[config.channels, 2 * config.channels])?;
        output = name;
        Ok::<_, LatentError>(found)
    };
    let found = match tile.filter(|tile| picture.shape[1] > *tile || picture.shape[2] > *tile) {
        None => work(picture)?,
        Some(side) => tiled(picture, side, ratio, work)?,
    };
    let mut data = found.data;
    if output != "latent_parameters" {
        log::warn!(
            "this vae_encoder draws its latent by itself, so that no picture that begins at one can be drawn again \
             by its seed; export it with optimum 1.22 or later"
        );
        return Ok(Posterior::Drawn(data));
    }
    let deviations = data.split_off(data.len() / 2);
    let deviation = deviations.iter().map(|log| (0.5 * log.clamp(-30.0, 20.0)).exp()).collect();
    Ok(Posterior::Normal { mean: data, deviation })
}

/// Evaluate a graph of one input, whose output has as many channels as one of these; tells the output's name
/// and values.
fn run(
    part: &PooledSession,
    input: &Tensor,
    ratio: Ratio,
    channels: &[usize],
) -> Result<(String, Tensor), LatentError> {
    let mut data = Vec::new();
    let (name, shape) = part.with(|session| {
        let (first, output) = ends(session.graph());
        let input = Input::new(&first, [&[1], &input.shape[..]].concat(), Values::F32(&input.data));
        session.run(&[input], &output, &mut data).map(|shape| (output, shape))
    })??;
    let (height, width) = (ratio.of(input.shape[1]), ratio.of(input.shape[2]));
    if !channels.iter().any(|n| shape == [1, *n, height, width]) {
        let expected = format!("[1, {channels:?}, {height}, {width}]");
        return Err(EvaluationError::OutputShape { output: name, expected, found: shape }.into());
    }
    Ok((name, Tensor::new(&shape[1..], data)))
}

/// The names of a graph's one input and first output.
fn ends(graph: &crate::model::GraphIo) -> (String, String) {
    let name =
        |ports: &[crate::model::ValueInfo]| ports.first().map_or_else(String::new, |port| port.name.clone());
    (name(&graph.inputs), name(&graph.outputs))
}
