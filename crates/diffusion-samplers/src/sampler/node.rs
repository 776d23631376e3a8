//! A point at which the network is evaluated.

use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::{AffinePrediction, PredictionType};
use crate::trajectory::InputScaling;

/// A point at which the network is evaluated: the state's noise level, the network's input and time step, and the
/// meaning of its output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// The network's time step.
    pub(crate) t: f64,
    /// The state is α·x_0 + σ·ε.
    pub(crate) level: NoiseLevel,
    /// The network's input as a function of the state.
    pub(crate) input: InputScaling,
    /// x̂_0 as a function of the state and the network's output.
    pub(crate) x0: AffinePrediction,
    /// ε̂ as a function of the state and the network's output.
    pub(crate) epsilon: AffinePrediction,
}

impl Node {
    /// The network's input is the state α·x_0 + σ·ε of a variance-preserving process or of a straight path.
    pub(crate) fn new(t: f64, level: NoiseLevel, kind: PredictionType) -> Self {
        let x0 = kind.convert(PredictionType::Sample, level);
        let epsilon = kind.convert(PredictionType::Epsilon, level);
        Self { t, level, input: InputScaling::State, x0, epsilon }
    }

    /// The state is x_0 + σ·ε with an unscaled signal, and the network's input is the variance-preserving
    /// x/√(σ²+1) (Karras et al. 2022, table 1, column VP).
    pub(crate) fn with_unscaled_signal(t: f64, sigma: f64, kind: PredictionType) -> Self {
        let preserving = NoiseLevel::from_sigma(sigma);
        let scale = preserving.alpha;
        // Converts a function of the network's input to a function of the state.
        let of_state = |of_input: AffinePrediction| {
            let (x, output) = of_input.coefficients();
            AffinePrediction::new(x * scale, output)
        };
        Self {
            t,
            level: NoiseLevel { alpha: 1.0, sigma },
            input: InputScaling::Divided((sigma * sigma + 1.0).sqrt()),
            x0: of_state(kind.convert(PredictionType::Sample, preserving)),
            epsilon: of_state(kind.convert(PredictionType::Epsilon, preserving)),
        }
    }

    /// The state is x_0 + σ·ε and x̂_0 = c_skip·x + c_out·F(input, t) (Karras et al. 2022, eq. 7).
    pub(crate) fn with_preconditioning(
        t: f64,
        sigma: f64,
        input: InputScaling,
        x0: AffinePrediction,
    ) -> Self {
        let epsilon = AffinePrediction::new(1.0 - x0.x, -x0.output).divided_by(sigma);
        Self { t, level: NoiseLevel { alpha: 1.0, sigma }, input, x0, epsilon }
    }

    /// Replaces ε̂ by 0 if σ = 0, where it would be 0/0.
    pub(crate) fn with_finite_epsilon(self) -> Self {
        let epsilon =
            if self.epsilon.divisor == 0.0 { AffinePrediction::new(0.0, 0.0) } else { self.epsilon };
        Self { epsilon, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn x0_and_epsilon_add_up_to_the_state(
            sigma in 0.01..100.0_f64,
            x in -5.0..5.0_f64,
            output in -3.0..3.0_f64,
            kind in prop::sample::select(&[
                PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction,
            ]),
        ) {
            let skip = AffinePrediction::new(0.3, 1.7);
            for node in [
                Node::new(7.0, NoiseLevel::from_sigma(sigma), kind),
                Node::with_unscaled_signal(7.0, sigma, kind),
                Node::with_preconditioning(7.0, sigma, InputScaling::Scaled(0.5), skip),
            ] {
                let value = |of: AffinePrediction| (of.x * x + of.output * output) / of.divisor;
                let (x0, epsilon) = (value(node.x0), value(node.epsilon));
                let sum = node.level.alpha * x0 + node.level.sigma * epsilon;
                prop_assert!((sum - x).abs() < 1e-9 * (1.0 + x0.abs() + sigma));
            }
        }
    }
}
