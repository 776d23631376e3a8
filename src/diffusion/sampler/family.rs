//! What a family of samplers is, and what each of them shares.

use std::sync::Arc;

use crate::diffusion::noise::Noise;
use crate::diffusion::prediction::PredictionType;
use crate::diffusion::settings::{Settings, SettingsError};
use crate::diffusion::trajectory::{Net, Walk};

/// Reads settings into a sampler with its plan.
pub type Build = fn(&mut Settings, &Options) -> Result<Arc<dyn Sampler>, SamplerError>;

/// How a family is called and made.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name that people type.
    pub name: &'static str,
    /// The class's name in scheduler_config.json.
    pub class: &'static str,
    /// Read the settings into a sampler with its plan.
    pub build: Build,
}

/// What a job says about its sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many steps, at least 1. A second-order step takes two evaluations.
    pub steps: usize,
    /// η of DDIM (Song et al. 2021, eq. 16): 0 is deterministic, 1 is DDPM's noise.
    pub eta: Option<f64>,
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

    /// How many values the network gives for each of the sample's.
    fn outputs_per_value(&self) -> usize {
        1
    }

    /// Walk from `x`, already scaled by the initial sigma, to the sample.
    fn walk(self: Arc<Self>, x: Vec<f32>, noise: Noise, net: Net) -> Walk;
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
        name: &'static str,
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
    pub(super) fn steps_up_to(&self, most: usize, name: &'static str) -> Result<usize, SamplerError> {
        let steps = self.steps;
        (1..=most).contains(&steps).then_some(steps).ok_or(SamplerError::Steps { steps, most, name })
    }

    pub(super) fn without_eta(&self) -> Result<(), SamplerError> {
        self.eta.map_or(Ok(()), |eta| {
            let reason = "only ddim has an eta";
            Err(SamplerError::Eta { eta, reason })
        })
    }
}
