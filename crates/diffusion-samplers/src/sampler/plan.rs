//! A sampler as a list of planned steps. Everything that can be computed from the configuration, above all the
//! coefficients, is computed when the plan is made.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use super::Sampler;
use super::model_output::{ModelEvaluator, OutputForm, Prediction};
use super::node::Node;
use super::thresholding::Thresholding;
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::trajectory::{ModelHandle, SampleFuture};

/// A step of a method, with the loop that runs a list of them.
pub(crate) trait Step: Debug + Send + Sync + Sized + 'static {
    /// The noise level of the state before the step; `None` if a run can't start there from an image.
    fn level(&self) -> Option<NoiseLevel>;

    /// The number of network evaluations.
    fn evaluations(&self) -> usize {
        1
    }

    /// The number of noise draws.
    fn draws(&self) -> usize {
        0
    }

    /// Whether every coefficient is finite.
    fn is_finite(&self) -> bool {
        true
    }

    /// Runs the plan's steps.
    fn sample(
        plan: Arc<Plan<Self>>,
        x: Vec<f32>,
        noise: Noise,
        model: ModelHandle,
    ) -> impl Future<Output = Vec<f32>> + 'static;
}

/// A sampler as a list of steps.
#[derive(Debug)]
pub(crate) struct Plan<S> {
    pub(crate) steps: Vec<S>,
    /// The form of the network's output that the steps' formulas take.
    pub(crate) form: OutputForm,
    pub(crate) thresholding: Thresholding,
    pub(crate) initial_sigma: f64,
    pub(crate) outputs_per_value: usize,
    /// The noise level at which a run from an image starts, if the sampler can do that.
    pub(crate) start: Option<NoiseLevel>,
}

impl<S: Step> Plan<S> {
    /// A plan of steps that take x̂_0 without thresholding and start from unit noise.
    pub(crate) fn new(steps: impl IntoIterator<Item = S>) -> Self {
        let steps: Vec<S> = steps.into_iter().collect();
        let start = steps.first().and_then(Step::level);
        let (form, thresholding) = (OutputForm::X0, Thresholding::None);
        Self { steps, form, thresholding, initial_sigma: 1.0, outputs_per_value: 1, start }
    }

    /// The network with the plan's thresholding.
    pub(crate) fn evaluator(&self, model: ModelHandle) -> ModelEvaluator {
        ModelEvaluator::new(model, self.thresholding)
    }

    /// A buffer for noise of a sample's length; empty if the plan draws none.
    pub(crate) fn noise_buffer(&self, len: usize) -> Vec<f32> {
        vec![0.0; if self.draws() > 0 { len } else { 0 }]
    }
}

impl<S: Step> Sampler for Plan<S> {
    fn evaluations(&self) -> usize {
        self.steps.iter().map(Step::evaluations).sum()
    }

    fn initial_sigma(&self) -> f64 {
        self.initial_sigma
    }

    fn draws(&self) -> usize {
        self.steps.iter().map(Step::draws).sum()
    }

    fn is_finite(&self) -> bool {
        self.steps.iter().all(Step::is_finite)
    }

    fn start(&self) -> Option<NoiseLevel> {
        self.start
    }

    fn outputs_per_value(&self) -> usize {
        self.outputs_per_value
    }

    fn sample(self: Arc<Self>, x: Vec<f32>, noise: Noise, model: ModelHandle) -> SampleFuture {
        Box::pin(S::sample(self, x, noise, model))
    }
}

/// The formula of a one-step method: one evaluation a step, and no memory of earlier ones.
pub(crate) trait Update: Debug + Send + Sync + 'static {
    /// The state after the step; `noise` is (s, z), whose product the formula adds.
    fn apply(&self, x: &mut [f32], prediction: Prediction<'_>, noise: Option<(f64, &[f32])>);

    /// Whether every coefficient is finite.
    fn is_finite(&self) -> bool;
}

/// A step of a one-step method.
#[derive(Debug)]
pub(crate) struct OneStep<U> {
    pub(crate) node: Node,
    pub(crate) update: U,
    /// The standard deviation of the added noise. It is drawn even if this is 0, because the references do so.
    pub(crate) noise: Option<f64>,
}

impl<U: Update> Step for OneStep<U> {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn draws(&self) -> usize {
        usize::from(self.noise.is_some())
    }

    fn is_finite(&self) -> bool {
        self.update.is_finite() && self.noise.is_none_or(f64::is_finite)
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut z = plan.noise_buffer(x.len());
        for step in &plan.steps {
            let prediction = evaluator.predict(plan.form, &mut x, &step.node).await;
            let noise = step.noise.map(|s| {
                noise.fill(&mut z);
                (s, &z[..])
            });
            step.update.apply(&mut x, prediction, noise);
        }
        x
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use crate::rng::Recorded;
    use crate::sampler::{InitialState, Sampler, start};

    /// Samples from the state `x`, with these noise draws, on a network of one value.
    pub(crate) fn sample(
        sampler: impl Sampler + 'static,
        x: f32,
        draws: &[f32],
        network: impl Fn(f32, f64) -> f32,
    ) -> f32 {
        let (noise, missing) = Recorded::new(draws.iter().map(|z| vec![*z]).collect());
        let trajectory = start(Arc::new(sampler), InitialState::from_noise(vec![x]), Box::new(noise));
        let sample = trajectory.run_to_end(|input, t| vec![network(input[0], t)]);
        assert_eq!(missing.get(), 0);
        sample[0]
    }
}
