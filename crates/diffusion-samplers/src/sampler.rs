//! Samplers: the rules that turn noise into a sample, one file per family.
//!
//! A family's file holds its update formula as the paper writes it, the formula's coefficients, and a `build`
//! function that reads a scheduler configuration. What families share is beside them: `steps` lays out the time
//! steps and noise levels, `model_output` converts the network's output, and `plan` and `multistep` hold the loops.

mod consistency;
mod ddim;
mod ddpm;
mod deis;
mod dpm_2;
mod dpm_solver;
mod error;
mod euler;
mod flow_lcm;
mod flow_match;
mod heun;
mod ipndm;
mod langevin;
mod lms;
mod model_output;
mod multistep;
mod node;
mod options;
mod plan;
mod pndm;
mod renoise;
mod repaint;
mod sa_solver;
mod scm;
mod score_sde_ve;
mod sohl_dickstein;
mod spec;
mod steps;
mod thresholding;
mod unipc;

use std::sync::Arc;

use super::noise_schedule::NoiseLevel;
use super::rng::Noise;
use super::scheduler_settings::Settings;
use super::trajectory::{InpaintMask, KnownRegion, ModelHandle, SampleFuture, Trajectory};

pub use error::SamplerError;
pub use options::{Options, Patches, Strength};
pub use spec::{SamplerSpec, by_class, by_name, names, suffixes};

/// Every family, in the order in which `inspect` lists them.
pub const FAMILIES: &[Family] = &[
    ddpm::FAMILY,
    ddim::DDIM,
    ddim::INVERSE,
    pndm::FAMILY,
    ipndm::FAMILY,
    euler::EULER,
    euler::ANCESTRAL,
    euler::EDM,
    heun::FAMILY,
    lms::FAMILY,
    dpm_2::DPM_2,
    dpm_2::ANCESTRAL,
    dpm_2::K_DPM_2,
    dpm_2::K_ANCESTRAL,
    dpm_solver::multistep::MULTISTEP,
    dpm_solver::multistep::INVERSE,
    dpm_solver::multistep::EDM,
    dpm_solver::singlestep::FAMILY,
    dpm_solver::sde::DPMPP_SDE,
    dpm_solver::sde::K_DPMPP_SDE,
    dpm_solver::sde::DPMPP_2S_ANCESTRAL,
    dpm_solver::sde::K_DPMPP_2M_SDE,
    dpm_solver::sde::DPMPP_3M_SDE,
    deis::FAMILY,
    unipc::FAMILY,
    sa_solver::FAMILY,
    consistency::LCM,
    consistency::TCD,
    consistency::CONSISTENCY,
    scm::FAMILY,
    flow_match::EULER,
    flow_match::HEUN,
    flow_lcm::FAMILY,
    score_sde_ve::FAMILY,
    repaint::FAMILY,
    langevin::NCSN,
    langevin::SGLD,
    sohl_dickstein::FAMILY,
];

/// Reads a scheduler configuration and plans a sampler's steps.
pub type Build = fn(&mut Settings, &Options) -> Result<Arc<dyn Sampler>, SamplerError>;

/// A class of scheduler configurations and the sampler that it configures.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The sampler's name in jobs and on the command line.
    pub name: &'static str,
    /// The `_class_name` in scheduler_config.json.
    pub class: &'static str,
    /// The conditioning that the network receives beside the state.
    pub time: TimeConditioning,
    /// Further names of the family, each with the keys that it sets.
    pub presets: &'static [Preset],
    /// Whether the sampler has its own inpainting, with the known region of [`Options::known`].
    pub inpaints: bool,
    /// Reads a configuration and plans the steps.
    pub build: Build,
}

impl Family {
    /// A family without presets, for networks that are conditioned on the time step.
    const fn new(name: &'static str, class: &'static str, build: Build) -> Self {
        Self { name, class, time: TimeConditioning::Step, presets: &[], inpaints: false, build }
    }

    /// The same family, with inpainting of its own.
    const fn with_inpainting(self) -> Self {
        Self { inpaints: true, ..self }
    }

    /// The same family for networks with another conditioning.
    const fn with_time(self, time: TimeConditioning) -> Self {
        Self { time, ..self }
    }
}

/// The conditioning that a network receives beside the state. A network that was trained with one of them
/// can't be used with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeConditioning {
    /// A time step of a noise schedule, 0 to T.
    Step,
    /// A time step along a straight path, T·σ.
    Path,
    /// An angle as a fraction of π/2.
    Angle,
    /// EDM's c_noise, ¼ log σ.
    LogSigma,
    /// A consistency model's 250·log σ.
    Consistency,
    /// The noise level σ itself.
    Sigma,
    /// The index of a noise level.
    Index,
}

impl std::fmt::Display for TimeConditioning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Step => "the time step of a noise schedule",
            Self::Path => "the time step of a flow-matching path",
            Self::Angle => "an angle",
            Self::LogSigma => "EDM's c_noise",
            Self::Consistency => "a consistency model's time",
            Self::Sigma => "the noise level sigma",
            Self::Index => "the index of a noise level",
        })
    }
}

/// A name that sets some keys of its family's class.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// The sampler's name in jobs and on the command line.
    pub name: &'static str,
    /// The keys and their values, which override the configuration.
    pub keys: &'static [(&'static str, PresetValue)],
}

/// The value that a preset gives to a key.
#[derive(Debug, Clone, Copy)]
pub enum PresetValue {
    /// A text.
    Text(&'static str),
    /// A number.
    Number(f64),
}

/// A sampler with its time steps and coefficients.
pub trait Sampler: Send + Sync {
    /// The number of network evaluations (NFE).
    fn evaluations(&self) -> usize;

    /// The standard deviation of the initial state.
    fn initial_sigma(&self) -> f64 {
        1.0
    }

    /// The number of noise draws after the initial state.
    fn draws(&self) -> usize {
        0
    }

    /// Whether every coefficient is finite. Some configurations make them infinite or NaN.
    fn is_finite(&self) -> bool {
        true
    }

    /// The noise level of the initial state α·x_0 + σ·ε, for a sampler that can start from an image.
    fn start(&self) -> Option<NoiseLevel> {
        None
    }

    /// The number of network outputs per value of the sample.
    fn outputs_per_value(&self) -> usize {
        1
    }

    /// Samples from the initial state `x`, which is already scaled by the initial sigma.
    fn sample(self: Arc<Self>, x: Vec<f32>, noise: Noise, model: ModelHandle) -> SampleFuture;
}

/// The state from which a trajectory starts.
#[derive(Debug, Clone, Default)]
pub struct InitialState {
    /// Standard normal noise.
    pub noise: Vec<f32>,
    /// The image to start from (img2img), if any.
    pub image: Option<Vec<f32>>,
    /// The region to preserve (inpainting), if any.
    pub inpaint: Option<Arc<KnownRegion>>,
}

impl InitialState {
    /// Pure noise.
    pub fn from_noise(noise: Vec<f32>) -> Self {
        Self { noise, ..Self::default() }
    }
}

/// Starts a trajectory: from noise scaled by the initial sigma, or from an image noised to the level of the
/// sampler's first step.
///
/// `noise` is the source of all later draws.
pub fn start(sampler: Arc<dyn Sampler>, at: InitialState, noise: Noise) -> Trajectory {
    let inpaint = at.inpaint.map(|known| InpaintMask { known, noise: at.noise.clone() });
    let mut x = at.noise;
    match (at.image, sampler.start()) {
        (Some(image), Some(NoiseLevel { alpha, sigma })) => {
            let (alpha, sigma) = (alpha as f32, sigma as f32);
            x.iter_mut().zip(&image).for_each(|(x, x0)| *x = alpha * x0 + sigma * *x);
        }
        _ => {
            let sigma = sampler.initial_sigma() as f32;
            x.iter_mut().for_each(|x| *x *= sigma);
        }
    }
    Trajectory::new(inpaint, |model| sampler.sample(x, noise, model))
}
