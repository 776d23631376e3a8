//! The client's settings, its commands and its events.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::Publish;

use super::message::{Message, QoS};
use super::topics::MessageKind;

/// How to connect to the broker.
#[derive(Clone)]
pub struct ClientSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `None` connects without TLS. The inner path names the CA file; without one, the system's
    /// certificates are trusted.
    pub tls: Option<Option<PathBuf>>,
    /// The MQTT client identifier.
    pub client_id: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// The largest packet to send or receive, in bytes.
    pub max_packet: u32,
    /// The QoS of images, results and errors.
    pub qos: QoS,
    /// The TLS client certificate and its key, as PEM files.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// A connection without any activity for this time is closed. Must exceed the keep-alive
    /// interval of 10 s; a longer interval of the broker extends it.
    pub stall_timeout: Duration,
}

impl std::fmt::Debug for ClientSettings {
    /// Omits the credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A message that was received on one of the daemon's input topics.
#[derive(Debug)]
pub struct Incoming {
    /// The kind of the message, as given by the topic.
    pub kind: MessageKind,
    /// The payload.
    pub payload: Bytes,
    /// When the message arrived.
    pub arrival: Instant,
    /// Whether the broker had retained the message before the daemon subscribed.
    pub is_retained: bool,
    /// The MQTT 5 response topic.
    pub response_topic: Option<String>,
    /// The MQTT 5 correlation data.
    pub correlation_data: Option<Bytes>,
    /// The topic on which the daemon that forwarded a request waits for a claim.
    pub claim_topic: Option<String>,
    /// Acknowledges the message; to be passed back with [`ClientCommand::Ack`] once the message's
    /// effects are stored.
    pub ack: AckToken,
}

/// Permission to acknowledge one message on the connection that delivered it.
#[derive(Debug)]
pub struct AckToken {
    pub(super) connection_id: u64,
    pub(super) publish: Publish,
}

impl AckToken {
    /// The token of a message at QoS 1 that no broker has sent.
    #[cfg(test)]
    pub(crate) fn without_broker(topic: &str) -> Self {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        Self { connection_id: 0, publish: Publish::new(topic, qos, "", None) }
    }

    /// The topic of the message.
    pub fn topic(&self) -> String {
        String::from_utf8_lossy(&self.publish.topic).into_owned()
    }

    /// Returns whether the broker redelivers the message on the next connection if it is not
    /// acknowledged.
    pub fn is_redelivered(&self) -> bool {
        self.publish.qos != rumqttc::v5::mqttbytes::QoS::AtMostOnce
    }
}

/// An event that the client reports to its owner.
#[derive(Debug)]
pub enum ClientEvent {
    /// The broker accepted the connection.
    Connected {
        /// Whether it had a session of this client id.
        has_session: bool,
    },
    /// Another client connected with this client id.
    TakenOver,
    /// The broker granted the subscription to the daemon's requests, so that they arrive.
    Subscribed,
    /// The connection was lost, or could not be made.
    Disconnected,
    /// What the broker does not serve, each in one sentence. Replaces what was reported before.
    Deficits(Vec<String>),
    /// The broker no longer gives the daemon requests of this former shared queue.
    LeftQueue(String),
    /// A request or a cancellation was received.
    Incoming(Incoming),
    /// The broker acknowledged the message with this number.
    Delivered(u64),
    /// Nobody gets this request on the queue of a model, or the broker does not take it.
    NoSubscriber(Message),
    /// The broker will never accept this message; the client dropped it.
    Undeliverable {
        /// The message.
        message: Message,
        /// Its number.
        number: Option<u64>,
        /// The reason.
        reason: UndeliverableReason,
    },
    /// The result of fetching a retained message.
    Retained {
        /// The topic.
        topic: String,
        /// The retained payload, or why it can't be read.
        payload: Result<Bytes, String>,
    },
    /// The broker does not let the daemon follow this topic.
    FollowRefused {
        /// The topic.
        topic: String,
        /// The reason.
        reason: String,
    },
}

/// Why the broker will never accept a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndeliverableReason {
    /// The packet is larger than this limit, in bytes.
    TooLarge(usize),
    /// The broker answered that the message is too large, and has not stated a limit.
    TooLargeForBroker,
    /// The broker rejected the message with this reason code.
    Rejected(String),
}

/// A command to the client.
#[derive(Debug)]
pub enum ClientCommand {
    /// Deliver a message.
    Send {
        /// The message.
        message: Message,
        /// If set, the message's delivery is reported with this number.
        number: Option<u64>,
    },
    /// Acknowledge a received message.
    Ack(AckToken),
    /// Fetch the retained message of this topic.
    FetchRetained(String),
    /// Stop fetching the retained message of this topic.
    CancelFetch(String),
    /// Keep the newest message of this topic in [`MqttClient::newest`](super::client::MqttClient::newest), the retained one
    /// first.
    Follow(String),
    /// Stop following this topic.
    Unfollow(String),
    /// Take requests from the queue with this filter of a shared subscription.
    JoinQueue(String),
    /// Take no more requests from this queue.
    LeaveQueue(String),
    /// Deliver pending messages for at most this time, then disconnect and end.
    Close(Duration),
}
