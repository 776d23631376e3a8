use super::*;

#[test]
fn infinities_are_numbers_except_in_strings() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
        "note": "an \"Infinity\" \\", "other": [Infinity, 1]}"#;
    let config = SchedulerConfig::parse(Path::new("x.json"), text, None).unwrap();
    assert_eq!(config.values["lambda_min_clipped"], Value::Number(f64::NEG_INFINITY));
    assert_eq!(config.values["note"], Value::Text("an \"Infinity\" \\".to_owned()));
    assert_eq!(config.to_json(PipelineTask::Generation)["lambda_min_clipped"], "-Infinity");
    assert_eq!(config.values["other"], Value::Other("[\"Infinity\",1]".to_owned()));
}

#[test]
fn the_class_of_model_index_takes_the_keys_of_the_file() {
    let text = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.001, "beta_end": 0.02,
        "_use_default_values": ["beta_end"]}"#;
    let parse = |named| SchedulerConfig::parse(Path::new("x.json"), text, named).unwrap();
    let own = parse(None);
    assert_eq!((own.class.as_str(), own.class_in_file.as_deref()), ("DDIMScheduler", None));
    let other = parse(Some("DPMSolverMultistepScheduler"));
    assert_eq!(other.class, "DPMSolverMultistepScheduler");
    assert_eq!(other.class_in_file.as_deref(), Some("DDIMScheduler"));
    assert_eq!(other.values, BTreeMap::from([("beta_start".to_owned(), Value::Number(0.001))]));
}

/// A misspelt key of `[scheduler]` was ignored, and `inspect` called it used.
#[test]
fn a_misspelt_key_of_the_section_was_ignored() {
    let read = |text: &str| {
        SchedulerConfig::from_section(Path::new("denoised.toml"), &toml::from_str(text).unwrap())
            .map(|config| config.values.len())
            .map_err(|error| error.to_string())
    };
    let class = "class = \"DDPMScheduler\"\n";
    assert_eq!(
        read(&format!("{class}beta_strat = 0.1")),
        Err("denoised.toml: scheduler.beta_strat: no scheduler has this key; did you mean beta_start?"
            .to_owned())
    );
    // Keys of another class, and those that the class reads only together.
    assert_eq!(read(&format!("{class}solver_order = 3\nuse_karras_sigmas = true")), Ok(2));
    assert_eq!(read(&format!("{class}colour = 3")), Ok(1));
}

/// An error about `class` in `[scheduler]` spoke of `_class_name`, and that about another key of the key alone.
#[test]
fn an_error_in_the_section_named_the_key_of_another_file() {
    let of_section = |text: &str| {
        SchedulerConfig::from_section(Path::new("denoised.toml"), &toml::from_str(text).unwrap())
            .and_then(SchedulerConfig::checked)
            .unwrap_err()
            .to_string()
    };
    let of_file = |text: &str| {
        SchedulerConfig::parse(Path::new("x.json"), text, None)
            .map_err(|fault| ConfigError { path: "x.json".into(), fault })
            .and_then(SchedulerConfig::checked)
            .unwrap_err()
            .to_string()
    };
    let unknown = "is \"DreamScheduler\", which is not supported; use one of: ";
    let error = of_section("class = \"DreamScheduler\"");
    assert!(error.starts_with(&format!("denoised.toml: scheduler.class {unknown}")), "{error}");
    let error = of_file(r#"{"_class_name": "DreamScheduler"}"#);
    assert!(error.starts_with(&format!("x.json: _class_name {unknown}")), "{error}");
    let text = "must be a string such as \"DDIMScheduler\"";
    assert_eq!(of_section("class = 3"), format!("denoised.toml: scheduler.class is 3, but {text}"));
    assert_eq!(of_file(r#"{"_class_name": 3}"#), format!("x.json: _class_name is 3, but {text}"));
    let add = "is missing; add the class of the scheduler, such as \"DDIMScheduler\"";
    assert_eq!(of_section("beta_start = 0.1"), format!("denoised.toml: scheduler.class {add}"));
    assert_eq!(of_file("{}"), format!("x.json: _class_name {add}"));
    let range = "must be greater than 0 and less than 1";
    for (value, written) in [("-1", "-1"), ("inf", "inf")] {
        assert_eq!(
            of_section(&format!("class = \"DDIMScheduler\"\nbeta_start = {value}")),
            format!("denoised.toml: scheduler.beta_start is {written}, but {range}")
        );
    }
    assert_eq!(
        of_file(r#"{"_class_name": "DDIMScheduler", "beta_end": 2}"#),
        format!("x.json: beta_end is 2, but {range}")
    );
}

/// The columns were those of a text with longer infinities.
#[test]
fn a_fault_after_an_infinity_has_its_own_column() {
    let text = r#"{"a": -Infinity, "b": 'x'}"#;
    let error = SchedulerConfig::parse(Path::new("x.json"), text, None).unwrap_err().to_string();
    assert!(error.starts_with("line 1, column 23: no JSON value begins with `'x'`"), "{error}");
}

/// An offset that only few steps are possible with was an error about 4 steps, although the job had one.
#[test]
fn an_offset_for_a_few_steps_was_refused_when_the_file_was_read() {
    let read = |offset: usize| {
        let text = format!(
            r#"{{"_class_name": "DDIMScheduler", "timestep_spacing": "leading", "steps_offset": {offset}}}"#
        );
        let config = SchedulerConfig::parse(Path::new("x.json"), &text, None).unwrap();
        SchedulerConfig::checked(config).map(|config| config.report().unwrap().len() > 10)
    };
    assert!(read(800).unwrap());
    assert_eq!(
        read(5000).unwrap_err().to_string(),
        "x.json: steps_offset is 5000, but must be less than num_train_timesteps, which is 1000"
    );
}
