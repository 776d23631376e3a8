use super::*;
use crate::home_assistant::model_facts::ClassFacts;

fn text_model() -> ModelFacts {
    ModelFacts {
        name: "sd".to_owned(),
        takes_prompt: true,
        takes_negative_prompt: true,
        takes_guidance: true,
        steps: 50,
        guidance: 7.5,
        classes: None,
    }
}

fn class_model() -> ModelFacts {
    let names: Vec<_> = ["zero", "one"].map(str::to_owned).into();
    ModelFacts {
        name: "digits".to_owned(),
        takes_prompt: false,
        takes_negative_prompt: false,
        takes_guidance: true,
        steps: 20,
        guidance: 1.5,
        classes: Some(ClassFacts::new(2, &names, Some(2))),
    }
}

fn models() -> [ModelFacts; 2] {
    [text_model(), class_model()]
}

/// Applies changes, which must be valid.
fn change(settings: &mut Settings, json: &str) -> Request {
    let changes = SettingChanges::parse(json.as_bytes()).unwrap();
    let proposed = settings.changed(changes, &models()).unwrap();
    *settings = proposed.settings;
    proposed.request
}

fn error(settings: &Settings, json: &str) -> JobError {
    let changes = SettingChanges::parse(json.as_bytes()).unwrap();
    settings.changed(changes, &models()).unwrap_err()
}

#[test]
fn without_changes_a_job_has_the_model_s_defaults() {
    let (settings, models) = (Settings::default(), models());
    assert_eq!(settings.selected(&models).unwrap().name, "sd");
    let request = settings.request(&models[0]);
    let expected =
        Request { model: Some("sd".to_owned()), prompt: Some(String::new()), ..Request::default() };
    assert_eq!(request, expected);
    assert_eq!(
        settings.to_json(&models[0]),
        serde_json::json!({
            "model": "sd", "prompt": "", "negative_prompt": "", "seed": null, "steps": 50, "guidance": 7.5,
        })
    );
    assert_eq!(
        settings.to_json(&models[1]),
        serde_json::json!({
            "model": "digits", "seed": null, "steps": 20, "guidance": 1.5, "class": null, "class_name": "no class",
        })
    );
}

#[test]
fn a_job_has_the_settings_that_its_model_understands() {
    let mut settings = Settings::default();
    change(
        &mut settings,
        r#"{"prompt": "a fox", "negative_prompt": "blur", "seed": 7, "steps": 4, "guidance": 3}"#,
    );
    let request = settings.request(&text_model());
    assert_eq!(
        (request.prompt.as_deref(), request.negative_prompt.as_deref()),
        (Some("a fox"), Some("blur"))
    );
    assert_eq!((request.seed, request.steps, request.guidance), (Some(7), Some(4), Some(3.0)));
    change(&mut settings, r#"{"model": "digits", "class_name": "one", "guidance": 2}"#);
    let request = settings.request(settings.selected(&models()).unwrap());
    assert_eq!((request.model.as_deref(), request.prompt), (Some("digits"), None));
    // The steps were those of the other model; the seed is common.
    assert_eq!((request.seed, request.steps, request.class), (Some(7), None, Some(1)));
    assert_eq!(request.guidance, Some(2.0));
    change(&mut settings, r#"{"class": -1}"#);
    let request = settings.request(&class_model());
    assert_eq!((request.class, request.guidance), (None, None));
    change(&mut settings, r#"{"model": null, "steps": null, "seed": -1, "prompt": null}"#);
    let request = settings.request(settings.selected(&models()).unwrap());
    assert_eq!((request.model.as_deref(), request.seed, request.steps), (Some("sd"), None, None));
    assert_eq!((request.prompt.as_deref(), request.guidance), (Some(""), Some(3.0)));
}

#[test]
fn a_class_that_the_model_needs_is_the_first_one_until_one_is_chosen() {
    let classes = Some(ClassFacts::new(1000, &[], None));
    let model = ModelFacts { classes, takes_guidance: false, ..class_model() };
    let mut settings = Settings::default();
    assert_eq!(settings.request(&model).class, Some(0));
    change(&mut settings, r#"{"model": "digits", "class": 999}"#);
    assert_eq!(settings.request(&model).class, Some(999));
    assert_eq!(settings.to_json(&model)["class"], 999);
    // The class of an earlier version of the model.
    let smaller = ModelFacts { classes: Some(ClassFacts::new(10, &[], None)), ..model };
    assert_eq!(settings.request(&smaller).class, Some(0));
}

#[test]
fn the_shown_start_of_a_long_prompt_does_not_replace_it() {
    let mut settings = Settings::default();
    let long = format!(" {}", "ä fox, ".repeat(60));
    change(&mut settings, &serde_json::json!({"prompt": long}).to_string());
    assert_eq!(settings.prompt, long);
    let shown: String = long.chars().take(254).collect::<String>() + "…";
    // Home Assistant strips the white space.
    change(&mut settings, &serde_json::json!({"prompt": shown.trim()}).to_string());
    assert_eq!(settings.prompt, long);
    let edited = shown.trim().replace("fox", "cat");
    change(&mut settings, &serde_json::json!({"prompt": edited}).to_string());
    assert_eq!(settings.prompt, edited);
    let limit = "x".repeat(255);
    change(&mut settings, &serde_json::json!({"prompt": limit}).to_string());
    assert_eq!((settings.prompt.as_str(), shown_len(&settings.prompt)), (limit.as_str(), 255));
}

fn shown_len(text: &str) -> usize {
    shown(text).chars().count()
}

#[test]
fn a_change_is_checked_as_a_job_even_if_the_model_does_not_understand_it() {
    let mut settings = Settings::default();
    let request = change(&mut settings, r#"{"class": 3}"#);
    assert_eq!((request.model.as_deref(), request.class), (Some("sd"), Some(3)));
    let request = change(&mut settings, r#"{"model": "digits", "prompt": "a fox", "guidance": 4}"#);
    // A guidance scale needs a class, which may be chosen later.
    assert_eq!((request.prompt.as_deref(), request.class), (Some("a fox"), Some(0)));
    let changes = SettingChanges::parse(br#"{"prompt": "a fox", "class_name": "one"}"#).unwrap();
    let proposed = settings.changed(changes, &models()).unwrap();
    for (field, is_about) in [("prompt", true), ("class", true), ("steps", false)] {
        assert_eq!(proposed.is_about(&JobError::out_of_range(field, "")), is_about, "{field}");
    }
    assert!(!proposed.is_about(&JobError::cancelled()));
}

#[test]
fn an_impossible_setting_is_reported_with_its_field() {
    let settings = Settings::default();
    for (json, field, message) in [
        (r#"{"model": "dall-e"}"#, "model", "there is no model \"dall-e\"; there are: sd, digits"),
        (
            r#"{"seed": -2}"#,
            "seed",
            "seed is -2, but must lie between 0 and 9007199254740991, or be -1 for a new seed each time",
        ),
        (
            r#"{"model": "digits", "class_name": "two"}"#,
            "class_name",
            "digits has no class \"two\"; choose one of the options of the entity",
        ),
        (r#"{"class_name": "one"}"#, "class_name", "sd has no names of classes; remove class_name"),
    ] {
        let error = error(&settings, json);
        assert_eq!((error.field.as_deref(), error.message.as_str()), (Some(field), message));
    }
}

#[test]
fn a_chosen_model_that_is_not_loaded_is_the_first_one_until_it_is() {
    let mut settings = Settings::default();
    change(&mut settings, r#"{"model": "digits"}"#);
    let [text, class] = models();
    assert_eq!(settings.selected(std::slice::from_ref(&text)), Some(&text));
    assert_eq!(settings.selected(&[text, class.clone()]), Some(&class));
    assert_eq!(settings.selected(&[]), None);
}
