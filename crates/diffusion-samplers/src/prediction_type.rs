//! What a network predicts, and each kind of prediction turned into each other one.
//!
//! With x_t = α·x_0 + σ·ε every kind is a linear function of x_t and any other kind, so a
//! conversion is a pair of coefficients.

use super::noise_schedule::NoiseLevel;
use super::simd::update;

/// What the network's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PredictionType {
    /// The noise ε (Ho et al. 2020, section 3.2).
    Epsilon,
    /// The clean sample x_0.
    Sample,
    /// v = α·ε − σ·x_0, where α² + σ² = 1 (Salimans & Ho 2022, appendix D).
    VPrediction,
    /// The score ∇ log q(x_t) = −ε/σ (Song & Ermon 2019, section 2).
    Score,
    /// The velocity u = ε − x_0 of a straight path (Lipman et al. 2023; Liu et al. 2023).
    Flow,
}

impl PredictionType {
    /// Every kind, in the order of their names' introduction above.
    pub const ALL: [Self; 5] = [Self::Epsilon, Self::Sample, Self::VPrediction, Self::Score, Self::Flow];

    /// The name in scheduler_config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Sample => "sample",
            Self::VPrediction => "v_prediction",
            Self::Score => "score",
            Self::Flow => "flow_prediction",
        }
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// x_0 as a function of x_t and this kind of output.
    fn to_sample(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> AffinePrediction {
        match self {
            Self::Epsilon => AffinePrediction::of(1.0, -sigma).over(alpha),
            Self::Sample => AffinePrediction::of(0.0, 1.0),
            Self::VPrediction => AffinePrediction::of(alpha, -sigma),
            Self::Score => AffinePrediction::of(1.0, sigma * sigma).over(alpha),
            Self::Flow => AffinePrediction::of(1.0, -sigma).over(alpha + sigma),
        }
    }

    /// ε as a function of x_t and this kind of output.
    fn to_epsilon(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> AffinePrediction {
        match self {
            Self::Epsilon => AffinePrediction::of(0.0, 1.0),
            Self::Sample => AffinePrediction::of(1.0, -alpha).over(sigma),
            Self::VPrediction => AffinePrediction::of(sigma, alpha),
            Self::Score => AffinePrediction::of(0.0, -sigma),
            Self::Flow => AffinePrediction::of(1.0, alpha).over(alpha + sigma),
        }
    }

    /// The other kind of prediction as a function of x_t and this kind of output.
    ///
    /// Coefficients are infinite where the other kind is not defined (ε at σ = 0, say).
    pub fn convert(self, to: Self, level: NoiseLevel) -> AffinePrediction {
        if self == to {
            return AffinePrediction::of(0.0, 1.0);
        }
        let (x0, epsilon) = (self.to_sample(level), self.to_epsilon(level));
        match to {
            Self::Epsilon => epsilon,
            Self::Sample => x0,
            Self::VPrediction => epsilon.times(level.alpha).plus(x0.times(-level.sigma)),
            Self::Score => epsilon.times(-1.0 / level.sigma),
            Self::Flow => epsilon.plus(x0.times(-1.0)),
        }
    }
}

/// A function `(x · x_t + output · output) / over` of a state and a network's output.
///
/// The divisor stands apart because of f32: where little signal is left, state and output are almost
/// equal, and their difference must be taken before it is divided by a small α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinePrediction {
    /// The coefficient of x_t.
    pub x: f64,
    /// The coefficient of the network's output.
    pub output: f64,
    /// What the sum is divided by.
    pub over: f64,
}

impl AffinePrediction {
    /// The sum `x · x_t + output · output`.
    pub fn of(x: f64, output: f64) -> Self {
        Self { x, output, over: 1.0 }
    }

    /// The same divided by a number.
    pub fn over(self, over: f64) -> Self {
        Self { over: self.over * over, ..self }
    }

    /// The coefficients with the division carried out.
    pub fn coefficients(self) -> (f64, f64) {
        (self.x / self.over, self.output / self.over)
    }

    fn times(self, factor: f64) -> Self {
        Self { x: self.x * factor, output: self.output * factor, over: self.over }
    }

    fn plus(self, other: Self) -> Self {
        let ((x, output), (other_x, other_output)) = (self.coefficients(), other.coefficients());
        Self::of(x + other_x, output + other_output)
    }

    /// The function's values, element by element; the slices have one length.
    pub fn apply(self, x: &[f32], output: &[f32], result: &mut [f32]) {
        let (a, b, over) = (self.x as f32, self.output as f32, self.over as f32);
        update(result, [x, output], move |_, [x, output]| (a * x + b * output) / over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(linear: AffinePrediction, x: f64, output: f64) -> f64 {
        (linear.x * x + linear.output * output) / linear.over
    }

    /// Every kind written out from its definition.
    fn defined(kind: PredictionType, level: NoiseLevel, x0: f64, epsilon: f64) -> f64 {
        match kind {
            PredictionType::Epsilon => epsilon,
            PredictionType::Sample => x0,
            PredictionType::VPrediction => level.alpha * epsilon - level.sigma * x0,
            PredictionType::Score => -epsilon / level.sigma,
            PredictionType::Flow => epsilon - x0,
        }
    }

    proptest! {
        #[test]
        fn every_conversion_meets_its_definition_and_has_an_inverse(
            alpha_bar in 0.01..0.99_f64,
            x0 in -2.0..2.0_f64,
            epsilon in -3.0..3.0_f64,
        ) {
            // Both kinds of path: variance preserving, and the straight one with α = 1 − σ, on
            // which v is not defined.
            let straight = NoiseLevel { alpha: alpha_bar, sigma: 1.0 - alpha_bar };
            for (level, without) in [
                (NoiseLevel::from_alpha_bar(alpha_bar), None),
                (straight, Some(PredictionType::VPrediction)),
            ] {
                let kinds = PredictionType::ALL.into_iter().filter(|kind| Some(*kind) != without);
                let x = level.alpha * x0 + level.sigma * epsilon;
                for from in kinds.clone() {
                    for to in kinds.clone() {
                        let output = defined(from, level, x0, epsilon);
                        let there = at(from.convert(to, level), x, output);
                        prop_assert!((there - defined(to, level, x0, epsilon)).abs() < 1e-9);
                        let back = at(to.convert(from, level), x, there);
                        prop_assert!((back - output).abs() < 1e-9);
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_scheduler_configs() {
        for kind in PredictionType::ALL {
            assert_eq!(PredictionType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(PredictionType::from_name("noise"), None);
    }

    #[test]
    fn v_prediction_needs_no_signal_at_pure_noise() {
        let pure_noise = NoiseLevel::from_alpha_bar(0.0);
        let x0 = PredictionType::VPrediction.convert(PredictionType::Sample, pure_noise);
        assert_eq!(x0, AffinePrediction::of(0.0, -1.0));
    }
}
