//! Restarts of the daemon, the broker and Home Assistant, and what is left after Home Assistant was disabled.

use std::sync::Arc;

use serde_json::json;

use super::{Announced, DRAW_ENTITY, SETTINGS};
use crate::common::broker::publish;
use crate::common::daemon::Daemon;
use crate::common::subscriber::Subscriber;

const MARK: &str = "test/mark";

impl Announced {
    /// Starts a daemon with the same spool and these lines of `[home_assistant]`, after the last one was stopped or killed.
    fn restart(&mut self, home_assistant: &str) {
        let spool = Arc::clone(&self.daemon.spool);
        self.daemon = Daemon::with_spool(&self.config(home_assistant), &spool);
        self.daemon.wait_for("ready: requests are accepted");
    }

    /// Returns the topics below these that the broker retains.
    fn retained(&self, filter: &str) -> Vec<String> {
        let mut subscriber = Subscriber::start(&self.broker, "#");
        // It comes after what is retained.
        publish(&self.broker, MARK, "mark", &[]);
        subscriber.on(MARK);
        let below = filter.trim_end_matches('#');
        let topics = subscriber.seen.iter().map(|message| message.topic.clone());
        topics.filter(|topic| topic.starts_with(below)).collect()
    }

    fn announcements(&mut self) -> usize {
        self.subscriber.drain();
        let seen = self.subscriber.seen.iter();
        seen.filter(|message| message.topic == DRAW_ENTITY && !message.payload.is_empty()).count()
    }
}

#[test]
fn settings_survive_a_killed_daemon() {
    let mut announced = Announced::start();
    announced.set(&json!({"class": 3, "steps": 5}));
    announced.daemon.kill();
    announced.subscriber.drain();
    let seen = announced.subscriber.seen.len();
    announced.restart("enabled = true");
    let settings = announced.after(seen, SETTINGS).json();
    assert_eq!((&settings["class"], &settings["steps"]), (&json!(3), &json!(5)));
    let (_, facts, _) = announced.draw();
    assert_eq!((&facts["class"], &facts["steps"]), (&json!(3), &json!(5)));
}

#[test]
fn a_press_while_the_daemon_is_stopped_is_drawn_after_its_start() {
    let mut announced = Announced::start();
    announced.set(&json!({"class": 3, "steps": 3}));
    assert_eq!(announced.daemon.terminate(), Some(0));
    announced.command("settings/set", r#"{"class": 4}"#);
    let seen = announced.command("draw", "PRESS");
    announced.restart("enabled = true");
    let facts = announced.after(seen, "denoised/test/home_assistant/picture").json();
    assert_eq!((&facts["class"], &facts["steps"]), (&json!(4), &json!(3)));
}

#[test]
fn a_birth_message_and_a_broker_without_its_retained_messages_are_one_announcement_each() {
    let mut announced = Announced::start();
    assert_eq!(announced.announcements(), 1);
    for _ in 0..2 {
        publish(&announced.broker, "homeassistant/status", "online", &[]);
    }
    announced.subscriber.on(DRAW_ENTITY);
    // Nothing is published for these.
    publish(&announced.broker, "homeassistant/status", "offline", &[]);
    announced.command("settings/set", r#"{"steps": 3}"#);
    announced.subscriber.next(|message| message.topic == SETTINGS && message.json()["steps"] == 3);
    assert_eq!(announced.announcements(), 2);
    announced.broker.kill();
    announced.daemon.wait_for("no connection to the broker");
    announced.broker.run();
    let mut subscriber = Subscriber::start(&announced.broker, "#");
    subscriber.on(DRAW_ENTITY);
    assert_eq!(subscriber.on(SETTINGS).json()["steps"], 3);
}

#[test]
fn a_daemon_on_which_it_is_disabled_leaves_nothing_behind() {
    let mut announced = Announced::start();
    announced.draw();
    assert!(announced.retained("homeassistant/#").len() > 10);
    assert_eq!(announced.daemon.terminate(), Some(0));
    // The broker's session still has the subscription.
    publish(&announced.broker, "denoised/test/home_assistant/draw", "PRESS", &[]);
    announced.restart("enabled = false");
    announced.subscriber.next(|message| message.topic == DRAW_ENTITY && message.payload.is_empty());
    assert_eq!(announced.daemon.terminate(), Some(0));
    assert_eq!(announced.daemon.count("because home_assistant.enabled is false"), 1);
    assert_eq!(announced.retained("homeassistant/#"), [""; 0]);
    assert_eq!(announced.retained("denoised/test/home_assistant/#"), [""; 0]);
    // The settings are still there when it is enabled again, in another form and with another prefix.
    announced.restart("enabled = true\nprefix = \"ha\"\ndiscovery = \"device\"");
    announced.subscriber.on("ha/device/denoised_test/config");
    announced.subscriber.on(SETTINGS);
    assert_eq!(announced.retained("ha/#"), ["ha/device/denoised_test/config"]);
}
