use super::*;

#[test]
fn the_ddpm_schedule_has_the_published_ends() {
    let s = NoiseSchedule::new(&BetaSchedule::Linear, 1e-4, 0.02, 1000).unwrap();
    assert_eq!(s.betas()[0], f64::from(1e-4_f32));
    assert_eq!(s.betas()[999], f64::from(0.02_f32));
    assert!((s.alphas_cumprod()[999] - 4.035_83e-5).abs() < 1e-9);
}

#[test]
fn cosine_betas_are_capped() {
    let s = NoiseSchedule::new(&BetaSchedule::SquaredCosCapV2, 0.0, 0.0, 1000).unwrap();
    assert_eq!(s.betas()[999], f64::from(0.999_f32));
    assert!((s.alphas_cumprod()[499] - 0.493_8).abs() < 1e-3);
}

#[test]
fn a_zero_snr_schedule_ends_in_pure_noise_and_keeps_its_start() {
    let s = NoiseSchedule::new(&BetaSchedule::ScaledLinear, 0.00085, 0.012, 1000).unwrap();
    let z = s.rescaled_to_zero_snr();
    assert_eq!(z.alphas_cumprod()[999], 0.0);
    assert!((z.alphas_cumprod()[0] - s.alphas_cumprod()[0]).abs() < 1e-7);
}

/// The error spoke of a beta at a time step, and not of the key.
#[test]
fn a_beta_out_of_range_was_reported_without_its_key() {
    use std::collections::BTreeMap;
    let error = |keys: &[(&str, Value)]| {
        let keys: BTreeMap<_, _> =
            keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let schedule = NoiseSchedule::from_settings(&mut Settings::new(keys), ScheduleDefaults::DDPM);
        schedule.unwrap_err().to_string()
    };
    let is = |key: &str, value: &str| format!("{key} is {value}, but must be greater than 0 and less than 1");
    for curve in ["linear", "scaled_linear", "sigmoid"] {
        let curve = ("beta_schedule", Value::Text(curve.to_owned()));
        for (value, written) in [(-1.0, "-1"), (1.5, "1.5"), (1e30, "1e30")] {
            for key in ["beta_start", "beta_end"] {
                assert_eq!(error(&[curve.clone(), (key, Value::Number(value))]), is(key, written));
            }
        }
    }
    let trained = Value::Numbers(vec![0.5, 0.0]);
    let steps = ("num_train_timesteps", Value::Number(2.0));
    assert_eq!(error(&[("trained_betas", trained), steps]), is("trained_betas[1]", "0"));
    assert_eq!(
        error(&[("num_train_timesteps", Value::Number(1e30))]),
        "num_train_timesteps is 1e30, but must be a whole number from 1 to 100000"
    );
}

#[test]
fn invalid_schedules_are_errors() {
    let beta = NoiseSchedule::from_betas(vec![0.1, 1.5]).unwrap_err();
    assert_eq!(beta, ScheduleError::Beta { t: 1, beta: 1.5 });
    let length = NoiseSchedule::new(&BetaSchedule::Linear, 0.1, 0.2, 0).unwrap_err();
    assert_eq!(length, ScheduleError::Length(0));
    let trained = NoiseSchedule::new(&BetaSchedule::Trained(vec![0.1]), 0.0, 0.0, 2).unwrap_err();
    assert_eq!(trained, ScheduleError::TrainedLength { given: 1, expected: 2 });
}
