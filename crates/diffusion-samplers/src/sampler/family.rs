//! What a family of samplers is, and what each of them shares.

use std::sync::Arc;

use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::PredictionType;
use crate::rng::Noise;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::trajectory::{KnownRegion, ModelHandle, SampleFuture};

/// Reads settings into a sampler with its plan.
pub type Build = fn(&mut Settings, &Options) -> Result<Arc<dyn Sampler>, SamplerError>;

/// How a family is called and made.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name that people type.
    pub name: &'static str,
    /// The class's name in scheduler_config.json.
    pub class: &'static str,
    /// What its network is told in place of a time.
    pub time: TimeConditioning,
    /// Further names, each with the keys that it implies.
    pub presets: &'static [Preset],
    /// Whether it takes the known region of an inpainting job by itself ([`Options::known`]).
    pub inpaints: bool,
    /// Read the settings into a sampler with its plan.
    pub build: Build,
}

/// What a network is told beside the state; one that was trained on one can't be told another.
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
            Self::Step => "the time steps of a noise schedule",
            Self::Path => "the time steps of flow matching",
            Self::Angle => "an angle",
            Self::LogSigma => "EDM's c_noise",
            Self::Consistency => "a consistency model's time",
            Self::Sigma => "the noise level sigma",
            Self::Index => "the index of a noise level",
        })
    }
}

/// A name that implies some keys of its family's class.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// The name that people type.
    pub name: &'static str,
    /// What it implies.
    pub keys: &'static [(&'static str, PresetValue)],
}

/// A value that a name implies.
#[derive(Debug, Clone, Copy)]
pub enum PresetValue {
    /// A word.
    Text(&'static str),
    /// A number.
    Number(f64),
}

/// What a job says about its sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How many steps, at least 1. A second-order step takes two evaluations.
    pub steps: usize,
    /// How much noise a stochastic step adds: 0 is none, 1 the whole of it (η of DDIM,
    /// Song et al. 2021, eq. 16; γ of TCD; η of k-diffusion's ancestral samplers).
    pub eta: Option<f64>,
    /// The part of the sample that is known, for RePaint.
    pub known: Option<Arc<KnownRegion>>,
    /// Which part of the way is gone.
    pub strength: Strength,
    /// What of a picture's size a schedule may follow.
    pub patches: Option<Patches>,
}

/// A picture as a transformer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// How many patches it has.
    pub count: usize,
    /// Whether the pipeline lays the levels evenly from 1 to 1/n before they are shifted.
    pub even: bool,
}

/// Which part of the way from noise to sample is gone; what begins at an image goes but its end
/// (SDEdit, Meng et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Strength {
    /// All of it.
    #[default]
    Full,
    /// Of the steps over the whole way, so many at the end.
    LastSteps(usize),
    /// All steps, laid over this share of the way at the end, as latent consistency models do it.
    Rescaled(f64),
}

/// An update rule with its plan of time steps and coefficients.
pub trait Sampler: Send + Sync {
    /// How often the network is evaluated (NFE).
    fn evaluations(&self) -> usize;

    /// The standard deviation of the state at the walk's start.
    fn initial_sigma(&self) -> f64 {
        1.0
    }

    /// How often noise is drawn on the way, the initial state aside.
    fn draws(&self) -> usize {
        0
    }

    /// Whether every weight of its plan is a number; a configuration can make it otherwise.
    fn is_finite(&self) -> bool {
        true
    }

    /// Where the walk begins, for one that can begin at an image: at α·x_0 + σ·ε.
    fn start(&self) -> Option<NoiseLevel> {
        None
    }

    /// How many values the network gives for each of the sample's.
    fn outputs_per_value(&self) -> usize {
        1
    }

    /// Walk from `x`, already scaled by the initial sigma, to the sample.
    fn sample(self: Arc<Self>, x: Vec<f32>, noise: Noise, net: ModelHandle) -> SampleFuture;
}

/// A sampler that can't be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SamplerError {
    /// No family has this name.
    #[error("there is no sampler named {name:?}; there are: {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// The configuration names a class that no family has.
    #[error("_class_name {class:?} is not supported; supported classes: {}", known.join(", "))]
    UnknownClass {
        /// The class.
        class: String,
        /// The classes that there are.
        known: Vec<&'static str>,
    },
    /// A key of the scheduler's configuration.
    #[error(transparent)]
    Setting(#[from] SettingsError),
    /// More steps than the schedule has, or none.
    #[error("steps is {steps}, but {name} takes 1 to {most} steps here")]
    Steps {
        /// As asked for.
        steps: usize,
        /// The most that the schedule allows.
        most: usize,
        /// The sampler.
        name: String,
    },
    /// Weights of the plan are no numbers.
    #[error(
        "{name}: with this configuration and {steps} steps a step's weights are not finite (two noise levels coincide, or one is 0)"
    )]
    NotFinite {
        /// The sampler.
        name: String,
        /// The number of steps.
        steps: usize,
    },
    /// The bundle's network is told another kind of time.
    #[error("{name} tells the network {told}, but this bundle's {class} tells it {expected}")]
    Time {
        /// The sampler.
        name: String,
        /// What it tells.
        told: TimeConditioning,
        /// The bundle's class.
        class: String,
        /// What that class tells.
        expected: TimeConditioning,
    },
    /// A part of the way for a sampler that goes it whole or not at all.
    #[error("{name} can't begin at an image, nor go a part of the way; euler, ddim and dpmpp_2m can")]
    Whole {
        /// The sampler.
        name: String,
    },
    /// A suffix of a name that the sampler has no noise levels for.
    #[error("{name} has no {suffix} noise levels")]
    Suffix {
        /// The sampler.
        name: &'static str,
        /// The suffix.
        suffix: &'static str,
    },
    /// η for a sampler that has none, or out of range.
    #[error("eta is {eta}, but {reason}")]
    Eta {
        /// As asked for.
        eta: f64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The key `prediction_type`, for a family that serves these kinds.
pub(super) fn prediction_type(
    settings: &mut Settings,
    served: &[PredictionType],
) -> Result<PredictionType, SettingsError> {
    let name = settings.text("prediction_type", PredictionType::Epsilon.name())?;
    PredictionType::from_name(&name).filter(|kind| served.contains(kind)).ok_or_else(|| {
        let served: Vec<_> = served.iter().map(|kind| kind.name()).collect();
        let reason = format!("this sampler serves {}", served.join(", "));
        SettingsError::refused("prediction_type", name, reason)
    })
}

impl Options {
    /// This many steps and nothing else.
    pub fn of_steps(steps: usize) -> Self {
        Self { steps, eta: None, known: None, strength: Strength::Full, patches: None }
    }

    /// How many of the steps are left out at the beginning: never all.
    pub(super) fn skipped(&self) -> usize {
        match self.strength {
            Strength::LastSteps(steps) => self.steps - steps.clamp(1, self.steps),
            Strength::Full | Strength::Rescaled(_) => 0,
        }
    }

    /// What is left of a list of the way's places when the first ones are left out.
    pub(super) fn rest<T>(&self, mut places: Vec<T>) -> Vec<T> {
        places.drain(..self.skipped().min(places.len()));
        places
    }

    pub(super) fn steps_up_to(&self, most: usize, name: &'static str) -> Result<usize, SamplerError> {
        let steps = self.steps;
        (1..=most).contains(&steps).then_some(steps).ok_or(SamplerError::Steps {
            steps,
            most,
            name: name.to_owned(),
        })
    }

    /// η between 0 and 1, with this default.
    pub(super) fn eta_or(&self, default: f64) -> Result<f64, SamplerError> {
        let eta = self.eta.unwrap_or(default);
        if (0.0..=1.0).contains(&eta) {
            return Ok(eta);
        }
        Err(SamplerError::Eta { eta, reason: "it must lie between 0 and 1" })
    }

    /// For a sampler whose noise has no η.
    pub(super) fn without_eta(&self) -> Result<(), SamplerError> {
        self.eta.map_or(Ok(()), |eta| {
            Err(SamplerError::Eta { eta, reason: "this sampler's noise can't be turned down" })
        })
    }

    /// For a sampler that adds no noise: η = 0 is what it does anyway.
    pub(super) fn deterministic(&self) -> Result<(), SamplerError> {
        match self.eta {
            None | Some(0.0) => Ok(()),
            Some(eta) => Err(SamplerError::Eta { eta, reason: "this sampler adds no noise" }),
        }
    }
}

impl Family {
    /// A family of one name.
    pub(super) const fn new(name: &'static str, class: &'static str, build: Build) -> Self {
        Self { name, class, time: TimeConditioning::Step, presets: &[], inpaints: false, build }
    }

    /// The same, with inpainting of its own.
    pub(super) const fn inpainting(self) -> Self {
        Self { inpaints: true, ..self }
    }

    /// The same for networks that are told this.
    pub(super) const fn told(self, time: TimeConditioning) -> Self {
        Self { time, ..self }
    }
}
