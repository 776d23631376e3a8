//! An ordinary MQTT client, which publishes requests and reads the answers.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::Value;

use crate::config::BrokerUrl;
use crate::mqtt::Topics;

/// A message about a job.
#[derive(Debug)]
pub(super) enum Answer {
    Progress { step: usize, of: usize, eta_ms: u64 },
    Image(Bytes),
    Result(Value),
    Error(String),
}

/// A client that is subscribed to all topics under a daemon's root.
pub(super) struct Subscriber {
    client: AsyncClient,
    events: EventLoop,
    topics: Topics,
}

impl Subscriber {
    /// Connects and subscribes.
    pub(super) async fn connect(url: &BrokerUrl, root: &str) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new("denoised-demo-subscriber", &url.host, url.port);
        options.set_keep_alive(Duration::from_secs(10));
        options.set_max_packet_size(Some(16 << 20));
        let (client, events) = AsyncClient::new(options, 16);
        let mut this = Self { client, events, topics: Topics::new(root) };
        this.client.subscribe(format!("{root}/#"), QoS::AtLeastOnce).await.context("subscribing")?;
        while !matches!(this.events.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
        Ok(this)
    }

    /// Waits until the daemon is ready, and returns its state.
    pub(super) async fn ready(&mut self) -> anyhow::Result<Value> {
        loop {
            let message = self.next().await?;
            if message.topic == self.topics.state().as_bytes() {
                let state: Value = serde_json::from_slice(&message.payload).context("the state")?;
                if state["phase"] == "ready" {
                    return Ok(state);
                }
            }
        }
    }

    /// Publishes a request.
    pub(super) async fn request(&mut self, request: &Value) -> anyhow::Result<()> {
        let payload = request.to_string();
        self.client
            .publish(self.topics.request(), QoS::AtLeastOnce, false, payload)
            .await
            .context("publishing a request")
    }

    /// Returns the next message about a job.
    pub(super) async fn answer(&mut self, id: &str) -> anyhow::Result<Answer> {
        loop {
            let message = self.next().await?;
            let topic = String::from_utf8_lossy(&message.topic).into_owned();
            let json = || serde_json::from_slice::<Value>(&message.payload).context(topic.clone());
            if topic == self.topics.progress(id) {
                let progress = json()?;
                let number = |key: &str| progress[key].as_u64().unwrap_or(0);
                return Ok(Answer::Progress {
                    step: number("step") as usize,
                    of: number("of") as usize,
                    eta_ms: number("eta_ms"),
                });
            } else if topic == self.topics.image() && belongs_to_job(&message, id) {
                return Ok(Answer::Image(message.payload));
            } else if topic == self.topics.result(id) {
                return Ok(Answer::Result(json()?));
            } else if topic == self.topics.error(id) {
                return Ok(Answer::Error(json()?["message"].as_str().unwrap_or_default().to_owned()));
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Publish> {
        loop {
            if let Event::Incoming(Packet::Publish(message)) = self.events.poll().await? {
                return Ok(message);
            }
        }
    }
}

fn belongs_to_job(message: &Publish, id: &str) -> bool {
    message.properties.as_ref().is_some_and(|properties| {
        let mut user = properties.user_properties.iter();
        user.any(|(name, value)| name == "id" && value == id)
    })
}
