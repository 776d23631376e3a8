//! What the daemon publishes, received by the mock broker.

use std::collections::BTreeSet;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties};
use serde_json::{Value, json};

use super::snapshot::{check, check_json};
use crate::common::board::Tree;
use crate::common::bundles::model;
use crate::common::daemon::Daemon;
use crate::common::golden;
use crate::common::mock_broker::{MockBroker, MockConnection, no_properties};
use crate::common::thermal::set_temperature;

/// A daemon with its only connection.
struct Connected {
    daemon: Daemon,
    peer: MockConnection,
    packet: u16,
    /// Topic and properties of all messages so far.
    messages: BTreeSet<String>,
    _board: Tree,
}

impl Connected {
    /// Starts the daemon and waits until it is ready; returns its state too.
    async fn start() -> (Self, Value) {
        let broker = MockBroker::start().await;
        let board = Tree::jetson("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");
        set_temperature(board.path(), 48);
        board.write("sys/class/thermal/cooling_device0/type", "gpu-devfreq\n");
        board.write("sys/class/thermal/cooling_device0/cur_state", "2\n");
        let configuration = format!(
            "node = \"test\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nroot = \"d\"\nmax_packet = \"4 KiB\"\n\
             [models]\npaths = [{:?}, {:?}]\n[engine]\nkind = \"embedded\"\n\
             [limits]\npayload = \"2 KiB\"\nqueue = 1\ndrain_s = 60\n[board]\nroot = {:?}\n",
            broker.port,
            golden("gaussian"),
            model("swissroll"),
            board.path()
        );
        let daemon = Daemon::start(&configuration);
        let peer = broker.accept(false, no_properties()).await;
        let mut connected = Self { daemon, peer, packet: 0, messages: BTreeSet::new(), _board: board };
        let state = connected.state(|state| state["phase"] == "ready" && !state["thermal"].is_null()).await;
        (connected, state)
    }

    /// Returns the next message whose topic starts with `topic`, and acknowledges it with `reason`.
    async fn next(&mut self, topic: &str, reason: PubAckReason) -> Publish {
        loop {
            let Packet::Publish(publish) = self.peer.read().await else { continue };
            let found = String::from_utf8(publish.topic.to_vec()).unwrap();
            let is_match = found.starts_with(topic);
            if publish.qos != QoS::AtMostOnce {
                let reason = if is_match { reason } else { PubAckReason::Success };
                self.peer.acknowledge(publish.pkid, reason).await;
            }
            let properties = publish.properties.clone().unwrap_or_default();
            let user: Vec<_> =
                properties.user_properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
            self.messages.insert(format!(
                "{found} {:?} retained={} {} correlation={:?} {}",
                publish.qos,
                publish.retain,
                properties.content_type.as_deref().unwrap_or("-"),
                properties.correlation_data,
                user.join(" ")
            ));
            if is_match {
                return publish;
            }
        }
    }

    /// Waits for a message on a topic, unless it has arrived before.
    async fn wait_for(&mut self, topic: &str) {
        if !self.messages.iter().any(|line| line.starts_with(topic)) {
            self.next(topic, PubAckReason::Success).await;
        }
    }

    /// Returns the payload of the next message on a topic.
    async fn json(&mut self, topic: &str) -> Value {
        serde_json::from_slice(&self.next(topic, PubAckReason::Success).await.payload).unwrap()
    }

    /// Returns the next state that `matches`.
    async fn state(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        loop {
            let state = self.json("d/state").await;
            if matches(&state) {
                return state;
            }
        }
    }

    async fn send(&mut self, topic: &str, payload: &str, response_topic: Option<&str>) {
        self.packet += 1;
        let properties = PublishProperties {
            response_topic: response_topic.map(str::to_owned),
            correlation_data: response_topic.map(|_| "c-42".into()),
            ..PublishProperties::default()
        };
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload.to_owned(), Some(properties));
        publish.pkid = self.packet;
        self.peer.write(Packet::Publish(publish)).await;
    }

    async fn request(&mut self, request: &str) {
        self.send("d/request", request, None).await;
    }

    /// Returns the next error as a line of text.
    async fn error(&mut self) -> String {
        let error = self.json("d/error/").await;
        format!(
            "{} {} {}",
            error["code"].as_str().unwrap(),
            error["field"].as_str().unwrap_or("-"),
            error["message"].as_str().unwrap()
        )
    }
}

const LONG: &str =
    r#"{"id": "long", "steps": 1000, "sampler": "ddpm", "count": 64, "seed": 1, "exact": true}"#;

#[tokio::test]
async fn state_messages_and_result_match_their_snapshots() {
    let (mut connected, state) = Connected::start().await;
    check_json("state", &state);

    let job = json!({"id": "a", "steps": 2, "sampler": "ddim", "seed": 7, "preview_every": 1});
    connected.send("d/request", &job.to_string(), Some("answers/me")).await;
    let mut result = connected.json("d/result/a").await;
    connected.json("answers/me").await;
    // The last bits of an image depend on the CPU.
    result["images"][0]["sha256"] = "[sha256]".into();
    result["images"][0]["bytes"] = 0.into();
    check_json("result", &result);

    connected.send("d/request", r#"{"id": "b", "steps": 0}"#, Some("answers/me")).await;
    check_json("error", &connected.json("d/error/b").await);
    connected.json("answers/me").await;
    connected.request(LONG).await;
    let mut progress = connected.json("d/progress/long").await;
    progress["step"] = 1.into();
    check_json("progress", &progress);
    connected.daemon.signal("TERM");
    connected.state(|state| state["phase"] == "draining").await;
    connected.send("d/cancel", r#"{"id": "long"}"#, None).await;
    connected.error().await;
    connected.next("d/status", PubAckReason::Success).await;
    let messages: Vec<_> = connected.messages.iter().map(String::as_str).collect();
    check("messages", &messages.join("\n"));
}

#[tokio::test]
async fn errors_of_the_daemon_match_their_snapshot() {
    let (mut connected, _) = Connected::start().await;
    let mut lines = Vec::new();
    connected.request(&format!("{{\"model\": \"{}\"}}", "x".repeat(3000))).await;
    lines.push(connected.error().await);
    connected.send("d/request", "{}", Some("answers/#")).await;
    lines.push(connected.error().await);
    connected.send("d/cancel", "stop!", None).await;
    lines.push(connected.error().await);

    connected
        .request(r#"{"id": "large", "model": "swissroll", "steps": 2, "seed": 1, "format": "npy"}"#)
        .await;
    lines.push(connected.error().await);
    connected.wait_for("d/result/large").await;
    connected.send("d/request", r#"{"id": "denied", "steps": 2, "seed": 1}"#, Some("denied/me")).await;
    connected.next("denied/me", PubAckReason::NotAuthorized).await;
    lines.push(connected.error().await);
    connected.wait_for("d/result/denied").await;

    connected.request(LONG).await;
    connected.request(r#"{"id": "next"}"#).await;
    lines.push(connected.error().await);
    connected.request(r#"{"id": "long"}"#).await;
    lines.push(connected.error().await);
    connected.daemon.signal("TERM");
    connected.state(|state| state["phase"] == "draining").await;
    connected.request(r#"{"id": "late"}"#).await;
    lines.push(connected.error().await);
    connected.send("d/cancel", r#"{"id": "long"}"#, None).await;
    lines.push(connected.error().await);
    check("errors-daemon", &lines.join("\n"));
}
