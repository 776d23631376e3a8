//! Home Assistant's side of the broker: what it reads, and what its entities publish.

mod restarts;
mod settings;

use std::path::Path;

use serde_json::{Value, json};

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::{Received, Subscriber};

const SETTINGS: &str = "denoised/test/home_assistant/settings";
const DRAW_ENTITY: &str = "homeassistant/button/denoised_test/draw/config";

/// A daemon that Home Assistant sees, with a subscriber to all topics that was there before.
struct Announced {
    broker: Broker,
    subscriber: Subscriber,
    daemon: Daemon,
    /// The models of the configuration.
    models: Vec<std::path::PathBuf>,
}

impl Announced {
    /// Starts a daemon with the model of digits.
    fn start() -> Self {
        Self::with_models(&[&model("digits")])
    }

    /// Starts a daemon, and waits until it is announced.
    fn with_models(models: &[&Path]) -> Self {
        let broker = Broker::start();
        let subscriber = Subscriber::start(&broker, "#");
        let daemon = Daemon::start(&config(&broker, models, "enabled = true"));
        let models = models.iter().map(|path| path.to_path_buf()).collect();
        let mut announced = Self { broker, subscriber, daemon, models };
        // They are published with the announcement, and once more when Home Assistant has read it.
        announced.subscriber.on(SETTINGS);
        announced.subscriber.on(SETTINGS);
        announced.daemon.wait_for("ready: requests are accepted");
        announced
    }

    /// The configuration with these lines of `[home_assistant]`.
    fn config(&self, home_assistant: &str) -> String {
        let models: Vec<_> = self.models.iter().map(std::path::PathBuf::as_path).collect();
        config(&self.broker, &models, home_assistant)
    }

    /// Publishes what an entity publishes, and returns the number of messages that were seen before.
    fn command(&mut self, name: &str, payload: &str) -> usize {
        self.subscriber.drain();
        let seen = self.subscriber.seen.len();
        publish(&self.broker, &format!("denoised/test/home_assistant/{name}"), payload, &[]);
        seen
    }

    /// Changes settings, and returns those that are published then.
    fn set(&mut self, changes: &Value) -> Value {
        let seen = self.command("settings/set", &changes.to_string());
        self.after(seen, SETTINGS).json()
    }

    /// Returns the first message on a topic after those that were seen before.
    fn after(&mut self, seen: usize, topic: &str) -> Received {
        match self.subscriber.seen[seen..].iter().find(|message| message.topic == topic) {
            Some(message) => message.clone(),
            None => self.subscriber.on(topic),
        }
    }

    /// Presses the button that draws. Returns the picture, the facts about it and the end of the job.
    fn draw(&mut self) -> (Received, Value, Value) {
        let seen = self.command("draw", "PRESS");
        let end = self.after(seen, "denoised/test/home_assistant/job").json();
        let facts = self.after(seen, "denoised/test/home_assistant/picture").json();
        (self.after(seen, "denoised/test/image"), facts, end)
    }
}

fn config(broker: &Broker, models: &[&Path], home_assistant: &str) -> String {
    let more = format!("[engine]\nkind = \"embedded\"\n[home_assistant]\n{home_assistant}");
    configuration(broker, "test", models, &more)
}

#[test]
fn the_button_draws_an_ordinary_job_with_the_settings() {
    let mut announced = Announced::start();
    let entity = announced.after(0, DRAW_ENTITY).json();
    assert_eq!(entity["command_topic"], "denoised/test/home_assistant/draw");
    assert_eq!(entity["device"]["identifiers"], json!(["denoised_test"]));
    let settings = announced.set(&json!({"class_name": "7", "steps": 4, "seed": 42}));
    assert_eq!(
        settings,
        json!({
            "model": "digits", "seed": 42, "steps": 4, "guidance": 2.0, "class": 7, "class_name": "7",
        })
    );
    let (picture, facts, end) = announced.draw();
    assert_eq!((&facts["class"], &facts["seed"], &facts["steps"]), (&json!(7), &json!(42), &json!(4)));
    assert_eq!((&facts["sampler"], &facts["engine"]), (&json!("dpmpp_2m_sde"), &json!("embedded")));
    assert_eq!(facts.get("scheduler"), None);
    assert_eq!((&end["event_type"], &end["id"]), (&json!("finished"), &facts["id"]));
    assert!(end["elapsed_ms"].is_u64(), "{end}");
    let id = end["id"].as_str().unwrap();
    assert!(id.starts_with("home-assistant-"), "{id}");
    let preview = format!("denoised/test/preview/{id}");
    let previews = announced.subscriber.seen.iter().filter(|message| message.topic == preview).count();
    assert!((1..=10).contains(&previews), "{previews}");
    let job = r#"{"id": "same", "class": 7, "seed": 42, "steps": 4}"#;
    publish(&announced.broker, "denoised/test/request", job, &[]);
    assert!(announced.subscriber.on("denoised/test/image").payload == picture.payload);
    // Without a seed, each press draws another picture.
    announced.set(&json!({"seed": null}));
    let (one, facts, _) = announced.draw();
    assert!(facts["seed"].is_u64() && one.payload != picture.payload);
    let (other, ..) = announced.draw();
    assert!(one.payload != other.payload);
}

#[test]
fn the_other_button_cancels_what_the_first_one_started_and_nothing_else() {
    let mut announced = Announced::start();
    announced.set(&json!({"steps": 900}));
    let job = r#"{"id": "other", "steps": 900, "count": 30}"#;
    publish(&announced.broker, "denoised/test/request", job, &[]);
    announced.subscriber.on("denoised/test/progress/other");
    announced.command("draw", "PRESS");
    announced.command("draw", "PRESS");
    announced.subscriber.next(|message| message.topic.starts_with("denoised/test/progress/home-assistant-"));
    let seen = announced.command("cancel", "PRESS");
    let first = announced.after(seen, "denoised/test/home_assistant/job").json();
    let second = announced.subscriber.on("denoised/test/home_assistant/job").json();
    for end in [&first, &second] {
        assert_eq!(end["event_type"], "cancelled", "{end}");
        assert!(end["id"].as_str().unwrap().starts_with("home-assistant-"), "{end}");
    }
    assert_ne!(first["id"], second["id"]);
    publish(&announced.broker, "denoised/test/cancel", r#"{"id": "other"}"#, &[]);
    assert_eq!(announced.subscriber.on("denoised/test/error/other").json()["code"], "cancelled");
}

#[test]
fn a_broker_that_denies_the_announcement_is_named_once_and_jobs_go_on() {
    let acl = "topic readwrite denoised/#\ntopic read homeassistant/#\n";
    let broker = Broker::with_files("acl_file {dir}/acl", &[("acl", acl)]);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, &[&golden("gaussian")], "enabled = true"));
    let line = daemon.wait_for("Home Assistant does not see this daemon");
    assert!(line.contains("allow it in the broker's access list, as docs/security.md shows"), "{line}");
    publish(&broker, "denoised/test/home_assistant/draw", "PRESS", &[]);
    subscriber.on("denoised/test/image");
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(daemon.count("Home Assistant does not see"), 1);
}
