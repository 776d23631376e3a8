//! DPM-Solver-2 in σ with the midpoint at the geometric mean, and its ancestral form: diffusers' KDPM2 classes and
//! k-diffusion's `sample_dpm_2` (Lu et al. 2022a; Karras et al. 2022, algorithm 2).

use std::sync::Arc;

use super::euler::Ancestral;
use super::model_output::OutputForm;
use super::multistep::weighted_sum;
use super::node::Node;
use super::options::{AddedNoise, Options};
use super::plan::{self, Plan};
use super::steps::k_diffusion::KDiffusionSteps;
use super::steps::sigma::{SigmaClass, SigmaSteps};
use super::{Family, Sampler, SamplerError};
use crate::noise_schedule::{NoiseLevel, round};
use crate::rng::Noise;
use crate::scheduler_settings::Settings;
use crate::simd::update;
use crate::trajectory::ModelHandle;

pub(super) const DPM_2: Family = Family::new("dpm_2", "KDPM2DiscreteScheduler", |settings, options| {
    options.reject_eta(AddedNoise::None)?;
    diffusers(settings, options, "dpm_2", None)
});
pub(super) const ANCESTRAL: Family =
    Family::new("dpm_2_a", "KDPM2AncestralDiscreteScheduler", |settings, options| {
        diffusers(settings, options, "dpm_2_a", Some(options.eta_or(1.0)?))
    });
pub(super) const K_DPM_2: Family = Family::new("k_dpm_2", "sample_dpm_2", |settings, options| {
    options.reject_eta(AddedNoise::None)?;
    k_diffusion(settings, options, "k_dpm_2", None)
});
pub(super) const K_ANCESTRAL: Family =
    Family::new("k_dpm_2_a", "sample_dpm_2_ancestral", |settings, options| {
        k_diffusion(settings, options, "k_dpm_2_a", Some(options.eta_or(1.0)?))
    });

fn diffusers(
    settings: &mut Settings,
    options: &Options,
    name: &'static str,
    eta: Option<f64>,
) -> Result<Arc<dyn Sampler>, SamplerError> {
    let class = SigmaClass { whole_karras_timesteps: true, ..SigmaClass::new(name, SigmaClass::NO_SAMPLE) };
    let run = SigmaSteps::from_settings(settings, options, &class)?;
    let node = |sigma| run.node_between(sigma);
    let steps = run.steps().map(|(first, sigma, next)| Dpm2Step::new(first, sigma, next, eta, node));
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma, ..Plan::new(steps) }))
}

fn k_diffusion(
    settings: &mut Settings,
    options: &Options,
    name: &'static str,
    eta: Option<f64>,
) -> Result<Arc<dyn Sampler>, SamplerError> {
    let run = KDiffusionSteps::from_settings(settings, options, name)?;
    let node = |sigma| run.node(round(sigma));
    let steps = run.steps().map(|(sigma, next)| Dpm2Step::new(node(sigma), sigma, next, eta, node));
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma(), ..Plan::new(steps) }))
}

/// A step from σ to σ_down, then noise of σ_up.
#[derive(Debug)]
struct Dpm2Step {
    node: Node,
    /// σ_down − σ.
    dt: f64,
    /// `None` if σ_down is 0, which Euler's step reaches exactly.
    midpoint: Option<Midpoint>,
    /// σ_up of an ancestral step.
    noise: Option<f64>,
}

/// The second evaluation, at √(σ·σ_down).
#[derive(Debug)]
struct Midpoint {
    node: Node,
    /// √(σ·σ_down) − σ.
    dt: f64,
}

impl Dpm2Step {
    /// A step from σ to `next`; η scales the noise of an ancestral step.
    fn new(node: Node, sigma: f64, next: f64, eta: Option<f64>, node_at: impl Fn(f64) -> Node) -> Self {
        let Ancestral { down, up } = Ancestral::new(sigma, next, eta.unwrap_or(0.0));
        if down == 0.0 {
            return Self { node, dt: -sigma, midpoint: None, noise: None };
        }
        let middle = node_at(((sigma.ln() + down.ln()) / 2.0).exp());
        let midpoint = Midpoint { node: middle, dt: middle.level.sigma - node.level.sigma };
        Self { node, dt: down - sigma, midpoint: Some(midpoint), noise: eta.map(|_| up) }
    }
}

impl plan::Step for Dpm2Step {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn evaluations(&self) -> usize {
        1 + usize::from(self.midpoint.is_some())
    }

    fn draws(&self) -> usize {
        usize::from(self.noise.is_some())
    }

    fn is_finite(&self) -> bool {
        self.dt.is_finite() && self.noise.is_none_or(f64::is_finite)
    }

    /// x' = x + Δσ·d(x₂), where x₂ = x + (√(σ·σ_down) − σ)·d(x).
    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let mut z = plan.noise_buffer(x.len());
        let (mut d_2, mut x_2) = (x.clone(), x.clone());
        for step in &plan.steps {
            let dt = step.dt as f32;
            let d = evaluator.predict(OutputForm::Derivative, &mut x, &step.node).await;
            if let Some(midpoint) = &step.midpoint {
                let dt_2 = midpoint.dt as f32;
                d.map(&x, &mut x_2, move |x, d| x + dt_2 * d);
                let d = evaluator.predict(OutputForm::Derivative, &mut x_2, &midpoint.node).await;
                d.write(&x_2, &mut d_2);
                update(&mut x, [&d_2], move |x, [d]| x + dt * d);
            } else {
                d.step(&mut x, None, move |x, d| x + dt * d);
            }
            if let Some(sigma_up) = step.noise {
                noise.fill(&mut z);
                weighted_sum(&mut x, 1.0, [(sigma_up, &z[..])]);
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_type::PredictionType::Epsilon;

    #[test]
    fn an_ancestral_step_takes_the_derivative_at_the_midpoint() {
        let node = |sigma: f64| Node::with_unscaled_signal(sigma, sigma, Epsilon);
        let plan = Plan::new([Dpm2Step::new(node(8.0), 8.0, 4.0, Some(1.0), node)]);
        let derivative = |x: f64, sigma: f64| x * sigma / 10.0;
        let network = |input: f32, sigma: f64| derivative(f64::from(input) * sigma.hypot(1.0), sigma) as f32;
        let found = plan::testing::sample(plan, 0.5, &[0.7], network);
        let Ancestral { down, up } = Ancestral::new(8.0, 4.0, 1.0);
        let middle = (8.0 * down).sqrt();
        let x_2 = 0.5 + (middle - 8.0) * derivative(0.5, 8.0);
        let expected = 0.5 + (down - 8.0) * derivative(x_2, middle) + up * 0.7;
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} and {expected}");
    }
}
