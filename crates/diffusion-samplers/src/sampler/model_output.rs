//! Evaluates the network at one point and converts its output to x̂_0, ε̂ or a derivative.
//!
//! A converted output is not stored. It is a function of one value of the state and one of the network's output, and
//! each update computes it in its own loop. Thus each value is read and written once.

use super::node::Node;
use super::thresholding::{Thresholding, quantile_of};
use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::AffinePrediction;
use crate::simd::{Divisor, clamp, update};
use crate::trajectory::{ModelHandle, Output};

/// The form of the network's output that an update formula takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputForm {
    /// x̂_0.
    X0,
    /// ε̂.
    Epsilon,
    /// dx/dσ = (x − x̂_0)/σ of the probability-flow ODE in σ (Karras et al. 2022, eq. 3).
    Derivative,
    /// The network's output itself.
    Raw,
}

/// The network with the thresholding of one sampling run.
pub(crate) struct ModelEvaluator {
    model: ModelHandle,
    thresholding: Thresholding,
    /// The last output. It is dropped before the next evaluation, which reuses its buffer.
    output: Option<Output>,
    /// x̂_0 for a preview, and magnitudes for dynamic thresholding; allocated when first used.
    scratch: Vec<f32>,
}

/// The network's output at one point.
pub(crate) struct Evaluation<'a> {
    /// x̂_0 after thresholding.
    pub(crate) x0: Prediction<'a>,
    /// ε̂ before thresholding.
    epsilon: AffinePrediction,
    /// The outputs beyond the sample's length, which predict variances.
    pub(crate) variances: &'a [f32],
}

/// A converted output: a function of one value of the state and one of the network's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prediction<'a> {
    form: Form,
    output: &'a [f32],
}

/// The formula of a prediction. Each has loops of its own, because a branch per value costs as much as the
/// arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// `output`·F / `divisor`.
    Output { output: f32, divisor: Divisor },
    /// `x`·x + `output`·F.
    Sum { x: f32, output: f32 },
    /// (`x`·x + `output`·F) / `divisor`.
    Quotient { x: f32, output: f32, divisor: Divisor },
    /// clip((`x`·x + `output`·F) / `divisor`, ±`range`) / `scale`.
    Clipped { x: f32, output: f32, divisor: Divisor, range: f32, scale: Divisor },
    /// (x − (`x`·x + `output`·F)) / `sigma`.
    Derivative { x: f32, output: f32, sigma: Divisor },
    /// (x − `alpha`·x̂_0) / `sigma` with x̂_0 as in `Clipped`.
    Epsilon { x: f32, output: f32, divisor: Divisor, range: f32, scale: Divisor, alpha: f32, sigma: Divisor },
}

impl ModelEvaluator {
    pub(crate) fn new(model: ModelHandle, thresholding: Thresholding) -> Self {
        Self { model, thresholding, output: None, scratch: Vec::new() }
    }

    /// Evaluates the network.
    pub(crate) async fn evaluate(&mut self, x: &mut Vec<f32>, node: &Node) -> Evaluation<'_> {
        self.model.blend_known(x, node.level);
        self.output = None;
        let output = self.output.insert(self.model.predict(x, node.input, node.t).await);
        let (output, variances) = output.split_at(x.len());
        let x0 = Prediction::with_thresholding(self.thresholding, node.x0, x, output, &mut self.scratch);
        if self.model.preview_enabled() {
            self.scratch.resize(x.len(), 0.0);
            x0.write(x, &mut self.scratch);
            self.model.preview(&self.scratch);
        }
        Evaluation { x0, epsilon: node.epsilon, variances }
    }

    /// Evaluates the network and converts its output.
    pub(crate) async fn predict(
        &mut self,
        form: OutputForm,
        x: &mut Vec<f32>,
        node: &Node,
    ) -> Prediction<'_> {
        let thresholding = self.thresholding;
        let Evaluation { x0, epsilon, .. } = self.evaluate(x, node).await;
        match form {
            OutputForm::X0 => x0,
            OutputForm::Raw => Prediction::from_output(x0.output),
            OutputForm::Epsilon if thresholding == Thresholding::None => {
                Prediction::from_affine(epsilon, x0.output)
            }
            OutputForm::Epsilon => x0.to_epsilon(node.level),
            OutputForm::Derivative => x0.to_epsilon(NoiseLevel { alpha: 1.0, ..node.level }),
        }
    }
}

impl Evaluation<'_> {
    /// x ← f(x̂_0, ε̂) + s·z, in one pass over the sample; `noise` is (s, z).
    pub(crate) fn step(self, x: &mut [f32], noise: Option<(f64, &[f32])>, f: impl Fn(f32, f32) -> f32) {
        let Prediction { form, output } = self.x0;
        if self.epsilon == AffinePrediction::new(0.0, 1.0) {
            return form.run(UpdatePass { x, output, noise, f: move |_, x0, epsilon| f(x0, epsilon) });
        }
        let (on_state, on_output) = (self.epsilon.x as f32, self.epsilon.output as f32);
        let divisor = Divisor::new(self.epsilon.divisor);
        let epsilon = move |x: f32, output: f32| divisor.divide(on_state * x + on_output * output);
        form.run(UpdatePass { x, output, noise, f: move |x, x0, output| f(x0, epsilon(x, output)) });
    }
}

impl<'a> Prediction<'a> {
    /// The network's output itself.
    fn from_output(output: &'a [f32]) -> Self {
        Self::from_affine(AffinePrediction::new(0.0, 1.0), output)
    }

    /// An affine function of the state and the output.
    pub(crate) fn from_affine(affine: AffinePrediction, output: &'a [f32]) -> Self {
        let (x, factor, divisor) = (affine.x as f32, affine.output as f32, Divisor::new(affine.divisor));
        let form = match (x == 0.0, divisor.is_one()) {
            // 0·x would be NaN for an infinite x, on which the prediction does not depend.
            (true, _) => Form::Output { output: factor, divisor },
            (false, true) => Form::Sum { x, output: factor },
            (false, false) => Form::Quotient { x, output: factor, divisor },
        };
        Self { form, output }
    }

    /// The same, clipped to ±`range` and then divided by `scale`.
    pub(crate) fn with_clipping(affine: AffinePrediction, range: f32, scale: f32, output: &'a [f32]) -> Self {
        let (x, factor, divisor) = (affine.x as f32, affine.output as f32, Divisor::new(affine.divisor));
        let scale = Divisor::new(f64::from(scale));
        Self { form: Form::Clipped { x, output: factor, divisor, range, scale }, output }
    }

    /// The prediction of x̂_0, bounded. `scratch` holds the magnitudes of which a quantile is taken.
    fn with_thresholding(
        thresholding: Thresholding,
        x0: AffinePrediction,
        x: &[f32],
        output: &'a [f32],
        scratch: &mut Vec<f32>,
    ) -> Self {
        let unbounded = Self::from_affine(x0, output);
        match thresholding {
            Thresholding::None => unbounded,
            Thresholding::Clip(range) => Self::with_clipping(x0, range, 1.0, output),
            Thresholding::Dynamic { quantile, max } => {
                scratch.resize(x.len(), 0.0);
                unbounded.map(x, scratch, |_, x0| x0.abs());
                let s = quantile_of(scratch, quantile).max(1.0).min(max);
                Self::with_clipping(x0, s, s, output)
            }
        }
    }

    /// ε̂ = (x − α·x̂_0)/σ, if this is x̂_0.
    fn to_epsilon(self, level: NoiseLevel) -> Self {
        Self { form: self.form.to_epsilon(level), ..self }
    }

    /// x ← f(x, prediction) + s·z, in one pass over the sample; `noise` is (s, z).
    pub(crate) fn step(self, x: &mut [f32], noise: Option<(f64, &[f32])>, f: impl Fn(f32, f32) -> f32) {
        let output = self.output;
        self.form.run(UpdatePass { x, output, noise, f: move |x, prediction, _| f(x, prediction) });
    }

    /// values ← f(x, prediction), in one pass over the sample.
    pub(crate) fn map(self, x: &[f32], values: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        self.form.run(MapPass { x, output: self.output, values, f });
    }

    /// Writes the predicted values.
    pub(crate) fn write(self, x: &[f32], values: &mut [f32]) {
        self.map(x, values, |_, prediction| prediction);
    }
}

/// A loop over a sample, compiled once for each form of a prediction.
trait Pass {
    /// Runs the loop. `prediction` is a function of the state and the output.
    fn run(self, prediction: impl Fn(f32, f32) -> f32);
}

/// Replaces the state by a function of itself, the prediction and the output.
struct UpdatePass<'a, F> {
    x: &'a mut [f32],
    output: &'a [f32],
    noise: Option<(f64, &'a [f32])>,
    f: F,
}

impl<F: Fn(f32, f32, f32) -> f32> Pass for UpdatePass<'_, F> {
    #[inline(always)]
    fn run(self, prediction: impl Fn(f32, f32) -> f32) {
        let Self { x, output, noise, f } = self;
        match noise {
            None => update(x, [output], move |x, [o]| f(x, prediction(x, o), o)),
            Some((s, z)) => {
                let s = s as f32;
                update(x, [output, z], move |x, [o, z]| f(x, prediction(x, o), o) + s * z);
            }
        }
    }
}

/// Writes a function of the state and the prediction to another buffer.
struct MapPass<'a, F> {
    x: &'a [f32],
    output: &'a [f32],
    values: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> Pass for MapPass<'_, F> {
    #[inline(always)]
    fn run(self, prediction: impl Fn(f32, f32) -> f32) {
        let Self { x, output, values, f } = self;
        update(values, [x, output], move |_, [x, o]| f(x, prediction(x, o)));
    }
}

impl Form {
    #[inline(always)]
    fn run(self, pass: impl Pass) {
        match self {
            Self::Output { output, divisor } if divisor.is_one() => pass.run(move |_, o| output * o),
            Self::Output { output, divisor } => pass.run(move |_, o| divisor.divide(output * o)),
            Self::Sum { x: a, output } => pass.run(move |x, o| a * x + output * o),
            Self::Quotient { x: a, output, divisor } => {
                pass.run(move |x, o| divisor.divide(a * x + output * o))
            }
            Self::Clipped { x: a, output, divisor, range, scale } if scale.is_one() => {
                pass.run(move |x, o| clamp(divisor.divide(a * x + output * o), range));
            }
            Self::Clipped { x: a, output, divisor, range, scale } => {
                pass.run(move |x, o| scale.divide(clamp(divisor.divide(a * x + output * o), range)));
            }
            Self::Derivative { x: a, output, sigma } => {
                pass.run(move |x, o| sigma.divide(x - (a * x + output * o)));
            }
            Self::Epsilon { x: a, output, divisor, range, scale, alpha, sigma } => pass.run(move |x, o| {
                let x0 = divisor.divide(a * x + output * o);
                sigma.divide(x - alpha * scale.divide(clamp(x0, range)))
            }),
        }
    }

    fn to_epsilon(self, NoiseLevel { alpha, sigma }: NoiseLevel) -> Self {
        let (alpha, sigma) = (alpha as f32, Divisor::new(sigma));
        let (one, unlimited) = (Divisor::new(1.0), f32::INFINITY);
        let (x, output, divisor, range, scale) = match self {
            Self::Sum { x, output } if alpha == 1.0 => return Self::Derivative { x, output, sigma },
            Self::Sum { x, output } | Self::Derivative { x, output, .. } => (x, output, one, unlimited, one),
            Self::Output { output, divisor } => (0.0, output, divisor, unlimited, one),
            Self::Quotient { x, output, divisor } => (x, output, divisor, unlimited, one),
            Self::Clipped { x, output, divisor, range, scale }
            | Self::Epsilon { x, output, divisor, range, scale, .. } => (x, output, divisor, range, scale),
        };
        Self::Epsilon { x, output, divisor, range, scale, alpha, sigma }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dynamic_thresholding_scales_what_it_clips() {
        let thresholding = Thresholding::Dynamic { quantile: 0.5, max: 10.0 };
        let bounded = |output: [f32; 3]| {
            let (x, mut x0) = ([0.0; 3], [0.0; 3]);
            let affine = AffinePrediction::new(0.0, 1.0);
            Prediction::with_thresholding(thresholding, affine, &x, &output, &mut Vec::new())
                .write(&x, &mut x0);
            x0
        };
        assert_eq!(bounded([-4.0, 2.0, 1.0]), [-1.0, 1.0, 0.5]);
        // A quantile below 1 counts as 1, which is plain clipping.
        assert_eq!(bounded([-3.0, 0.5, 0.25]), [-1.0, 0.5, 0.25]);
    }

    proptest! {
        #[test]
        fn every_form_equals_its_formula(
            values in prop::collection::vec((-3.0..3.0_f32, -3.0..3.0_f32), 1..70),
            (a, b, divisor) in (-2.0..2.0_f64, -2.0..2.0_f64, 0.5..2.0_f64),
            range in 0.1..2.0_f32,
        ) {
            let (x, output): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let clip = |value: f64| value.clamp(-f64::from(range), f64::from(range));
            let level = NoiseLevel { alpha: 0.8, sigma: 0.6 };
            let derivative = NoiseLevel { alpha: 1.0, sigma: divisor };
            let affine = |x, divisor: f64| Prediction::from_affine(AffinePrediction::new(x, b).divided_by(divisor), &output);
            let clipped = |scale| {
                Prediction::with_clipping(AffinePrediction::new(a, b).divided_by(divisor), range, scale, &output)
            };
            type ScalarFormula<'a> = &'a dyn Fn(f64, f64) -> f64;
            let forms: [(Prediction<'_>, ScalarFormula<'_>); 9] = [
                (affine(0.0, 1.0), &|_, o| b * o),
                (affine(0.0, divisor), &|_, o| b * o / divisor),
                (affine(a, 1.0), &|x, o| a * x + b * o),
                (affine(a, divisor), &|x, o| (a * x + b * o) / divisor),
                (clipped(1.0), &|x, o| clip((a * x + b * o) / divisor)),
                (clipped(range), &|x, o| clip((a * x + b * o) / divisor) / f64::from(range)),
                (affine(a, 1.0).to_epsilon(derivative), &|x, o| (x - (a * x + b * o)) / divisor),
                (affine(a, divisor).to_epsilon(level), &|x, o| (x - 0.8 * (a * x + b * o) / divisor) / 0.6),
                (clipped(range).to_epsilon(level), &|x, o| {
                    (x - 0.8 * clip((a * x + b * o) / divisor) / f64::from(range)) / 0.6
                }),
            ];
            for (prediction, formula) in forms {
                let mut written = vec![f32::NAN; x.len()];
                prediction.write(&x, &mut written);
                for ((found, x), o) in written.iter().zip(&x).zip(&output) {
                    prop_assert!((f64::from(*found) - formula(f64::from(*x), f64::from(*o))).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn a_step_equals_its_formula_of_the_written_values(
            values in prop::collection::vec((-3.0..3.0_f32, -3.0..3.0_f32, -3.0..3.0_f32), 1..70),
            (a, b, s) in (-2.0..2.0_f32, -2.0..2.0_f32, -2.0..2.0_f32),
            epsilon in prop::sample::select(vec![
                AffinePrediction::new(0.0, 1.0), AffinePrediction::new(0.7, -0.4).divided_by(1.3),
            ]),
        ) {
            let column = |of: fn(&(f32, f32, f32)) -> f32| values.iter().map(of).collect::<Vec<f32>>();
            let (x, output, z) = (column(|v| v.0), column(|v| v.1), column(|v| v.2));
            let x0 = Prediction::with_clipping(AffinePrediction::new(1.0, -0.6).divided_by(0.8), 1.0, 1.0, &output);
            let (mut x0s, mut epsilons) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            x0.write(&x, &mut x0s);
            Prediction::from_affine(epsilon, &output).write(&x, &mut epsilons);
            for noise in [None, Some((f64::from(s), &z[..]))] {
                let (mut both, mut one) = (x.clone(), x.clone());
                let evaluation = Evaluation { x0, epsilon, variances: &[] };
                evaluation.step(&mut both, noise, move |x0, epsilon| a * x0 + b * epsilon);
                x0.step(&mut one, noise, move |x, x0| a * x + b * x0);
                for i in 0..x.len() {
                    let added = |value: f32| noise.map_or(value, |(_, z)| value + s * z[i]);
                    prop_assert_eq!(both[i], added(a * x0s[i] + b * epsilons[i]));
                    prop_assert_eq!(one[i], added(a * x[i] + b * x0s[i]));
                }
            }
        }
    }
}
