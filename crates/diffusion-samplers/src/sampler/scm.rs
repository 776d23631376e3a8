//! Multistep sampling (Song et al. 2023, algorithm 1) of continuous-time consistency models (sCM, Lu & Song 2024) as
//! SANA-Sprint uses it (Chen et al. 2025).
//!
//! A state of TrigFlow is x_T = cos T·x_0 + sin T·z at the angle T between 0 and π/2 (Lu & Song 2024, section 3). The
//! network is one of a straight path, distilled after the lossless transformation to TrigFlow (Chen et al. 2025,
//! section 3.1): it takes x_T/(cos T + sin T), which is the state of the straight path at σ = sin T/(cos T + sin T), and
//! predicts its velocity F. Thus
//!
//! - x̂_0 = (x_T − sin T·F)/(cos T + sin T),
//! - x_T' = cos T'·x̂_0 + sin T'·z.
//!
//! The papers scale data and noise by σ_d. Here both have the scale of the network, in which σ_d cancels.

use std::sync::Arc;

use super::node::Node;
use super::options::{AddedNoise, Options, positive};
use super::plan::{OneStep, Plan};
use super::renoise::Renoise;
use super::{Family, Sampler, SamplerError, TimeConditioning};
use crate::noise_schedule::{NoiseLevel, linspace, num_train_timesteps, round};
use crate::prediction_type::PredictionType;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::trajectory::InputScaling;

pub(super) const FAMILY: Family = Family::new("scm", "SCMScheduler", scm).with_time(TimeConditioning::Path);

/// The unit of time of a straight path: the network takes 1000·σ.
const PATH_STEPS: f64 = 1000.0;

/// The largest angle, as in the reference: π/2 rounded up. The paper's own is arctan(80/σ_d).
#[expect(clippy::approx_constant, reason = "the reference's number")]
const MAX_ANGLE: f64 = 1.570_80;

/// The point of evaluation at an angle.
fn node(angle: f64) -> Node {
    let (sin, cos) = angle.sin_cos();
    let norm = cos + sin;
    let level = NoiseLevel { alpha: cos, sigma: sin };
    let node = Node::new(round(PATH_STEPS * sin / norm), level, PredictionType::Flow);
    Node { input: InputScaling::Divided(norm), ..node }
}

/// The angles of the evaluations, the largest first, and 0. `intermediate_timesteps` is the second of two steps; `null`
/// and any other number of steps give even distances.
fn angles(settings: &mut Settings, n: usize) -> Result<Vec<f64>, SamplerError> {
    let max = positive(settings, "max_timesteps", MAX_ANGLE)?;
    let between = settings.number_or_null("intermediate_timesteps", 1.3)?;
    if max > MAX_ANGLE {
        return Err(SettingsError::refused("max_timesteps", max, "an angle is at most π/2, 1.5708").into());
    }
    // A value that is set is refused for every number of steps; the default only where it would be used.
    if let Some(between) = between.filter(|_| n == 2 || settings.is_given("intermediate_timesteps"))
        && !(0.0..=max).contains(&between)
    {
        let reason = format!("it must lie between 0 and max_timesteps, {max}");
        return Err(SettingsError::refused("intermediate_timesteps", between, reason).into());
    }
    let angles = match between {
        Some(between) if n == 2 => vec![max, between, 0.0],
        _ => linspace(max, 0.0, n + 1).collect(),
    };
    Ok(angles.into_iter().map(round).collect())
}

fn scm(settings: &mut Settings, options: &Options) -> Result<Arc<dyn Sampler>, SamplerError> {
    options.reject_eta(AddedNoise::Fixed)?;
    settings.choice("prediction_type", "trigflow", &["trigflow"])?;
    settings.ignore_keys(&["sigma_data"]);
    let n = options.steps_up_to(num_train_timesteps(settings, 1000)?, FAMILY.name)?;
    let angles = options.without_skipped(angles(settings, n)?);
    let steps = angles.windows(2).map(|pair| OneStep {
        node: node(pair[0]),
        update: Renoise { alpha: pair[1].cos() },
        noise: Some(pair[1].sin()),
    });
    Ok(Arc::new(Plan::new(steps)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Strength;
    use crate::scheduler_settings::Value;
    use proptest::prelude::*;

    fn settings(keys: &[(&str, Value)]) -> Settings {
        Settings::new(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn an_intermediate_angle_is_that_of_two_steps() {
        let angles = |keys: &[(&str, Value)], n| angles(&mut settings(keys), n).unwrap();
        let max = round(MAX_ANGLE);
        assert_eq!(angles(&[], 2), [max, round(1.3), 0.0]);
        let none = ("intermediate_timesteps", Value::Null);
        assert_eq!(angles(&[none], 2), [max, round(MAX_ANGLE / 2.0), 0.0]);
        assert_eq!(angles(&[], 1), [max, 0.0]);
        // The default of two steps is more than the first angle here.
        assert_eq!(angles(&[("max_timesteps", Value::Number(1.0))], 4), [1.0, 0.75, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn an_angle_outside_of_its_range_is_refused() {
        for (key, value, reason) in [
            ("max_timesteps", 90.0, "at most π/2"),
            ("intermediate_timesteps", 1.6, "between 0 and max_timesteps, 1.5708"),
        ] {
            let mut settings = settings(&[(key, Value::Number(value))]);
            let error = scm(&mut settings, &Options::new(2)).err().unwrap().to_string();
            assert!(error.starts_with(key) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_intermediate_angle_out_of_range_passed_with_other_numbers_of_steps() {
        for n in [1, 2, 4] {
            let mut settings = settings(&[("intermediate_timesteps", Value::Number(1.7))]);
            let error = angles(&mut settings, n).unwrap_err().to_string();
            assert!(error.starts_with("intermediate_timesteps = 1.7 is refused"), "{error}");
        }
    }

    #[test]
    fn a_run_from_an_image_starts_at_its_angle() {
        let options = Options { strength: Strength::LastSteps(1), ..Options::new(2) };
        let sampler = scm(&mut Settings::default(), &options).unwrap();
        let NoiseLevel { alpha, sigma } = sampler.start().unwrap();
        assert_eq!((alpha, sigma, sampler.draws()), (round(1.3).cos(), round(1.3).sin(), 1));
    }

    proptest! {
        /// The network's input is the state of the straight path, and its velocity gives back x_0 and the noise.
        #[test]
        fn the_network_s_path_is_straight(angle in 0.01..1.57_f64, x0 in -2.0..2.0_f64, z in -3.0..3.0_f64) {
            let node = node(angle);
            let (sigma, x) = (node.t / 1000.0, node.level.alpha * x0 + node.level.sigma * z);
            let InputScaling::Divided(norm) = node.input else { panic!("{:?}", node.input) };
            prop_assert!((x / norm - ((1.0 - sigma) * x0 + sigma * z)).abs() < 1e-5);
            for (affine, expected) in [(node.x0, x0), (node.epsilon, z)] {
                let found = (affine.x * x + affine.output * (z - x0)) / affine.divisor;
                prop_assert!((found - expected).abs() < 1e-9);
            }
        }
    }
}
