use std::collections::BTreeMap;

use super::*;

fn model(name: &str, takes_prompt: bool, classes: Option<ClassFacts>) -> ModelFacts {
    ModelFacts {
        name: name.to_owned(),
        takes_prompt,
        takes_negative_prompt: takes_prompt,
        takes_guidance: takes_prompt,
        steps: 20,
        guidance: 7.5,
        classes,
    }
}

/// The configurations by platform and key.
fn entities(models: &[ModelFacts], selected: usize, has_thermal: bool) -> BTreeMap<String, Value> {
    let topics = Topics::new("denoised/board").with_home_assistant(Some("homeassistant"));
    let context = EntityContext {
        topics: &topics,
        models,
        selected: &models[selected],
        max_steps: 1000,
        phases: &["starting", "ready"],
        has_thermal,
    };
    let entities = context.entities().into_iter();
    entities
        .map(|entity| (format!("{}.{}", entity.platform, entity.key), Value::Object(entity.config)))
        .collect()
}

const COMMON: [&str; 14] = [
    "binary_sensor.fallback",
    "button.cancel",
    "button.draw",
    "event.job",
    "image.picture",
    "image.preview",
    "number.seed",
    "number.steps",
    "sensor.duration",
    "sensor.evaluation",
    "sensor.phase",
    "sensor.progress",
    "sensor.provider",
    "sensor.queue",
];

#[test]
fn a_device_has_only_the_entities_that_its_models_and_its_machine_have() {
    let more = |models: &[ModelFacts], has_thermal| {
        let entities = entities(models, 0, has_thermal);
        assert!(COMMON.iter().all(|key| entities.contains_key(*key)), "{:?}", entities.keys());
        entities.into_keys().filter(|key| !COMMON.contains(&key.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(more(&[model("roll", false, None)], false), [""; 0]);
    let names: Vec<_> = ["cat", "dog"].map(str::to_owned).into();
    let named = model("pets", false, Some(ClassFacts::new(2, &names, None)));
    assert_eq!(
        more(std::slice::from_ref(&named), true),
        ["binary_sensor.throttled", "select.class", "sensor.temperature"]
    );
    let numbered = model("imagenet", false, Some(ClassFacts::new(1000, &[], None)));
    let text = ["notify.long_prompt", "number.guidance", "text.negative_prompt", "text.prompt"];
    assert_eq!(more(&[model("sd", true, None)], false), text);
    let all = more(&[model("sd", true, None), named, numbered], false);
    assert_eq!(
        all,
        [
            "notify.long_prompt",
            "number.class_number",
            "number.guidance",
            "select.class",
            "select.model",
            "text.negative_prompt",
            "text.prompt",
        ]
    );
}

#[test]
fn the_options_of_classes_are_those_of_the_chosen_model() {
    let of =
        |name: &str, class: &str| model(name, false, Some(ClassFacts::new(1, &[class.to_owned()], Some(1))));
    let models = [of("pets", "cat"), of("digits", "seven")];
    for (selected, options) in [(0, ["no class", "cat"]), (1, ["no class", "seven"])] {
        assert_eq!(entities(&models, selected, false)["select.class"]["options"], json!(options));
    }
    assert_eq!(entities(&models, 0, false)["select.model"]["options"], json!(["pets", "digits"]));
}

#[test]
fn an_entity_of_a_setting_shows_and_changes_it_and_is_available_while_the_model_understands_it() {
    let entities = entities(&[model("sd", true, None)], 0, false);
    assert_eq!(
        entities["number.seed"],
        json!({
            "name": "Seed",
            "min": -1,
            "max": 9_007_199_254_740_991_u64,
            "step": 1.0,
            "mode": "box",
            "state_topic": "denoised/board/home_assistant/settings",
            "value_template":
                "{{ (value_json.seed if value_json.seed is not none else -1) if value_json.seed is defined else None }}",
            "command_topic": "denoised/board/home_assistant/settings/set",
            "command_template": "{\"seed\": {{ value | tojson }} }",
            "qos": 1,
            "availability_mode": "all",
            "availability": [
                {"topic": "denoised/board/status"},
                {
                    "topic": "denoised/board/home_assistant/settings",
                    "value_template": "{{ 'online' if value_json.seed is defined else 'offline' }}",
                },
            ],
        })
    );
    let prompt = &entities["text.prompt"];
    assert_eq!(
        prompt["value_template"],
        "{{ (value_json.prompt if value_json.prompt | length <= 255 else value_json.prompt[:254] ~ '…') if \
         value_json.prompt is defined else '' }}"
    );
    assert_eq!((&prompt["min"], &prompt["max"]), (&0.into(), &255.into()));
    assert_eq!(entities["notify.long_prompt"]["command_template"], "{\"prompt\": {{ value | tojson }} }");
}

#[test]
fn pictures_come_from_the_topics_that_every_subscriber_has() {
    let entities = entities(&[model("roll", false, None)], 0, false);
    let picture = &entities["image.picture"];
    assert_eq!(picture["image_topic"], "denoised/board/image");
    assert_eq!(picture["json_attributes_topic"], "denoised/board/home_assistant/picture");
    assert_eq!(picture["availability"], json!([{"topic": "denoised/board/status"}]));
    assert_eq!(entities["image.preview"]["image_topic"], "denoised/board/preview/+");
    assert_eq!(entities["sensor.phase"]["options"], json!(["starting", "ready"]));
    assert_eq!(entities["event.job"]["event_types"], json!(["finished", "failed", "cancelled"]));
}
