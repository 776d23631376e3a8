//! What a model predicts, and the conversions between predictions.
//!
//! With x_t = α·x₀ + σ·ε each prediction is a linear function of x_t and any other prediction, so that a conversion is
//! a pair of coefficients.

use super::noise_schedule::NoiseLevel;
use super::simd::update;

/// What the model predicts: `prediction_type` of diffusers' schedulers.
///
/// A model of x_t = α·x₀ + σ·ε at a [`NoiseLevel`] predicts one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PredictionType {
    /// The noise ε (Ho et al. 2020, section 3.2).
    Epsilon,
    /// The sample x₀.
    Sample,
    /// The velocity v = α·ε − σ·x₀, where α² + σ² = 1 (Salimans & Ho 2022, appendix D).
    VPrediction,
    /// The score ∇ log q(x_t) = −ε/σ (Song & Ermon 2019, section 2).
    Score,
    /// The velocity u = ε − x₀ of a straight path (Lipman et al. 2023; Liu et al. 2023).
    Flow,
}

impl PredictionType {
    /// Every prediction type.
    pub const ALL: [Self; 5] = [Self::Epsilon, Self::Sample, Self::VPrediction, Self::Score, Self::Flow];

    /// The value of `prediction_type` in scheduler_config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Sample => "sample",
            Self::VPrediction => "v_prediction",
            Self::Score => "score",
            Self::Flow => "flow_prediction",
        }
    }

    /// The prediction type with this name, or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|prediction| prediction.name() == name)
    }

    /// x₀ as a function of x_t and the model's output.
    fn to_sample(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> AffinePrediction {
        match self {
            Self::Epsilon => AffinePrediction::new(1.0, -sigma).divided_by(alpha),
            Self::Sample => AffinePrediction::new(0.0, 1.0),
            Self::VPrediction => AffinePrediction::new(alpha, -sigma),
            Self::Score => AffinePrediction::new(1.0, sigma * sigma).divided_by(alpha),
            Self::Flow => AffinePrediction::new(1.0, -sigma).divided_by(alpha + sigma),
        }
    }

    /// ε as a function of x_t and the model's output.
    fn to_epsilon(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> AffinePrediction {
        match self {
            Self::Epsilon => AffinePrediction::new(0.0, 1.0),
            Self::Sample => AffinePrediction::new(1.0, -alpha).divided_by(sigma),
            Self::VPrediction => AffinePrediction::new(sigma, alpha),
            Self::Score => AffinePrediction::new(0.0, -sigma),
            Self::Flow => AffinePrediction::new(1.0, alpha).divided_by(alpha + sigma),
        }
    }

    /// The prediction `to` as a function of x_t and of a model's output of this type.
    ///
    /// The coefficients are infinite where `to` is not defined, as ε is at σ = 0.
    ///
    /// ```
    /// use diffusion_samplers::noise_schedule::NoiseLevel;
    /// use diffusion_samplers::prediction_type::PredictionType;
    ///
    /// let level = NoiseLevel { alpha: 0.6, sigma: 0.8 };
    /// let (x0, epsilon) = (1.0, 0.5);
    /// let x_t = [0.6 * x0 + 0.8 * epsilon];
    /// let mut found = [0.0];
    /// PredictionType::Epsilon.convert(PredictionType::Sample, level).apply(&x_t, &[epsilon], &mut found);
    /// assert!((found[0] - x0).abs() < 1e-6);
    /// ```
    pub fn convert(self, to: Self, level: NoiseLevel) -> AffinePrediction {
        if self == to {
            return AffinePrediction::new(0.0, 1.0);
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

/// A linear function `(x` · x_t + `output` · output`) / divisor` of the state x_t and the model's output.
///
/// The division is separate for the sake of precision in f32: at high noise levels the two products almost cancel, and
/// their difference must be computed before the division by a small α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinePrediction {
    /// The coefficient of x_t.
    pub x: f64,
    /// The coefficient of the model's output.
    pub output: f64,
    /// The divisor of the sum.
    pub divisor: f64,
}

impl AffinePrediction {
    /// The sum `x` · x_t + `output` · output.
    pub fn new(x: f64, output: f64) -> Self {
        Self { x, output, divisor: 1.0 }
    }

    /// The same function, divided by a number.
    pub fn divided_by(self, divisor: f64) -> Self {
        Self { divisor: self.divisor * divisor, ..self }
    }

    /// The coefficients of x_t and of the output after the division.
    pub fn coefficients(self) -> (f64, f64) {
        (self.x / self.divisor, self.output / self.divisor)
    }

    fn times(self, factor: f64) -> Self {
        Self { x: self.x * factor, output: self.output * factor, divisor: self.divisor }
    }

    fn plus(self, other: Self) -> Self {
        let ((x, output), (other_x, other_output)) = (self.coefficients(), other.coefficients());
        Self::new(x + other_x, output + other_output)
    }

    /// Writes the function's value for each element to `result`.
    ///
    /// # Panics
    ///
    /// If `x` or `output` is shorter than `result`.
    pub fn apply(self, x: &[f32], output: &[f32], result: &mut [f32]) {
        let (a, b, divisor) = (self.x as f32, self.output as f32, self.divisor as f32);
        update(result, [x, output], move |_, [x, output]| (a * x + b * output) / divisor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(linear: AffinePrediction, x: f64, output: f64) -> f64 {
        (linear.x * x + linear.output * output) / linear.divisor
    }

    /// Each prediction type by its definition.
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
        assert_eq!(x0, AffinePrediction::new(0.0, -1.0));
    }
}
