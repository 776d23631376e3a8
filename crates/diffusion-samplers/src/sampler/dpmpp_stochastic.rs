//! The stochastic DPM-Solver++ methods that began in k-diffusion: 2S ancestral, SDE, 2M SDE and
//! 3M SDE (Lu et al. 2022, DPM-Solver++; Crowson, k-diffusion), in σ with t = −log σ.

use std::sync::Arc;

use super::euler::Ancestral;
use super::family::{Family, Options, Sampler, SamplerError};
use super::node::Node;
use super::steps::k_diffusion::KDiffusionSteps;
use super::steps::sigma::{Class, SigmaSteps};
use super::walk::bound::Bound;
use super::walk::multistep::{Multistep, Step as Sum};
use super::walk::two_stage::{Guess, Step, TwoStage};
use crate::noise_schedule::round;
use crate::scheduler_settings::Settings;

pub(super) const SDE: Family = Family::new("dpmpp_sde", "DPMSolverSDEScheduler", sde);
pub(super) const K_SDE: Family = Family::new("k_dpmpp_sde", "sample_dpmpp_sde", k_sde);
pub(super) const TWO_S: Family = Family::new("dpmpp_2s_a", "sample_dpmpp_2s_ancestral", two_s);
pub(super) const K_TWO_M: Family = Family::new("k_dpmpp_2m_sde", "sample_dpmpp_2m_sde", two_m);
pub(super) const THREE_M: Family = Family::new("dpmpp_3m_sde", "sample_dpmpp_3m_sde", three_m);

fn sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let grid = SigmaSteps::read(settings, options, &Class::latent(SDE.name, Class::NO_SAMPLE))?;
    // The reference's own generator is a tree of Brownian motion; here the image's is used.
    settings.reject_if_set("noise_sampler_seed", "noise comes from the image's own generator and seed")?;
    let steps = grid
        .steps()
        .map(|(at, sigma, next)| sde_step(at, sigma, next, eta, |mid| grid.between(mid)))
        .collect();
    Ok(Arc::new(TwoStage { steps, bound: Bound::None, initial_sigma: grid.initial_sigma }))
}

fn k_sde(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let grid = KDiffusionSteps::read(settings, options, K_SDE.name)?;
    let at = |sigma| grid.at(round(sigma));
    let steps = grid.steps().map(|(sigma, next)| sde_step(at(sigma), sigma, next, eta, at)).collect();
    Ok(Arc::new(TwoStage { steps, bound: Bound::None, initial_sigma: grid.initial_sigma() }))
}

/// DPM-Solver++ (SDE) of order 2 with the midpoint halfway in t: a guess at the midpoint with
/// noise up to there, then the whole step by the midpoint's estimate.
fn sde_step(at: Node, sigma: f64, next: f64, eta: f64, place: impl Fn(f64) -> Node) -> Step {
    if next == 0.0 {
        return Step::last(at);
    }
    let middle = place((sigma * next).sqrt());
    let to_middle = Ancestral::between(sigma, middle.level.sigma, eta);
    let to_next = Ancestral::between(sigma, next, eta);
    let r = to_middle.down / sigma;
    let guess = Guess { at: middle, x: r, d1: 1.0 - r, noise: Some(to_middle.up) };
    let r = to_next.down / sigma;
    // Both draws are stretches of one Brownian motion over σ that start at the same place.
    let shared = ((sigma - middle.level.sigma) / (sigma - next)).sqrt();
    Step { at, guess: Some(guess), x: r, d1: 0.0, d2: 1.0 - r, noise: Some(to_next.up), shared }
}

fn two_s(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let grid = KDiffusionSteps::read(settings, options, TWO_S.name)?;
    let steps = grid
        .steps()
        .map(|(sigma, next)| {
            let Ancestral { down, up } = Ancestral::between(sigma, next, eta);
            if down == 0.0 {
                return Step::last(grid.at(sigma));
            }
            // DPM-Solver++(2S), algorithm 1, from t to the level below.
            let middle = (sigma * down).sqrt();
            let r = middle / sigma;
            let guess = Guess { at: grid.at(round(middle)), x: r, d1: 1.0 - r, noise: None };
            let r = down / sigma;
            let noise = Some(up);
            Step { at: grid.at(sigma), guess: Some(guess), x: r, d1: 0.0, d2: 1.0 - r, noise, shared: 0.0 }
        })
        .collect();
    Ok(Arc::new(TwoStage { steps, bound: Bound::None, initial_sigma: grid.initial_sigma() }))
}

fn two_m(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let heun = settings.choice("solver_type", "midpoint", &["midpoint", "heun"])? == "heun";
    multistep(settings, options, K_TWO_M.name, eta, |step, h, older| {
        let Some([h_last, _]) = older else { return };
        let both = h + eta * h;
        let whole = -(-both).exp_m1();
        let slope = if heun { whole / -both + 1.0 } else { 0.5 * whole };
        let weight = slope * h / h_last;
        step.kept[0] += weight;
        step.kept[1] -= weight;
    })
}

fn three_m(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    multistep(settings, options, THREE_M.name, eta, |step, h, older| {
        let Some([h_1, h_2]) = older else { return };
        let h_eta = h * (eta + 1.0);
        let phi_2 = (-h_eta).exp_m1() / h_eta + 1.0;
        let phi_3 = phi_2 / h_eta - 0.5;
        // The differences (m_i − m_{i−1})/r_0 and (m_{i−1} − m_{i−2})/r_1 with these weights.
        let r0 = h_1 / h;
        let (d1_0, d1_1) = if h_2 > 0.0 {
            let r1 = h_2 / h;
            let second = (phi_2 * r0 - phi_3) / (r0 + r1);
            ((phi_2 + second) / r0, -second / r1)
        } else {
            (phi_2 / r0, 0.0)
        };
        step.kept[0] += d1_0;
        step.kept[1] += d1_1 - d1_0;
        step.kept[2] -= d1_1;
    })
}

/// The exponential integrator of the reverse SDE of order 1 with noise, to which `correct` adds
/// higher orders from this step's h and the last two (0 where there was but one).
fn multistep(
    settings: &mut Settings,
    options: &Options,
    name: &'static str,
    eta: f64,
    correct: impl Fn(&mut Sum, f64, Option<[f64; 2]>),
) -> Result<Arc<dyn Sampler>, SamplerError> {
    let grid = KDiffusionSteps::read(settings, options, name)?;
    let mut older = None;
    let steps = grid
        .steps()
        .map(|(sigma, next)| {
            let at = grid.at(sigma);
            if next == 0.0 {
                return Sum::single(at, 0.0, 1.0);
            }
            let h = (sigma / next).ln();
            let kept = [-(-h - eta * h).exp_m1(), 0.0, 0.0, 0.0];
            let noise = (eta > 0.0).then(|| next * (-(-2.0 * eta * h).exp_m1()).sqrt());
            let x = next / sigma * (-eta * h).exp();
            let mut step = Sum { noise, ..Sum::of(at, x, kept) };
            correct(&mut step, h, older);
            older = Some([h, older.map_or(0.0, |[last, _]: [f64; 2]| last)]);
            step
        })
        .collect();
    Ok(Arc::new(Multistep::of_x0(steps, Bound::None).starting_at(grid.initial_sigma())))
}
