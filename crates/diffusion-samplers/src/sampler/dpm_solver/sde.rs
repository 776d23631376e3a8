//! The stochastic DPM-Solver++ methods of k-diffusion: SDE, 2S ancestral, 2M SDE and 3M SDE (Lu et al. 2022b; Crowson,
//! k-diffusion), in σ with t = −log σ.

use std::sync::Arc;

use crate::noise_schedule::{NoiseLevel, round};
use crate::rng::Noise;
use crate::sampler::euler::Ancestral;
use crate::sampler::model_output::OutputForm;
use crate::sampler::multistep::{MAX_HISTORY, MultistepStep, WeightedSum, weighted_sum};
use crate::sampler::node::Node;
use crate::sampler::options::Options;
use crate::sampler::plan::{self, Plan};
use crate::sampler::steps::k_diffusion::KDiffusionSteps;
use crate::sampler::steps::sigma::{SigmaClass, SigmaSteps};
use crate::sampler::{Family, Sampler, SamplerError};
use crate::scheduler_settings::Settings;
use crate::trajectory::ModelHandle;

pub(crate) const DPMPP_SDE: Family = Family::new("dpmpp_sde", "DPMSolverSDEScheduler", dpmpp_sde);
pub(crate) const K_DPMPP_SDE: Family = Family::new("k_dpmpp_sde", "sample_dpmpp_sde", k_dpmpp_sde);
pub(crate) const DPMPP_2S_ANCESTRAL: Family =
    Family::new("dpmpp_2s_a", "sample_dpmpp_2s_ancestral", dpmpp_2s_ancestral);
pub(crate) const K_DPMPP_2M_SDE: Family = Family::new("k_dpmpp_2m_sde", "sample_dpmpp_2m_sde", dpmpp_2m_sde);
pub(crate) const DPMPP_3M_SDE: Family = Family::new("dpmpp_3m_sde", "sample_dpmpp_3m_sde", dpmpp_3m_sde);

/// A step from σ to σ' by two evaluations (Lu et al. 2022b, algorithm 1):
/// x₂ = r₂·x + (1 − r₂)·x̂_0(x) + s₂·z₂, then x' = r·x + (1 − r)·x̂_0(x₂) + s·z.
#[derive(Debug)]
struct SdeStep {
    node: Node,
    /// `None` if σ' is 0, where x' = x̂_0(x).
    second_order: Option<SecondOrder>,
}

#[derive(Debug)]
struct SecondOrder {
    /// The point at which x₂ is evaluated.
    midpoint: Node,
    /// r₂ = σ₂_down/σ.
    midpoint_ratio: f64,
    /// s₂, if the midpoint has noise.
    midpoint_noise: Option<f64>,
    /// r = σ_down/σ.
    ratio: f64,
    /// s.
    noise: f64,
    /// The correlation of z with z₂, if both are increments of one Brownian motion.
    noise_correlation: f64,
}

impl plan::Step for SdeStep {
    fn level(&self) -> Option<NoiseLevel> {
        Some(self.node.level)
    }

    fn evaluations(&self) -> usize {
        1 + usize::from(self.second_order.is_some())
    }

    fn draws(&self) -> usize {
        self.second_order.as_ref().map_or(0, |step| 1 + usize::from(step.midpoint_noise.is_some()))
    }

    fn is_finite(&self) -> bool {
        self.second_order.as_ref().is_none_or(|step| {
            [step.midpoint_ratio, step.ratio, step.noise, step.noise_correlation]
                .iter()
                .all(|c| c.is_finite())
        })
    }

    async fn sample(
        plan: Arc<Plan<Self>>,
        mut x: Vec<f32>,
        mut noise: Noise,
        model: ModelHandle,
    ) -> Vec<f32> {
        let mut evaluator = plan.evaluator(model);
        let (mut x_2, mut x0) = (x.clone(), x.clone());
        let (mut z, mut z_2) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for step in &plan.steps {
            let first = evaluator.predict(OutputForm::X0, &mut x, &step.node).await;
            let Some(step) = &step.second_order else {
                first.step(&mut x, None, |_, x0| x0);
                continue;
            };
            let (r, w) = (step.midpoint_ratio as f32, (1.0 - step.midpoint_ratio) as f32);
            first.map(&x, &mut x_2, move |x, x0| r * x + w * x0);
            if let Some(s) = step.midpoint_noise {
                noise.fill(&mut z_2);
                weighted_sum(&mut x_2, 1.0, [(s, &z_2[..])]);
            }
            evaluator.predict(OutputForm::X0, &mut x_2, &step.midpoint).await.write(&x_2, &mut x0);
            noise.fill_correlated(step.noise_correlation, &z_2, &mut z);
            weighted_sum(&mut x, step.ratio, [(1.0 - step.ratio, &x0[..]), (step.noise, &z[..])]);
        }
        x
    }
}

impl SdeStep {
    /// DPM-Solver++ (SDE) with the midpoint halfway in t, and noise up to the midpoint and up to σ'.
    fn new_sde(node: Node, sigma: f64, next: f64, eta: f64, node_at: impl Fn(f64) -> Node) -> Self {
        if next == 0.0 {
            return Self { node, second_order: None };
        }
        let midpoint = node_at((sigma * next).sqrt());
        let to_midpoint = Ancestral::new(sigma, midpoint.level.sigma, eta);
        let to_next = Ancestral::new(sigma, next, eta);
        let second_order = SecondOrder {
            midpoint,
            midpoint_ratio: to_midpoint.down / sigma,
            midpoint_noise: Some(to_midpoint.up),
            ratio: to_next.down / sigma,
            noise: to_next.up,
            // Both draws are increments of one Brownian motion in σ that start at the same σ.
            noise_correlation: ((sigma - midpoint.level.sigma) / (sigma - next)).sqrt(),
        };
        Self { node, second_order: Some(second_order) }
    }

    /// DPM-Solver++(2S) from σ to σ_down with the midpoint halfway in t, then noise up to σ'.
    fn new_2s_ancestral(node: Node, sigma: f64, next: f64, eta: f64, node_at: impl Fn(f64) -> Node) -> Self {
        let Ancestral { down, up } = Ancestral::new(sigma, next, eta);
        if down == 0.0 {
            return Self { node, second_order: None };
        }
        let midpoint = (sigma * down).sqrt();
        let second_order = SecondOrder {
            midpoint: node_at(midpoint),
            midpoint_ratio: midpoint / sigma,
            midpoint_noise: None,
            ratio: down / sigma,
            noise: up,
            noise_correlation: 0.0,
        };
        Self { node, second_order: Some(second_order) }
    }
}

fn dpmpp_sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let class = SigmaClass::new(DPMPP_SDE.name, SigmaClass::NO_SAMPLE);
    let run = SigmaSteps::from_settings(settings, options, &class)?;
    // The seed of the reference's own generator, a tree of Brownian motion. Here an image's seed, or a file, gives all
    // of its noise.
    settings.ignore_keys(&["noise_sampler_seed"]);
    let node = |sigma| run.node_between(sigma);
    let steps = run.steps().map(|(first, sigma, next)| SdeStep::new_sde(first, sigma, next, eta, node));
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma, ..Plan::new(steps) }))
}

fn k_dpmpp_sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let run = KDiffusionSteps::from_settings(settings, options, K_DPMPP_SDE.name)?;
    let node = |sigma| run.node(round(sigma));
    let steps = run.steps().map(|(sigma, next)| SdeStep::new_sde(node(sigma), sigma, next, eta, node));
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma(), ..Plan::new(steps) }))
}

fn dpmpp_2s_ancestral(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let run = KDiffusionSteps::from_settings(settings, options, DPMPP_2S_ANCESTRAL.name)?;
    let node = |sigma| run.node(round(sigma));
    let steps =
        run.steps().map(|(sigma, next)| SdeStep::new_2s_ancestral(run.node(sigma), sigma, next, eta, node));
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma(), ..Plan::new(steps) }))
}

/// 2M SDE: the first-order step plus c·(h/h₁)·(m_0 − m_1), with c = ½(1 − e^{−h(1+η)}) (midpoint) or
/// c = 1 − (1 − e^{−h(1+η)})/(h(1+η)) (Heun).
fn dpmpp_2m_sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let heun = settings.choice("solver_type", "midpoint", &["midpoint", "heun"])? == "heun";
    multistep_sde(settings, options, K_DPMPP_2M_SDE.name, eta, |weights, h, previous| {
        let Some([h_1, _]) = previous else { return };
        let h_eta = h + eta * h;
        let whole = -(-h_eta).exp_m1();
        let c = if heun { whole / -h_eta + 1.0 } else { 0.5 * whole };
        let weight = c * h / h_1;
        weights[0] += weight;
        weights[1] -= weight;
    })
}

/// 3M SDE: the first-order step plus φ₂·D_1 − φ₃·D_2, where D_1 and D_2 follow from the divided differences
/// (m_0 − m_1)/r_0 and (m_1 − m_2)/r_1.
fn dpmpp_3m_sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    multistep_sde(settings, options, DPMPP_3M_SDE.name, eta, |weights, h, previous| {
        let Some([h_1, h_2]) = previous else { return };
        let h_eta = h * (eta + 1.0);
        let phi_2 = (-h_eta).exp_m1() / h_eta + 1.0;
        let phi_3 = phi_2 / h_eta - 0.5;
        // The weights of both divided differences.
        let r0 = h_1 / h;
        let (d1_0, d1_1) = if h_2 > 0.0 {
            let r1 = h_2 / h;
            let second = (phi_2 * r0 - phi_3) / (r0 + r1);
            ((phi_2 + second) / r0, -second / r1)
        } else {
            (phi_2 / r0, 0.0)
        };
        weights[0] += d1_0;
        weights[1] += d1_1 - d1_0;
        weights[2] -= d1_1;
    })
}

/// The multistep exponential integrators of the SDE. The first-order step is
/// x' = (σ'/σ)·e^{−ηh}·x + (1 − e^{−h(1+η)})·m_0 + σ'·√(1 − e^{−2ηh})·z with h = log(σ/σ'); `correct` adds the higher
/// orders to the predictions' weights, from h and the last two h (0 if there was only one).
fn multistep_sde(
    settings: &mut Settings,
    options: &Options,
    name: &'static str,
    eta: f64,
    correct: impl Fn(&mut [f64; MAX_HISTORY], f64, Option<[f64; 2]>),
) -> Result<Arc<dyn Sampler>, SamplerError> {
    let run = KDiffusionSteps::from_settings(settings, options, name)?;
    let mut previous = None;
    let steps = run.steps().map(|(sigma, next)| {
        let node = run.node(sigma);
        if next == 0.0 {
            let update = WeightedSum { x: 0.0, weights: [1.0, 0.0, 0.0, 0.0] };
            return MultistepStep { node, update, noise: None };
        }
        let h = (sigma / next).ln();
        let mut weights = [-(-h - eta * h).exp_m1(), 0.0, 0.0, 0.0];
        correct(&mut weights, h, previous);
        previous = Some([h, previous.map_or(0.0, |[last, _]: [f64; 2]| last)]);
        let update = WeightedSum { x: next / sigma * (-eta * h).exp(), weights };
        let noise = (eta > 0.0).then(|| next * (-(-2.0 * eta * h).exp_m1()).sqrt());
        MultistepStep { node, update, noise }
    });
    let plan = Plan::new(steps);
    Ok(Arc::new(Plan { initial_sigma: run.initial_sigma(), ..plan }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_type::PredictionType::Epsilon;

    #[test]
    fn a_step_takes_the_prediction_at_the_midpoint() {
        let node = |sigma: f64| Node::with_unscaled_signal(sigma, sigma, Epsilon);
        let steps = [
            SdeStep::new_2s_ancestral(node(8.0), 8.0, 4.0, 1.0, node),
            SdeStep::new_2s_ancestral(node(4.0), 4.0, 0.0, 1.0, node),
        ];
        // x̂_0 = x/(1 + σ²), the posterior mean of unit variance.
        let x0 = |x: f64, sigma: f64| x / (1.0 + sigma * sigma);
        let network = |input: f32, sigma: f64| {
            let x = f64::from(input) * sigma.hypot(1.0);
            ((x - x0(x, sigma)) / sigma) as f32
        };
        let found = plan::testing::sample(Plan::new(steps), 6.0, &[0.7], network);
        let Ancestral { down, up } = Ancestral::new(8.0, 4.0, 1.0);
        let middle = (8.0 * down).sqrt();
        let (r_2, r) = (middle / 8.0, down / 8.0);
        let x_2 = r_2 * 6.0 + (1.0 - r_2) * x0(6.0, 8.0);
        let x = r * 6.0 + (1.0 - r) * x0(x_2, middle) + up * 0.7;
        let expected = x0(x, 4.0);
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} and {expected}");
    }
}
