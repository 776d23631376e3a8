//! Heun's second-order method on the probability-flow ODE (Karras et al. 2022, algorithm 1).

use std::sync::Arc;

use super::model_output::OutputForm;
use super::node::Node;
use super::options::{AddedNoise, Options};
use super::plan::{self, Plan};
use super::steps::sigma::{SigmaClass, SigmaSteps};
use super::thresholding::Thresholding;
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::NoiseLevel;
use crate::rng::Noise;
use crate::scheduler_settings::Settings;
use crate::simd::update;
use crate::trajectory::ModelHandle;

pub(super) const FAMILY: Family = Family::new("heun", "HeunDiscreteScheduler", build);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let class = SigmaClass::new(FAMILY.name, SigmaClass::PREDICTIONS);
    let run = SigmaSteps::from_settings(settings, options, &class)?;
    let thresholding = Thresholding::clip_from_settings(settings, false)?;
    let steps = HeunStep::from_sigmas(&run.nodes, &run.sigmas);
    Ok(Arc::new(Plan { thresholding, initial_sigma: run.initial_sigma, ..Plan::new(steps) }))
}

/// A step from σ_i to σ_{i+1}.
#[derive(Debug)]
pub(super) struct HeunStep {
    /// At σ_i.
    node: Node,
    /// At σ_{i+1}; `None` for σ_{i+1} = 0, where the derivative does not exist.
    next: Option<Node>,
    /// σ_{i+1} − σ_i.
    dt: f64,
}

impl HeunStep {
    /// The steps along these σ, of which the last has no node.
    pub(super) fn from_sigmas(nodes: &[Node], sigmas: &[f64]) -> Vec<Self> {
        let pairs = nodes.iter().zip(sigmas.windows(2)).enumerate();
        pairs
            .map(|(i, (node, pair))| Self {
                node: *node,
                next: nodes.get(i + 1).copied(),
                dt: pair[1] - pair[0],
            })
            .collect()
    }
}

impl plan::Step for HeunStep {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn evaluations(&self) -> usize {
        1 + usize::from(self.next.is_some())
    }

    fn is_finite(&self) -> bool {
        self.dt.is_finite()
    }

    async fn sample(plan: Arc<Plan<Self>>, mut x: Vec<f32>, _: Noise, model: ModelHandle) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let (mut d, mut d_next, mut x_next) = (x.clone(), x.clone(), x.clone());
        for HeunStep { node, next, dt } in &plan.steps {
            let dt = *dt as f32;
            evaluator.predict(OutputForm::Derivative, &mut x, node).await.write(&x, &mut d); // line 4
            let Some(next) = next else {
                update(&mut x, [&d], move |x, [d]| x + dt * d); // line 5
                continue;
            };
            update(&mut x_next, [&x, &d], move |_, [x, d]| x + dt * d); // line 5
            evaluator.predict(OutputForm::Derivative, &mut x_next, next).await.write(&x_next, &mut d_next); // line 7
            update(&mut x, [&d, &d_next], move |x, [d, d_next]| x + dt * ((d + d_next) / 2.0)); // line 8
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_type::PredictionType::Epsilon;

    #[test]
    fn steps_are_those_of_the_algorithm() {
        let sigmas = [3.0, 1.0, 0.0];
        let nodes = [3.0, 1.0].map(|sigma| Node::with_unscaled_signal(sigma, sigma, Epsilon));
        let plan = Plan::new(HeunStep::from_sigmas(&nodes, &sigmas));
        // The network's output is the derivative: here that of dx/dσ = x·σ, whose input is x/√(σ² + 1).
        let derivative = |x: f64, sigma: f64| x * sigma;
        let network = |input: f32, sigma: f64| derivative(f64::from(input) * sigma.hypot(1.0), sigma) as f32;
        let found = plan::testing::sample(plan, 0.5, &[], network);
        let (d, dt) = (derivative(0.5, 3.0), -2.0);
        let d_next = derivative(0.5 + dt * d, 1.0);
        let x = 0.5 + dt * (d + d_next) / 2.0;
        let expected = x - derivative(x, 1.0);
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} and {expected}");
    }
}
