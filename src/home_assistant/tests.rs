//! The state machine: what is announced, stored and removed, and when.

use super::*;
use crate::config::DiscoveryForm;

fn model(name: &str) -> ModelFacts {
    ModelFacts {
        name: name.to_owned(),
        takes_prompt: true,
        takes_negative_prompt: false,
        takes_guidance: false,
        steps: 20,
        guidance: 1.0,
        classes: None,
    }
}

fn topics() -> Topics {
    Topics::new("d").with_home_assistant(Some("homeassistant"))
}

fn device_with(form: DiscoveryForm, record: Option<&[u8]>) -> HomeAssistant {
    let config = HomeAssistantConfig { enabled: true, discovery: form, ..HomeAssistantConfig::default() };
    let surroundings = Surroundings {
        topics: topics(),
        device: Device::new("board", None),
        phases: vec!["ready"],
        has_thermal: false,
    };
    HomeAssistant::new(&config, surroundings, 1000, record)
}

/// A device that is connected and has one model, and was not announced before.
fn connected(now: Instant) -> HomeAssistant {
    let mut device = device_with(DiscoveryForm::Component, None);
    device.set_facts(vec![model("sd")], now);
    device.on_connected(now);
    device
}

/// The topics that are published with a payload, and those that are cleared.
fn published(outputs: &[Output]) -> (Vec<&str>, Vec<&str>) {
    let messages = outputs.iter().filter_map(|output| match output {
        Output::Publish(message) | Output::Deliver(message) => Some(message),
        Output::Store(_) => None,
    });
    let (cleared, published): (Vec<_>, Vec<_>) = messages.partition(|message| message.payload.is_empty());
    assert!(published.iter().chain(&cleared).all(|message| message.retain));
    (
        published.into_iter().map(|message| message.topic.as_str()).collect(),
        cleared.into_iter().map(|message| message.topic.as_str()).collect(),
    )
}

fn record(outputs: &[Output]) -> Option<Vec<u8>> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Store(record) => Some(record.clone()),
        _ => None,
    })
}

fn announcements(outputs: &[Output]) -> usize {
    published(outputs).0.iter().filter(|topic| topic.ends_with("/config")).count()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_device_is_announced_once_the_models_are_loaded_and_the_broker_is_connected() {
    let now = Instant::now();
    let mut device = device_with(DiscoveryForm::Component, None);
    device.on_connected(now);
    assert_eq!(device.on_tick(now), []);
    device.set_facts(vec![model("sd")], now);
    let outputs = device.on_tick(now);
    // What is announced is stored before, so that it can be removed.
    assert!(matches!(outputs[0], Output::Store(_)));
    assert!(announcements(&outputs) > 10);
    assert!(published(&outputs).0.contains(&"homeassistant/image/denoised_board/picture/config"));
    assert_eq!(published(&outputs).0.last(), Some(&"d/home_assistant/settings"));
    assert_eq!(device.on_tick(now), []);
    // Home Assistant may have read the settings before it had the entities.
    let outputs = device.on_tick(now + SETTINGS_DELAY);
    assert_eq!(published(&outputs), (vec!["d/home_assistant/settings"], vec![]));
    assert_eq!(device.on_tick(now + seconds(60)), []);
}

#[test]
fn every_connection_and_every_start_of_home_assistant_is_one_announcement() {
    let now = Instant::now();
    let mut device = connected(now);
    let first = announcements(&device.on_tick(now));
    device.on_status(b"online", false, now + seconds(10));
    device.on_status(b"online", false, now + seconds(11));
    assert_eq!(announcements(&device.on_tick(now + seconds(11))), 0);
    let outputs = device.on_tick(now + seconds(10) + BIRTH_DELAY);
    assert_eq!((announcements(&outputs), record(&outputs)), (first, None));
    for (payload, is_retained) in [(&b"offline"[..], false), (b"online", true), (b"", false)] {
        device.on_status(payload, is_retained, now + seconds(20));
        assert_eq!(announcements(&device.on_tick(now + seconds(30))), 0);
    }
    device.on_disconnected();
    device.on_status(b"online", false, now + seconds(40));
    assert_eq!(device.on_tick(now + seconds(50)), []);
    device.on_connected(now + seconds(50));
    assert_eq!(announcements(&device.on_tick(now + seconds(50))), first);
    assert_eq!(announcements(&device.on_tick(now + seconds(60))), 0);
}

#[test]
fn what_an_earlier_run_announced_is_removed_once_home_assistant_is_disabled() {
    let now = Instant::now();
    let outputs = connected(now).on_tick(now);
    let stored = record(&outputs);
    let removed = removal(&topics(), stored.as_deref());
    let (published, cleared) = published(&removed);
    assert_eq!(published, [""; 0]);
    assert_eq!(cleared.iter().filter(|topic| topic.ends_with("/config")).count(), announcements(&outputs));
    assert!(cleared.contains(&"d/home_assistant/settings"));
    let delivered = removed.iter().filter(|output| matches!(output, Output::Deliver(_))).count();
    assert_eq!(delivered, announcements(&outputs));
    // Once.
    assert_eq!(removal(&topics(), record(&removed).as_deref()), []);
    assert_eq!(removal(&topics(), None), []);
}

#[test]
fn another_form_is_announced_after_the_entities_of_the_former_one_are_removed() {
    let now = Instant::now();
    let outputs = connected(now).on_tick(now);
    let mut device = device_with(DiscoveryForm::Device, record(&outputs).as_deref());
    device.set_facts(vec![model("sd")], now);
    device.on_connected(now);
    let removed = device.on_tick(now);
    assert_eq!(announcements(&removed), 0);
    assert_eq!(published(&removed).1.len(), announcements(&outputs));
    assert_eq!(announcements(&device.on_tick(now + seconds(1))), 0);
    let outputs = device.on_tick(now + REMOVAL_DELAY);
    assert!(published(&outputs).0.contains(&"homeassistant/device/denoised_board/config"));
    assert_eq!((announcements(&outputs), published(&outputs).1.len()), (1, 0));
}

#[test]
fn an_entity_whose_model_is_gone_is_removed() {
    let now = Instant::now();
    let mut device = connected(now);
    let outputs = device.on_tick(now);
    let stored = record(&outputs).unwrap();
    let mut device = device_with(DiscoveryForm::Component, Some(&stored));
    device.set_facts(vec![ModelFacts { takes_prompt: false, ..model("digits") }], now);
    device.on_connected(now);
    let removed = device.on_tick(now);
    assert_eq!(
        published(&removed).1,
        [
            "homeassistant/notify/denoised_board/long_prompt/config",
            "homeassistant/text/denoised_board/prompt/config"
        ]
    );
    assert_eq!(announcements(&device.on_tick(now + REMOVAL_DELAY)), announcements(&outputs) - 2);
}

#[test]
fn the_message_of_the_device_names_the_components_that_are_gone() {
    let now = Instant::now();
    let mut device = device_with(DiscoveryForm::Device, None);
    device.set_facts(vec![model("sd")], now);
    device.on_connected(now);
    let stored = record(&device.on_tick(now)).unwrap();
    let mut device = device_with(DiscoveryForm::Device, Some(&stored));
    device.set_facts(vec![ModelFacts { takes_prompt: false, ..model("digits") }], now);
    device.on_connected(now);
    let outputs = device.on_tick(now);
    let document = outputs.iter().find_map(|output| match output {
        Output::Publish(message) if message.topic.ends_with("/config") => Some(&message.payload),
        _ => None,
    });
    let document: Value = serde_json::from_slice(document.unwrap()).unwrap();
    assert_eq!(document["components"]["prompt"], json!({"platform": "text"}));
    assert_eq!(document["components"]["seed"]["unique_id"], "denoised_board_seed");
}

#[test]
fn a_changed_setting_is_stored_and_published_and_survives_a_restart() {
    let now = Instant::now();
    let mut device = connected(now);
    device.on_tick(now);
    let proposed = device.propose(br#"{"prompt": "a fox", "steps": 4}"#).unwrap();
    let outputs = device.set_settings(proposed.settings, now);
    assert_eq!(published(&outputs), (vec!["d/home_assistant/settings"], vec![]));
    let restarted = |record: &[u8]| {
        let mut device = device_with(DiscoveryForm::Component, Some(record));
        device.set_facts(vec![model("sd")], now);
        device.request("x".to_owned())
    };
    let request = restarted(&record(&outputs).unwrap());
    assert_eq!((request.prompt.as_deref(), request.steps), (Some("a fox"), Some(4)));
    // The same settings are published, so that the entities show them, and not stored.
    let proposed = device.propose(br#"{"steps": 4}"#).unwrap();
    let outputs = device.set_settings(proposed.settings, now);
    assert_eq!((outputs.len(), record(&outputs)), (1, None));
}

#[test]
fn another_model_is_announced_only_where_it_changes_an_entity() {
    let now = Instant::now();
    let mut device = device_with(DiscoveryForm::Component, None);
    let classes = model_facts::ClassFacts::new(1, &["seven".to_owned()], Some(1));
    let digits = ModelFacts { classes: Some(classes.clone()), ..model("digits") };
    let classes = model_facts::ClassFacts { options: vec!["cat".to_owned()], ..classes };
    let pets = ModelFacts { classes: Some(classes), ..model("pets") };
    device.set_facts(vec![digits, pets], now);
    device.on_connected(now);
    device.on_tick(now);
    let proposed = device.propose(br#"{"model": "pets"}"#).unwrap();
    let outputs = device.set_settings(proposed.settings, now + seconds(5));
    let expected = vec!["homeassistant/select/denoised_board/class/config", "d/home_assistant/settings"];
    assert_eq!(published(&outputs).0, expected);
    let outputs = device.on_tick(now + seconds(5) + SETTINGS_DELAY);
    assert_eq!(published(&outputs).0, ["d/home_assistant/settings"]);
}

#[test]
fn another_limit_of_the_steps_is_announced() {
    let now = Instant::now();
    let mut device = connected(now);
    device.on_tick(now);
    device.set_max_steps(1000, now);
    assert_eq!(announcements(&device.on_tick(now + seconds(1))), 0);
    device.set_max_steps(30, now);
    let outputs = device.on_tick(now + seconds(10));
    let steps = outputs.iter().find_map(|output| match output {
        Output::Publish(message) if message.topic.contains("/steps/") => Some(&message.payload),
        _ => None,
    });
    assert_eq!(serde_json::from_slice::<Value>(steps.unwrap()).unwrap()["max"], 30);
}

#[test]
fn the_end_of_a_job_is_an_event_that_is_published_once() {
    let now = Instant::now();
    let mut device = connected(now);
    device.on_tick(now);
    let event = |result: &Result<u64, JobError>| match device.on_job_end("a", result) {
        Output::Publish(message) => {
            assert_eq!((message.topic.as_str(), message.retain), ("d/home_assistant/job", true));
            serde_json::from_slice::<Value>(&message.payload).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(event(&Ok(1500)), json!({"event_type": "finished", "id": "a", "elapsed_ms": 1500}));
    let cancelled = event(&Err(JobError::cancelled()));
    assert_eq!((&cancelled["event_type"], &cancelled["code"]), (&"cancelled".into(), &"cancelled".into()));
    let failed = event(&Err(JobError::out_of_range("steps", "too many")));
    assert_eq!(
        failed,
        json!({
            "event_type": "failed", "id": "a", "code": "out_of_range", "field": "steps", "message": "too many",
        })
    );
    device.on_connected(now + seconds(5));
    assert!(!published(&device.on_tick(now + seconds(5))).0.contains(&"d/home_assistant/job"));
}
