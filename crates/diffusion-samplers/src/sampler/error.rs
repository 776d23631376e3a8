//! Why a sampler can't be built.

use super::TimeConditioning;
use crate::scheduler_settings::SettingsError;

/// The reason why a sampler can't be built.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SamplerError {
    /// No sampler has this name.
    #[error("there is no sampler named {name:?}; use one of: {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// No family has this class of scheduler.
    #[error("the class {class:?} is not supported; use one of: {}", known.join(", "))]
    UnknownClass {
        /// The class.
        class: String,
        /// The supported classes.
        known: Vec<&'static str>,
    },
    /// A key of the scheduler's configuration is invalid.
    #[error(transparent)]
    Setting(#[from] SettingsError),
    /// The number of steps is 0 or larger than the schedule.
    #[error("steps is {steps}, but {name} takes 1 to {max} steps with this model")]
    Steps {
        /// The requested number.
        steps: usize,
        /// The largest number that the schedule allows.
        max: usize,
        /// The sampler.
        name: String,
    },
    /// A coefficient is infinite or NaN.
    #[error(
        "{name}: with this configuration and {steps} steps some coefficients are not finite, because two noise \
         levels coincide or one is 0; use another number of steps or other noise levels"
    )]
    NotFinite {
        /// The sampler.
        name: String,
        /// The number of steps.
        steps: usize,
    },
    /// The bundle's network has another time conditioning.
    #[error(
        "{name} conditions the network on {found}, but the network of this bundle's {class} takes {expected}; \
         use a sampler with that conditioning"
    )]
    Time {
        /// The sampler.
        name: String,
        /// The sampler's conditioning.
        found: TimeConditioning,
        /// The bundle's class.
        class: String,
        /// The conditioning of that class.
        expected: TimeConditioning,
    },
    /// The sampler can't start from an image.
    #[error("{name} can't start from an image or run a part of its steps; use euler, ddim or dpmpp_2m")]
    NoImageStart {
        /// The sampler.
        name: String,
    },
    /// The name's suffix asks for noise levels that the sampler does not support.
    #[error("{name} does not support {suffix} noise levels; remove _{suffix}")]
    Suffix {
        /// The sampler.
        name: &'static str,
        /// The suffix.
        suffix: &'static str,
    },
    /// η is out of range, or the sampler has no such parameter.
    #[error("eta is {eta}, but {reason}")]
    Eta {
        /// The requested value.
        eta: f64,
        /// The reason and the remedy.
        reason: &'static str,
    },
}
