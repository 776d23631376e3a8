//! DPM-Solver-2 in σ, midpoint at the geometric mean, and its ancestral form: diffusers' KDPM2
//! classes and k-diffusion's `sample_dpm_2` (Lu et al. 2022; Karras et al. 2022, algorithm 2).

use std::sync::Arc;

use super::euler::Ancestral;
use super::family::{Family, Options, Sampler, SamplerError};
use super::node::Node;
use super::steps::k_diffusion::KDiffusionSteps;
use super::steps::sigma::{Class, SigmaSteps};
use super::walk::bound::Bound;
use super::walk::two_slopes::{Rule, Step, TwoSlopes};
use crate::noise_schedule::round;
use crate::scheduler_settings::Settings;

pub(super) const KDPM2: Family = Family::new("dpm_2", "KDPM2DiscreteScheduler", |settings, options| {
    options.deterministic()?;
    diffusers(settings, options, "dpm_2", None)
});
pub(super) const ANCESTRAL: Family =
    Family::new("dpm_2_a", "KDPM2AncestralDiscreteScheduler", |settings, options| {
        diffusers(settings, options, "dpm_2_a", Some(options.eta_or(1.0)?))
    });
pub(super) const K: Family = Family::new("k_dpm_2", "sample_dpm_2", |settings, options| {
    options.deterministic()?;
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
    let class = Class { whole_karras_times: true, ..Class::latent(name, Class::NO_SAMPLE) };
    let grid = SigmaSteps::read(settings, options, &class)?;
    let steps =
        grid.steps().map(|(at, sigma, next)| step(at, sigma, next, eta, |mid| grid.between(mid))).collect();
    Ok(Arc::new(TwoSlopes {
        steps,
        rule: Rule::Midpoint,
        bound: Bound::None,
        initial_sigma: grid.initial_sigma,
    }))
}

fn k_diffusion(
    settings: &mut Settings,
    options: &Options,
    name: &'static str,
    eta: Option<f64>,
) -> Result<Arc<dyn Sampler>, SamplerError> {
    let grid = KDiffusionSteps::read(settings, options, name)?;
    let at = |sigma| grid.at(round(sigma));
    let steps = grid.steps().map(|(sigma, next)| step(at(sigma), sigma, next, eta, at)).collect();
    Ok(Arc::new(TwoSlopes {
        steps,
        rule: Rule::Midpoint,
        bound: Bound::None,
        initial_sigma: grid.initial_sigma(),
    }))
}

/// Over σ to σ_down with the second slope at √(σ·σ_down), and fresh noise where there is an η.
fn step(at: Node, sigma: f64, next: f64, eta: Option<f64>, place: impl Fn(f64) -> Node) -> Step {
    let Ancestral { down, up } = Ancestral::between(sigma, next, eta.unwrap_or(0.0));
    if down == 0.0 {
        return Step { at, second: None, step: -sigma, noise: None };
    }
    let second = place(((sigma.ln() + down.ln()) / 2.0).exp());
    Step { at, second: Some(second), step: down - sigma, noise: eta.map(|_| up) }
}
