//! Euler's method on the probability-flow ODE, and its ancestral form
//! (Karras et al. 2022, section 4; Song et al. 2021, score SDE; Crowson, k-diffusion).

use std::sync::Arc;

use super::model_output::{OutputForm, Prediction};
use super::options::{AddedNoise, Options};
use super::plan::{OneStep, Plan, Update};
use super::steps::edm::{EdmFinalSigma, EdmSteps};
use super::steps::sigma::{SigmaClass, SigmaSteps};
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{ScheduleDefaults, ZeroSnr};
use crate::scheduler_settings::Settings;

pub(super) const EULER: Family = Family::new("euler", "EulerDiscreteScheduler", euler);
pub(super) const ANCESTRAL: Family = Family::new("euler_a", "EulerAncestralDiscreteScheduler", ancestral);
pub(super) const EDM: Family =
    Family::new("edm_euler", "EDMEulerScheduler", edm).with_time(TimeConditioning::LogSigma);

/// x' = x + d·Δσ + σ_up·z with d = (x − D(x; σ))/σ (Karras et al. 2022, eq. 3). Without noise it is Euler's step; an
/// ancestral step goes to σ_down and adds noise up to the next level.
#[derive(Debug)]
struct Euler {
    /// Δσ.
    dt: f64,
}

impl Update for Euler {
    fn apply(&self, x: &mut [f32], d: Prediction<'_>, noise: Option<(f64, &[f32])>) {
        let dt = self.dt as f32;
        d.step(x, noise, move |x, d| x + d * dt);
    }

    fn is_finite(&self) -> bool {
        self.dt.is_finite()
    }
}

const CLASS: SigmaClass = SigmaClass {
    schedule: ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Approximate),
    euler_keys: true,
    ..SigmaClass::new("euler", SigmaClass::PREDICTIONS)
};

fn euler(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let run = SigmaSteps::from_settings(settings, options, &CLASS)?;
    let step = |(node, sigma, next)| OneStep { node, update: Euler { dt: next - sigma }, noise: None };
    Ok(sampler(run.steps().map(step), run.initial_sigma))
}

fn edm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::None)?;
    let run = EdmSteps::from_settings(settings, options, EDM.name, EdmFinalSigma::LastEvaluated)?;
    let steps = run.nodes.iter().zip(run.sigmas.windows(2)).map(|(node, sigmas)| OneStep {
        node: *node,
        update: Euler { dt: sigmas[1] - sigmas[0] },
        noise: None,
    });
    Ok(sampler(steps, run.initial_sigma))
}

fn ancestral(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    let eta = options.eta_or(1.0)?;
    let class =
        SigmaClass { sigma_schedules: &[], euler_keys: false, predictions: SigmaClass::NO_SAMPLE, ..CLASS };
    let run = SigmaSteps::from_settings(settings, options, &SigmaClass { name: ANCESTRAL.name, ..class })?;
    let step = |(node, sigma, next)| {
        let Ancestral { down, up } = Ancestral::new(sigma, next, eta);
        OneStep { node, update: Euler { dt: down - sigma }, noise: Some(up) }
    };
    Ok(sampler(run.steps().map(step), run.initial_sigma))
}

fn sampler(steps: impl Iterator<Item = OneStep<Euler>>, initial_sigma: f64) -> Arc<dyn Sampler> {
    Arc::new(Plan { form: OutputForm::Derivative, initial_sigma, ..Plan::new(steps) })
}

/// A step from σ to σ' as a deterministic step to a smaller σ_down and fresh noise of σ_up, where
/// σ_down² + σ_up² = σ'² (k-diffusion's `get_ancestral_step`; DDPM's posterior in σ).
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestral {
    /// The level to which the deterministic part goes.
    pub(super) down: f64,
    /// The standard deviation of the fresh noise.
    pub(super) up: f64,
}

impl Ancestral {
    /// σ_up = min(σ', η·√(σ'²(σ² − σ'²)/σ²)), from σ = `from` to σ' = `to`.
    ///
    /// In f32, as in the references: over a long step σ_down is a small difference of almost equal squares.
    pub(super) fn new(from: f64, to: f64, eta: f64) -> Self {
        let (from, to) = (from as f32, to as f32);
        let posterior = (to * to * (from * from - to * to) / (from * from)).max(0.0).sqrt();
        let up = to.min(eta as f32 * posterior);
        Self { down: f64::from((to * to - up * up).max(0.0).sqrt()), up: f64::from(up) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestral_step_keeps_the_variance_of_its_level() {
        for eta in [0.0, 0.4, 1.0] {
            let Ancestral { down, up } = Ancestral::new(9.0, 4.0, eta);
            assert!((down * down + up * up - 16.0).abs() < 1e-5);
        }
        assert_eq!(Ancestral::new(9.0, 4.0, 0.0).up, 0.0);
    }

    #[test]
    fn a_step_is_x_plus_the_derivative_times_its_length() {
        // The network returns x̂_0 = 1, so that d = (x − 1)/σ with σ = 2.
        let node = super::super::steps::edm::denoiser(2.0);
        let mut x = [5.0];
        let d = Prediction::from_affine(node.epsilon, &[1.0]);
        Euler { dt: -0.5 }.apply(&mut x, d, Some((0.25, &[8.0])));
        assert_eq!(x, [5.0 + 2.0 * -0.5 + 0.25 * 8.0]);
    }
}
