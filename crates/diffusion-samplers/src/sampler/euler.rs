//! Euler's method on the probability-flow ODE, and its ancestral form
//! (Karras et al. 2022, section 4; Song et al. 2021; Crowson, k-diffusion).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError, TimeConditioning};
use super::node::Node;
use super::steps::edm::{EdmSteps, Least};
use super::steps::sigma::{Class, SigmaSteps};
use super::walk::bound::Bound;
use super::walk::denoiser::Kept;
use super::walk::multistep::{Multistep, Step};
use crate::noise_schedule::{ScheduleDefaults, ZeroSnr};
use crate::scheduler_settings::Settings;

pub(super) const EULER: Family = Family::new("euler", "EulerDiscreteScheduler", euler);
pub(super) const ANCESTRAL: Family = Family::new("euler_a", "EulerAncestralDiscreteScheduler", ancestral);
pub(super) const EDM: Family =
    Family::new("edm_euler", "EDMEulerScheduler", edm).told(TimeConditioning::LogSigma);

const CLASS: Class = Class {
    schedule: ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Approximate),
    euler_keys: true,
    ..Class::latent("euler", Class::PREDICTIONS)
};

fn euler(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let grid = SigmaSteps::read(settings, options, &CLASS)?;
    let steps = grid.steps().map(|(at, sigma, next)| step(at, sigma, next)).collect();
    Ok(sampler(steps, grid.initial_sigma))
}

fn edm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let grid = EdmSteps::read(settings, options, EDM.name, Least::Visited)?;
    let pairs = grid.points.iter().zip(grid.sigmas.windows(2));
    let steps = pairs.map(|(at, pair)| step(*at, pair[0], pair[1])).collect();
    Ok(sampler(steps, grid.initial_sigma))
}

fn ancestral(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let class = Class { spreads: &[], euler_keys: false, predictions: Class::NO_SAMPLE, ..CLASS };
    let grid = SigmaSteps::read(settings, options, &Class { name: ANCESTRAL.name, ..class })?;
    let steps = grid
        .steps()
        .map(|(at, sigma, next)| {
            let Ancestral { down, up } = Ancestral::between(sigma, next, eta);
            step(at, sigma, down).noisy(up)
        })
        .collect();
    Ok(sampler(steps, grid.initial_sigma))
}

/// x + (σ' − σ)·d with the slope d = (x − D(x; σ))/σ (Karras et al. 2022, eq. 3).
fn step(at: Node, sigma: f64, next: f64) -> Step {
    Step::single(at, 1.0, next - sigma)
}

fn sampler(steps: Vec<Step>, initial_sigma: f64) -> Arc<dyn Sampler> {
    Arc::new(Multistep::of_x0(steps, Bound::None).keeping(Kept::Slope).starting_at(initial_sigma))
}

/// A step from σ to σ' parted into a deterministic one to a smaller level and fresh noise, so
/// that both together leave the marginal at σ' (Song et al. 2021, DDPM's posterior in σ).
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestral {
    /// The level to which the deterministic part goes.
    pub(super) down: f64,
    /// The standard deviation of the fresh noise.
    pub(super) up: f64,
}

impl Ancestral {
    /// From a level to a smaller one with a share `eta` of the posterior's noise.
    ///
    /// In f32, as the references compute it: over a long step `down` is a small difference of almost
    /// equal squares.
    pub(super) fn between(from: f64, to: f64, eta: f64) -> Self {
        let (from, to) = (from as f32, to as f32);
        let posterior = (to * to * (from * from - to * to) / (from * from)).max(0.0).sqrt();
        let up = to.min(eta as f32 * posterior);
        Self { down: f64::from((to * to - up * up).max(0.0).sqrt()), up: f64::from(up) }
    }
}
