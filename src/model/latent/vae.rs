//! The autoencoder: pictures become latents and latents pictures (Rombach et al. 2022, section 3.1).

use super::LatentError;
use crate::model::parts::Part;
use crate::model::session::{Input, Tensor, Values};

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

/// A picture [3, H, W] in −1..1 of a latent [C, H/f, W/f] as the network gives it.
pub(super) fn decode(
    decoder: &Part,
    config: VaeConfig,
    latent: &[f32],
    shape: &[usize],
) -> Result<Tensor, LatentError> {
    let unscaled: Vec<f32> = latent.iter().map(|x| x / config.scaling + config.shift).collect();
    let mut data = Vec::new();
    let found = decoder.with(|session| {
        let (input, output) = ends(session.graph());
        let input = Input::new(&input, [&[1], shape].concat(), Values::F32(&unscaled));
        session.run(&[input], &output, &mut data)
    })??;
    Ok(Tensor::new(&found[1..], data))
}

/// The distribution of the latents of a picture [3, H, W] in −1..1.
pub(super) fn encode(encoder: &Part, picture: &Tensor) -> Result<Posterior, LatentError> {
    let mut data = Vec::new();
    let output = encoder.with(|session| {
        let (input, output) = ends(session.graph());
        let input = Input::new(&input, [&[1], &picture.shape[..]].concat(), Values::F32(&picture.data));
        session.run(&[input], &output, &mut data).map(|_| output)
    })??;
    if output != "latent_parameters" {
        return Ok(Posterior::Drawn(data));
    }
    let deviations = data.split_off(data.len() / 2);
    let deviation = deviations.iter().map(|log| (0.5 * log.clamp(-30.0, 20.0)).exp()).collect();
    Ok(Posterior::Normal { mean: data, deviation })
}

/// The names of a graph's one input and first output.
fn ends(graph: &crate::model::Graph) -> (String, String) {
    let name =
        |ports: &[crate::model::Port]| ports.first().map_or_else(String::new, |port| port.name.clone());
    (name(&graph.inputs), name(&graph.outputs))
}
