//! The settings, as the entities and a user of MQTT change them, and the configuration.

use serde_json::json;

use super::{Announced, SETTINGS};
use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::golden;

#[test]
fn a_wrong_change_is_an_error_that_names_the_field_and_the_entities_show_the_old_value() {
    let mut announced = Announced::start();
    announced.set(&json!({"steps": 4}));
    for (change, field, message) in [
        (json!({"steps": 0}), "steps", "steps is 0, but must lie between 1 and 1000"),
        (json!({"prompt": "a fox"}), "prompt", "digits takes no text; remove prompt"),
        (json!({"class": 10}), "class", "class is 10, but digits has classes 0 to 9"),
        (json!({"guidance": 101}), "guidance", "guidance is 101, but must lie between 0 and 100"),
        (json!({"model": "sd"}), "model", "there is no model \"sd\"; there are: digits"),
    ] {
        let seen = announced.command("settings/set", &change.to_string());
        let settings = announced.after(seen, SETTINGS).json();
        assert_eq!((&settings["steps"], &settings["class"]), (&json!(4), &json!(null)), "{change}");
        let end = announced.after(seen, "denoised/test/home_assistant/job").json();
        assert_eq!((&end["event_type"], &end["field"]), (&json!("failed"), &json!(field)), "{change}");
        assert_eq!(end["message"], message);
        let is_error = |topic: &str| topic.starts_with("denoised/test/error/");
        if !announced.subscriber.seen[seen..].iter().any(|message| is_error(&message.topic)) {
            announced.subscriber.next(|message| is_error(&message.topic));
        }
    }
}

#[test]
fn a_prompt_of_any_length_is_drawn_and_each_model_has_its_own_steps() {
    let mut announced = Announced::with_models(&[&golden("latent/bundles/sd"), &model("digits")]);
    let prompt = "a red fox in the snow, ".repeat(40);
    let settings = announced.set(&json!({"prompt": prompt, "steps": 2, "seed": 1}));
    assert_eq!((&settings["model"], &settings["prompt"]), (&json!("sd"), &json!(prompt)));
    let (_, facts, _) = announced.draw();
    assert_eq!((&facts["model"], &facts["prompt"]), (&json!("sd"), &json!(prompt)));
    // What the entity shows of it.
    let shown = prompt.chars().take(254).collect::<String>() + "…";
    assert_eq!(announced.set(&json!({"prompt": shown}))["prompt"], json!(prompt));
    let settings = announced.set(&json!({"model": "digits"}));
    assert_eq!((settings.get("prompt"), &settings["steps"]), (None, &json!(10)));
    let (_, facts, _) = announced.draw();
    assert_eq!((&facts["model"], &facts["steps"], &facts["seed"]), (&json!("digits"), &json!(10), &json!(1)));
    assert_eq!(announced.set(&json!({"model": "sd"}))["steps"], 2);
}

#[test]
fn a_prefix_that_is_the_daemon_s_own_and_keys_without_effect_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let check = |text: &str| {
        std::fs::write(&path, format!("node = \"board\"\n[home_assistant]\n{text}\n")).unwrap();
        let mut command = denoised();
        command.arg("check-config").arg("--config").arg(&path);
        command
    };
    let error = fails(&mut check("enabled = true\nprefix = \"denoised/board\""), 2);
    let expected = "config.toml:4: home_assistant.prefix: denoised/board/status is a topic of this daemon itself; set the \
                    discovery prefix of Home Assistant, whose default is homeassistant";
    assert!(error.contains(expected), "{error}");
    let error = fails(&mut check("enabled = true\ndiscovery = \"both\""), 2);
    assert!(error.contains("config.toml:4: home_assistant.discovery: "), "{error}");
    succeeds(&mut check("enabled = true\nprefix = \"ha\"\ndiscovery = \"device\""));
    let output = check("prefix = \"ha\"\ndiscovery = \"device\"").output().unwrap();
    let warnings = String::from_utf8(output.stderr).unwrap();
    for key in ["prefix", "discovery"] {
        let warning = format!("home_assistant.{key} has no effect, because home_assistant.enabled is false");
        assert!(warnings.contains(&warning), "{warnings}");
    }
}
