//! The options of one sampling run.

use std::sync::Arc;

use super::error::SamplerError;
use crate::prediction_type::PredictionType;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::trajectory::KnownRegion;

/// The options of one sampling run.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The number of steps, at least 1. A second-order step takes two evaluations.
    pub steps: usize,
    /// The scale of the noise that a stochastic step adds: 0 for none, 1 for all (η of DDIM, Song et al. 2021,
    /// eq. 16; γ of TCD; η of k-diffusion's ancestral samplers).
    pub eta: Option<f64>,
    /// The region to preserve, for RePaint.
    pub known: Option<Arc<KnownRegion>>,
    /// The part of the schedule to run.
    pub strength: Strength,
    /// The image's size in patches, for schedules that depend on it.
    pub patches: Option<Patches>,
}

/// An image as a transformer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// The number of patches.
    pub count: usize,
    /// Whether the pipeline spaces the noise levels evenly from 1 to 1/n before it shifts them.
    pub linear_sigmas: bool,
    /// Whether the shift grows with the number of patches and of steps as it was measured for FLUX.2, and not along the line
    /// of the configuration.
    pub empirical_shift: bool,
}

/// The part of the schedule to run. A run from an image (SDEdit, Meng et al. 2022) runs only the end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Strength {
    /// The whole schedule.
    #[default]
    Full,
    /// This number of steps at the end of the whole schedule.
    LastSteps(usize),
    /// All steps, spaced over this share at the end of the schedule, as latent consistency models do.
    Rescaled(f64),
}

impl Options {
    /// Options for this number of steps over the whole schedule, with the sampler's default η.
    pub fn new(steps: usize) -> Self {
        Self { steps, eta: None, known: None, strength: Strength::Full, patches: None }
    }

    /// The number of steps that are skipped at the start of the schedule; never all of them.
    pub(super) fn skipped(&self) -> usize {
        match self.strength {
            Strength::LastSteps(steps) => self.steps - steps.clamp(1, self.steps),
            Strength::Full | Strength::Rescaled(_) => 0,
        }
    }

    /// A list with one entry per step, without the entries of the skipped steps.
    pub(super) fn without_skipped<T>(&self, mut steps: Vec<T>) -> Vec<T> {
        steps.drain(..self.skipped().min(steps.len()));
        steps
    }

    /// The number of steps, checked against the sampler's maximum.
    pub(super) fn steps_up_to(&self, max: usize, name: &'static str) -> Result<usize, SamplerError> {
        let steps = self.steps;
        (1..=max).contains(&steps).then_some(steps).ok_or(SamplerError::Steps {
            steps,
            max,
            name: name.to_owned(),
        })
    }

    /// η between 0 and 1, with this default.
    pub(super) fn eta_or(&self, default: f64) -> Result<f64, SamplerError> {
        let eta = self.eta.unwrap_or(default);
        if (0.0..=1.0).contains(&eta) {
            return Ok(eta);
        }
        Err(SamplerError::Eta { eta, reason: "it must be between 0 and 1" })
    }

    /// Checks η for a sampler that has no such parameter. A deterministic one accepts 0.
    pub(super) fn reject_eta(&self, noise: AddedNoise) -> Result<(), SamplerError> {
        match (self.eta, noise) {
            (None, _) | (Some(0.0), AddedNoise::None) => Ok(()),
            (Some(eta), AddedNoise::None) => Err(SamplerError::Eta {
                eta,
                reason: "this sampler adds no noise; remove eta or set it to 0",
            }),
            (Some(eta), AddedNoise::Fixed) => {
                Err(SamplerError::Eta { eta, reason: "this sampler's noise can't be scaled; remove eta" })
            }
        }
    }
}

/// The noise of a sampler without the parameter η.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddedNoise {
    /// The sampler is deterministic.
    None,
    /// The sampler's noise has a fixed scale.
    Fixed,
}

impl AddedNoise {
    /// Fixed noise for a stochastic sampler.
    pub(super) fn fixed_if(stochastic: bool) -> Self {
        if stochastic { Self::Fixed } else { Self::None }
    }
}

/// Reads the key `prediction_type`, which must be one of the supported types.
pub(super) fn prediction_type(
    settings: &mut Settings,
    supported: &[PredictionType],
) -> Result<PredictionType, SettingsError> {
    let name = settings.text("prediction_type", PredictionType::Epsilon.name())?;
    PredictionType::from_name(&name).filter(|kind| supported.contains(kind)).ok_or_else(|| {
        let supported: Vec<_> = supported.iter().map(|kind| kind.name()).collect();
        let reason = format!("this sampler supports {}", supported.join(", "));
        SettingsError::refused("prediction_type", name, reason)
    })
}

/// Reads a number that must be positive.
pub(super) fn positive(settings: &mut Settings, key: &str, default: f64) -> Result<f64, SettingsError> {
    let value = settings.number(key, default)?;
    if value > 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(SettingsError::refused(key, value, "it must be more than 0 and finite"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_step_is_left_after_skipping() {
        let skipped = |strength| Options { strength, ..Options::new(5) }.skipped();
        assert_eq!([Strength::Full, Strength::Rescaled(0.2)].map(skipped), [0, 0]);
        assert_eq!([0, 1, 3, 5, 9].map(|last| skipped(Strength::LastSteps(last))), [4, 4, 2, 0, 0]);
    }

    #[test]
    fn eta_is_rejected_where_it_has_no_effect() {
        let check = |eta, noise| Options { eta, ..Options::new(5) }.reject_eta(noise).is_ok();
        assert!(check(None, AddedNoise::None) && check(None, AddedNoise::Fixed));
        assert!(check(Some(0.0), AddedNoise::None) && !check(Some(0.0), AddedNoise::Fixed));
        assert!(!check(Some(0.5), AddedNoise::None) && !check(Some(0.5), AddedNoise::Fixed));
    }
}
