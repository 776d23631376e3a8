use super::*;

fn settings() -> Settings {
    Settings::new(BTreeMap::from([
        ("beta_start".to_owned(), Value::Number(0.1)),
        ("clip_sample".to_owned(), Value::Text("yes".to_owned())),
        ("solver_order".to_owned(), Value::Number(2.0)),
        ("trained_betas".to_owned(), Value::Null),
    ]))
}

#[test]
fn every_key_is_reported() {
    let mut s = settings();
    assert_eq!(s.number("beta_start", 1e-4), Ok(0.1));
    assert_eq!(s.number("beta_end", 0.02), Ok(0.02));
    assert_eq!(s.numbers("trained_betas"), Ok(None));
    let report: Vec<_> = s.report().into_iter().map(|line| (line.key, line.status)).collect();
    let expected = [
        ("beta_end", KeyStatus::Defaulted),
        ("beta_start", KeyStatus::Used),
        ("clip_sample", KeyStatus::Unknown),
        ("solver_order", KeyStatus::Unknown),
        ("trained_betas", KeyStatus::Used),
    ];
    assert_eq!(report, expected.map(|(key, t)| (key.to_owned(), t)));
}

#[test]
fn null_is_python_s_none_and_not_the_default() {
    let null = |key: &str| Settings::new(BTreeMap::from([(key.to_owned(), Value::Null)]));
    assert_eq!(null("set_alpha_to_one").flag("set_alpha_to_one", true), Ok(false));
    assert_eq!(null("sigma_min").optional_number("sigma_min"), Ok(None));
    assert_eq!(null("intermediate_timesteps").number_or_null("intermediate_timesteps", 1.3), Ok(None));
    assert_eq!(Settings::default().number_or_null("intermediate_timesteps", 1.3), Ok(Some(1.3)));
    assert_eq!(null("sample_max_value").number_if(false, "sample_max_value", 1.0), Ok(1.0));
    assert_eq!(null("variance_type").text_or_null("variance_type", "fixed_small").unwrap(), "fixed_small");
    let error = null("beta_start").number("beta_start", 1e-4).unwrap_err();
    assert_eq!(error.to_string(), "beta_start is null, but must be a number");
    assert!(null("sample_max_value").number_if(true, "sample_max_value", 1.0).is_err());
    assert!(null("beta_schedule").text("beta_schedule", "linear").is_err());
}

/// 1e30 was called no whole number.
#[test]
fn a_whole_number_that_is_too_large_was_called_no_whole_number() {
    let settings = |n: f64| Settings::new(BTreeMap::from([("steps".to_owned(), Value::Number(n))]));
    let error = |n: f64| settings(n).count("steps", 1).unwrap_err().to_string();
    assert_eq!(error(1e30), "steps is 1e30, but must be less than 1e15");
    assert_eq!(error(-1.0), "steps is -1, but must be a whole number of at least 0");
    let within = |n: f64| settings(n).count_within("steps", 1, 1..=10).map_err(|error| error.to_string());
    assert_eq!(within(10.0), Ok(10));
    for (n, written) in [(0.0, "0"), (11.0, "11"), (1.5, "1.5"), (-1.0, "-1"), (1e30, "1e30")] {
        let expected = format!("steps is {written}, but must be a whole number from 1 to 10");
        assert_eq!(within(n), Err(expected));
    }
}

#[test]
fn the_error_for_a_wrong_type_has_key_value_and_expected_type() {
    let error = settings().flag("clip_sample", true).unwrap_err();
    assert_eq!(error.to_string(), "clip_sample is \"yes\", but must be true or false");
}
