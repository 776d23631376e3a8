//! Multistep latent consistency sampling (Luo et al. 2023, algorithm 3) along the straight path of flow matching
//! (Lipman et al. 2023): x' = (1 − σ')·x̂_0 + σ'·z with x̂_0 = x − σ·u.
//!
//! On the straight path the consistency function is x̂_0 itself: it meets its boundary condition at σ = 0 without the
//! factors c_skip and c_out.

use std::sync::Arc;

use super::flow_match::{StraightPath, node};
use super::options::{AddedNoise, Options};
use super::plan::{OneStep, Plan};
use super::renoise::Renoise;
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::scheduler_settings::Settings;

pub(super) const FAMILY: Family =
    Family::new("flow_lcm", "FlowMatchLCMScheduler", flow_lcm).with_time(TimeConditioning::Path);

fn flow_lcm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    settings.reject_if_set("scale_factors", "samples of growing size are not supported; remove the key")?;
    settings.ignore_keys(&["upscale_mode"]);
    let path = StraightPath::from_settings(settings, options, FAMILY.name)?;
    Ok(Arc::new(Plan::new(renoised(&path))))
}

/// The steps along a path. Noise is drawn in the last one too, where σ' is 0.
pub(super) fn renoised(path: &StraightPath) -> impl Iterator<Item = OneStep<Renoise>> + '_ {
    path.sigmas.windows(2).map(|pair| OneStep {
        node: node(pair[0], path.train),
        update: Renoise { alpha: 1.0 - pair[1] },
        noise: Some(pair[1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::plan::testing;
    use crate::scheduler_settings::Value;

    #[test]
    fn a_step_noises_the_prediction_to_the_next_level() {
        let mut settings = Settings::default();
        settings.set_implied("shift", Value::Number(3.0));
        let path = StraightPath::from_settings(&mut settings, &Options::new(3), FAMILY.name).unwrap();
        let draws = [0.3, -1.1, 0.5];
        let network = |x: f32, t: f64| 0.4 * x + t as f32 / 900.0;
        let found = testing::sample(Plan::new(renoised(&path)), 0.7, &draws, network);
        let expected = path.sigmas.windows(2).zip(draws).fold(0.7_f64, |x, (pair, z)| {
            let u = 0.4 * x + pair[0] * 1000.0 / 900.0;
            (1.0 - pair[1]) * (x - pair[0] * u) + pair[1] * f64::from(z)
        });
        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
    }

    #[test]
    fn samples_of_growing_size_are_refused() {
        let mut settings = Settings::default();
        settings.set_implied("scale_factors", Value::Numbers(vec![0.5, 1.0]));
        let error = flow_lcm(&mut settings, &Options::new(3)).err().unwrap().to_string();
        assert!(error.starts_with("scale_factors") && error.contains("growing size"), "{error}");
    }
}
