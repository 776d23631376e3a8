//! One place on the way from noise to sample: where the state is, what the network is told there,
//! and what its answer means.

use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::{AffinePrediction, PredictionType};
use crate::trajectory::Input;

/// A place at which the network is evaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// The time step as the network takes it.
    pub(crate) t: f64,
    /// The state is α·x_0 + σ·ε.
    pub(crate) level: NoiseLevel,
    /// What the network takes.
    pub(crate) input: Input,
    /// x̂_0 from the state and the network's output.
    pub(crate) x0: AffinePrediction,
    /// ε̂ from the state and the network's output.
    pub(crate) epsilon: AffinePrediction,
}

impl Node {
    /// The state as the network takes it, α·x_0 + σ·ε: of a variance-preserving process, or of a
    /// straight path.
    pub(crate) fn plain(t: f64, level: NoiseLevel, kind: PredictionType) -> Self {
        let x0 = kind.convert(PredictionType::Sample, level);
        let epsilon = kind.convert(PredictionType::Epsilon, level);
        Self { t, level, input: Input::State, x0, epsilon }
    }

    /// The state with its signal unscaled, x_0 + σ·ε, while the network takes the
    /// variance-preserving x/√(σ²+1) (Karras et al. 2022, table 1, column VP).
    pub(crate) fn unscaled(t: f64, sigma: f64, kind: PredictionType) -> Self {
        let preserving = NoiseLevel::from_sigma(sigma);
        let scale = preserving.alpha;
        // Applied to the state instead of to the network's input.
        let on_state = |of: AffinePrediction| {
            let (x, output) = of.coefficients();
            AffinePrediction::new(x * scale, output)
        };
        Self {
            t,
            level: NoiseLevel { alpha: 1.0, sigma },
            input: Input::Divided((sigma * sigma + 1.0).sqrt()),
            x0: on_state(kind.convert(PredictionType::Sample, preserving)),
            epsilon: on_state(kind.convert(PredictionType::Epsilon, preserving)),
        }
    }

    /// The same where σ = 0 would make ε̂ a division by nothing: it is taken as 0.
    pub(crate) fn without_noise(self) -> Self {
        let epsilon =
            if self.epsilon.divisor == 0.0 { AffinePrediction::new(0.0, 0.0) } else { self.epsilon };
        Self { epsilon, ..self }
    }

    /// The state x_0 + σ·ε, with x̂_0 = skip·x + out·F(input, t) (Karras et al. 2022, eq. 7).
    pub(crate) fn preconditioned(t: f64, sigma: f64, input: Input, x0: AffinePrediction) -> Self {
        let epsilon = AffinePrediction::new(1.0 - x0.x, -x0.output).divided_by(sigma);
        Self { t, level: NoiseLevel { alpha: 1.0, sigma }, input, x0, epsilon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the coordinates, x̂_0 and ε̂ make up the state.
        #[test]
        fn both_estimates_make_up_the_state(
            sigma in 0.01..100.0_f64,
            x in -5.0..5.0_f64,
            output in -3.0..3.0_f64,
            kind in prop::sample::select(&[
                PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction,
            ]),
        ) {
            let skip = AffinePrediction::new(0.3, 1.7);
            for point in [
                Node::plain(7.0, NoiseLevel::from_sigma(sigma), kind),
                Node::unscaled(7.0, sigma, kind),
                Node::preconditioned(7.0, sigma, Input::Scaled(0.5), skip),
            ] {
                let at = |of: AffinePrediction| (of.x * x + of.output * output) / of.divisor;
                let (x0, epsilon) = (at(point.x0), at(point.epsilon));
                let again = point.level.alpha * x0 + point.level.sigma * epsilon;
                prop_assert!((again - x).abs() < 1e-9 * (1.0 + x0.abs() + sigma));
            }
        }
    }
}
