//! Heun's second-order method on the probability-flow ODE (Karras et al. 2022, algorithm 1).

use std::sync::Arc;

use super::family::{Family, Options, Sampler, SamplerError};
use super::node::Node;
use super::steps::sigma::{Class, SigmaSteps};
use super::walk::bound::Bound;
use super::walk::two_slopes::{Rule, Step, TwoSlopes};
use crate::scheduler_settings::Settings;

pub(super) const FAMILY: Family = Family::new("heun", "HeunDiscreteScheduler", build);

fn build(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.deterministic()?;
    let grid = SigmaSteps::read(settings, options, &Class::latent(FAMILY.name, Class::PREDICTIONS))?;
    let bound = Bound::clipping(settings, false)?;
    let steps = plan(&grid.points, &grid.sigmas);
    Ok(Arc::new(TwoSlopes { steps, rule: Rule::Heun, bound, initial_sigma: grid.initial_sigma }))
}

/// The steps along levels that end at 0, where no evaluation is made: there the step is Euler's
/// (line 6).
pub(super) fn plan(points: &[Node], sigmas: &[f64]) -> Vec<Step> {
    let pairs = points.iter().zip(sigmas.windows(2)).enumerate();
    let step = |(i, (at, pair)): (usize, (&Node, &[f64]))| Step {
        at: *at,
        second: points.get(i + 1).copied(),
        step: pair[1] - pair[0],
        noise: None,
    };
    pairs.map(step).collect()
}
