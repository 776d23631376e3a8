//! Request an image from a running daemon and save it:
//! `cargo run --example mqtt_request mqtt://localhost:1883 NODE [REQUEST [OUTPUT]]`.
//!
//! The request has a response topic, so that the daemon sends the image and the result to this client alone.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use denoised::config::BrokerUrl;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions, RecvTimeoutError};

const USAGE: &str = "usage: mqtt_request mqtt://HOST:PORT NODE [REQUEST [OUTPUT]]
  NODE     the daemon's name, `node` in its configuration
  REQUEST  a JSON object [default: {}]
  OUTPUT   the image's file [default: image.png in the directory for temporary files]";

/// How long the daemon may take to accept the request, and from then on between two messages.
const TIMEOUT: Duration = Duration::from_secs(10);
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, node, more @ ..] = arguments.as_slice() else {
        println!("{USAGE}");
        return Ok(());
    };
    let url: BrokerUrl = url.parse().map_err(anyhow::Error::msg)?;
    ensure!(!url.tls, "this example does not support TLS; use mqtt://");
    let request = more.first().cloned().unwrap_or_else(|| "{}".to_owned());
    let output = more.get(1).map_or_else(|| std::env::temp_dir().join("image.png"), Into::into);

    let client_id = format!("mqtt-request-{}", std::process::id());
    let reply_topic = format!("example/{client_id}");
    let mut options = MqttOptions::new(client_id, &url.host, url.port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_max_packet_size(Some(64 << 20));
    let (client, mut connection) = Client::new(options, 8);
    // The state says whether this daemon is there, and its progress whether it has the request.
    let topics =
        [reply_topic.clone(), format!("denoised/{node}/status"), format!("denoised/{node}/progress/+")];
    client.subscribe_many(topics.map(|topic| Filter::new(topic, QoS::AtLeastOnce)))?;

    let mut deadline = Instant::now() + TIMEOUT;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let event = match connection.recv_timeout(remaining) {
            Ok(event) => event.with_context(|| url.to_string())?,
            Err(RecvTimeoutError::Timeout) => bail!(
                "no answer from {node}; compare NODE with `node` in the daemon's configuration, or with the topics of \
                 `mosquitto_sub -V 5 -t 'denoised/+/status' -v`"
            ),
            Err(RecvTimeoutError::Disconnected) => bail!("the connection ended without a result"),
        };
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                let properties = PublishProperties {
                    response_topic: Some(reply_topic.clone()),
                    ..PublishProperties::default()
                };
                let topic = format!("denoised/{node}/request");
                client.publish_with_properties(
                    topic,
                    QoS::AtLeastOnce,
                    false,
                    request.clone(),
                    properties,
                )?;
            }
            Event::Incoming(Packet::Publish(message)) if message.topic != reply_topic.as_bytes() => {
                ensure!(
                    &message.payload[..] != b"offline",
                    "the daemon {node} is offline; the broker keeps the request for up to a day"
                );
                deadline = Instant::now() + STEP_TIMEOUT;
            }
            Event::Incoming(Packet::Publish(message)) => match message_type(&message) {
                "image" => {
                    std::fs::write(&output, &message.payload)
                        .with_context(|| output.display().to_string())?;
                    println!("image -> {}", output.display());
                }
                "result" => {
                    println!("{}", String::from_utf8_lossy(&message.payload));
                    return Ok(());
                }
                "error" => bail!("{}", String::from_utf8_lossy(&message.payload)),
                _ => {}
            },
            _ => {}
        }
    }
}

/// The user property `type`, which distinguishes the replies.
fn message_type(message: &Publish) -> &str {
    let user = message.properties.iter().flat_map(|properties| &properties.user_properties);
    user.into_iter().find(|(name, _)| name == "type").map_or("", |(_, value)| value)
}
