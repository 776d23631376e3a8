//! What the network's answer says, x̂_0 or ε̂, as a function of a value of the state and of the answer to it. A
//! step's loop computes it on its way, so that each value is read and written but once.

use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::AffinePrediction;
use crate::simd::{Divisor, update};

/// An estimate as a function of the state and of the network's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Estimate {
    /// `output`·answer / `over`, whatever the state.
    Answer { output: f32, over: Divisor },
    /// `x`·state + `output`·answer.
    Sum { x: f32, output: f32 },
    /// (`x`·state + `output`·answer) / `over`.
    Quotient { x: f32, output: f32, over: Divisor },
    /// The same within ±`range`, divided by `shrunk`.
    Bounded { x: f32, output: f32, over: Divisor, range: f32, shrunk: Divisor },
    /// (state − (`x`·state + `output`·answer)) / `sigma`.
    Slope { x: f32, output: f32, sigma: Divisor },
    /// (state − `alpha`·x̂_0) / `sigma` of an x̂_0 as above.
    Rest { x: f32, output: f32, over: Divisor, range: f32, shrunk: Divisor, alpha: f32, sigma: Divisor },
}

/// Runs a loop in which `$estimate` is a function of a value of the state and the answer's: `with!(estimate, m =>
/// loop)`. Each form has a loop of its own, since what a loop decides at every value costs as much as its arithmetic.
macro_rules! with {
    ($estimate:expr, $m:ident => $work:expr) => {
        match $estimate {
            Estimate::Answer { output, over } if over.is_one() => {
                let $m = move |_: f32, answer: f32| output * answer;
                $work
            }
            Estimate::Answer { output, over } => {
                let $m = move |_: f32, answer: f32| over.divide(output * answer);
                $work
            }
            Estimate::Sum { x, output } => {
                let $m = move |state: f32, answer: f32| x * state + output * answer;
                $work
            }
            Estimate::Quotient { x, output, over } => {
                let $m = move |state: f32, answer: f32| over.divide(x * state + output * answer);
                $work
            }
            Estimate::Bounded { x, output, over, range, shrunk } if shrunk.is_one() => {
                let $m = move |state: f32, answer: f32| {
                    $crate::simd::clamp(over.divide(x * state + output * answer), range)
                };
                $work
            }
            Estimate::Bounded { x, output, over, range, shrunk } => {
                let $m = move |state: f32, answer: f32| {
                    let x0 = over.divide(x * state + output * answer);
                    shrunk.divide($crate::simd::clamp(x0, range))
                };
                $work
            }
            Estimate::Slope { x, output, sigma } => {
                let $m = move |state: f32, answer: f32| sigma.divide(state - (x * state + output * answer));
                $work
            }
            Estimate::Rest { x, output, over, range, shrunk, alpha, sigma } => {
                let $m = move |state: f32, answer: f32| {
                    let x0 = over.divide(x * state + output * answer);
                    sigma.divide(state - alpha * shrunk.divide($crate::simd::clamp(x0, range)))
                };
                $work
            }
        }
    };
}
pub(crate) use with;

impl Estimate {
    /// The answer itself.
    pub(crate) fn answer() -> Self {
        Self::of(AffinePrediction::new(0.0, 1.0))
    }

    /// Without a bound.
    pub(crate) fn of(linear: AffinePrediction) -> Self {
        let (x, output, over) = (linear.x as f32, linear.output as f32, Divisor::new(linear.divisor));
        match (x == 0.0, over.is_one()) {
            // Multiplying by zero would keep an infinite state; the estimate doesn't depend on it at all.
            (true, _) => Self::Answer { output, over },
            (false, true) => Self::Sum { x, output },
            (false, false) => Self::Quotient { x, output, over },
        }
    }

    /// Within ±`range`, then divided by `shrunk`.
    pub(crate) fn within(linear: AffinePrediction, range: f32, shrunk: f32) -> Self {
        let (x, output, over) = (linear.x as f32, linear.output as f32, Divisor::new(linear.divisor));
        Self::Bounded { x, output, over, range, shrunk: Divisor::new(f64::from(shrunk)) }
    }

    /// Its values; all slices have one length.
    pub(crate) fn write(self, x: &[f32], answer: &[f32], values: &mut [f32]) {
        with!(self, m => update(values, [x, answer], move |_, [x, answer]| m(x, answer)));
    }

    /// ε̂ = (x − α·x̂_0)/σ of this x̂_0.
    pub(crate) fn rest(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> Self {
        let (alpha, sigma) = (alpha as f32, Divisor::new(sigma));
        let (one, endless) = (Divisor::new(1.0), f32::INFINITY);
        let (x, output, over, range, shrunk) = match self {
            Self::Sum { x, output } if alpha == 1.0 => return Self::Slope { x, output, sigma },
            Self::Sum { x, output } | Self::Slope { x, output, .. } => (x, output, one, endless, one),
            Self::Answer { output, over } => (0.0, output, over, endless, one),
            Self::Quotient { x, output, over } => (x, output, over, endless, one),
            Self::Bounded { x, output, over, range, shrunk }
            | Self::Rest { x, output, over, range, shrunk, .. } => (x, output, over, range, shrunk),
        };
        Self::Rest { x, output, over, range, shrunk, alpha, sigma }
    }
}

/// What an evaluation says at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// x̂_0, bounded.
    pub(crate) x0: Estimate,
    /// ε̂ as it belongs to x̂_0 before that was bounded.
    pub(crate) epsilon: AffinePrediction,
}

impl Seen {
    /// x ← `x0`·x̂_0 + `epsilon`·ε̂, and `noise`·z more where there is any.
    pub(crate) fn combine(
        &self,
        x: &mut [f32],
        answer: &[f32],
        [a, b]: [f64; 2],
        noise: Option<(f64, &[f32])>,
    ) {
        let (a, b) = (a as f32, b as f32);
        let (state, output, over) = (self.epsilon.x as f32, self.epsilon.output as f32, self.epsilon.divisor);
        let over = Divisor::new(over);
        if self.epsilon == AffinePrediction::new(0.0, 1.0) {
            with!(self.x0, x0 => add(x, answer, noise, move |x, o| a * x0(x, o) + b * o));
        } else {
            with!(self.x0, x0 => add(x, answer, noise, move |x, o| {
                a * x0(x, o) + b * over.divide(state * x + output * o)
            }));
        }
    }
}

/// x ← `drift` of the state and the answer, and `noise`·z more where there is any.
#[inline(always)]
pub(crate) fn add(
    x: &mut [f32],
    answer: &[f32],
    noise: Option<(f64, &[f32])>,
    drift: impl Fn(f32, f32) -> f32,
) {
    match noise {
        None => update(x, [answer], move |x, [o]| drift(x, o)),
        Some((s, z)) => {
            let s = s as f32;
            update(x, [answer, z], move |x, [o, z]| drift(x, o) + s * z);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every form is its formula.
        #[test]
        fn every_form_is_its_formula(
            values in prop::collection::vec((-3.0..3.0_f32, -3.0..3.0_f32), 1..70),
            (x, output, over) in (-2.0..2.0_f64, -2.0..2.0_f64, 0.5..2.0_f64),
            range in 0.1..2.0_f32,
        ) {
            let (state, answer): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let linear = AffinePrediction::new(x, output).divided_by(over);
            let bounded = |value: f64| value.clamp(-f64::from(range), f64::from(range));
            type Formula<'a> = &'a dyn Fn(f64, f64) -> f64;
            let slope = Estimate::Slope { x: x as f32, output: output as f32, sigma: Divisor::new(over) };
            let level = NoiseLevel { alpha: 0.8, sigma: 0.6 };
            let forms: [(Estimate, Formula<'_>); 9] = [
                (slope, &|s, o| (s - (x * s + output * o)) / over),
                (Estimate::of(linear).rest(level), &|s, o| (s - 0.8 * (x * s + output * o) / over) / 0.6),
                (Estimate::within(linear, range, range).rest(level), &|s, o| {
                    (s - 0.8 * bounded((x * s + output * o) / over) / f64::from(range)) / 0.6
                }),
                (Estimate::of(AffinePrediction::new(0.0, output)), &|_, o| output * o),
                (Estimate::of(AffinePrediction::new(0.0, output).divided_by(over)), &|_, o| output * o / over),
                (Estimate::of(AffinePrediction::new(x, output)), &|s, o| x * s + output * o),
                (Estimate::of(linear), &|s, o| (x * s + output * o) / over),
                (Estimate::within(linear, range, 1.0), &|s, o| bounded((x * s + output * o) / over)),
                (Estimate::within(linear, range, range), &|s, o| {
                    bounded((x * s + output * o) / over) / f64::from(range)
                }),
            ];
            for (estimate, formula) in forms {
                let mut written = vec![f32::NAN; state.len()];
                estimate.write(&state, &answer, &mut written);
                for ((found, s), o) in written.iter().zip(&state).zip(&answer) {
                    prop_assert!((f64::from(*found) - formula(f64::from(*s), f64::from(*o))).abs() < 1e-5);
                }
            }
        }

        /// A combination is that of the two estimates' values, bit for bit.
        #[test]
        fn a_combination_is_that_of_the_values(
            values in prop::collection::vec((-3.0..3.0_f32, -3.0..3.0_f32, -3.0..3.0_f32), 1..70),
            weights in [-2.0..2.0_f64, -2.0..2.0_f64],
            s in -2.0..2.0_f64,
        ) {
            let state: Vec<f32> = values.iter().map(|(x, ..)| *x).collect();
            let answer: Vec<f32> = values.iter().map(|(_, o, _)| *o).collect();
            let z: Vec<f32> = values.iter().map(|(.., z)| *z).collect();
            let seen = Seen {
                x0: Estimate::within(AffinePrediction::new(1.0, -0.6).divided_by(0.8), 1.0, 1.0),
                epsilon: AffinePrediction::new(0.0, 1.0),
            };
            let (mut x0, mut epsilon) = (vec![0.0; state.len()], vec![0.0; state.len()]);
            seen.x0.write(&state, &answer, &mut x0);
            Estimate::of(seen.epsilon).write(&state, &answer, &mut epsilon);
            let [a, b] = weights.map(|w| w as f32);
            for noise in [None, Some((s, &z[..]))] {
                let mut x = state.clone();
                seen.combine(&mut x, &answer, weights, noise);
                for (i, x) in x.iter().enumerate() {
                    let drift = a * x0[i] + b * epsilon[i];
                    prop_assert_eq!(*x, noise.map_or(drift, |(s, z)| drift + s as f32 * z[i]));
                }
            }
        }
    }
}
