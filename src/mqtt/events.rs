//! What the link and its owner say to each other.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::mqtt::message::Message;
use crate::mqtt::topics::Input;

/// How the broker is reached.
#[derive(Clone)]
pub struct Settings {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether to encrypt, and with which authority.
    pub tls: Option<Option<PathBuf>>,
    /// The name by which the broker knows us.
    pub client_id: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// The largest packet, both ways.
    pub max_packet: u32,
    /// A certificate in PEM form that proves who we are, and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// A connection on which nothing moves for so long is given up; longer than the 10 s after which an idle one is pinged.
    pub patience: Duration,
}

impl AckToken {
    /// Whether the broker sends the message again on another connection.
    pub fn comes_again(&self) -> bool {
        self.publish.qos != rumqttc::v5::mqttbytes::QoS::AtMostOnce
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A message that came in.
#[derive(Debug)]
pub struct Incoming {
    /// What it means.
    pub input: Input,
    /// What it says.
    pub payload: Bytes,
    /// Where the requester wants the answer, besides the usual topics.
    pub response_topic: Option<String>,
    /// What the requester wants to see again there.
    pub correlation: Option<Bytes>,
    /// To be given back once the message is safe.
    pub receipt: AckToken,
}

/// The right to acknowledge one message on one connection.
#[derive(Debug)]
pub struct AckToken {
    pub(super) connection: u64,
    pub(super) publish: rumqttc::v5::mqttbytes::v5::Publish,
}

/// What the link tells.
#[derive(Debug)]
pub enum ClientEvent {
    /// A connection was made.
    Connected,
    /// It is gone.
    Disconnected,
    /// A message came in.
    Incoming(Incoming),
    /// The broker has the message with this number.
    Delivered(u64),
    /// The broker will never take a message, which is no longer here.
    Undeliverable {
        /// The message.
        message: Message,
        /// Its number.
        number: Option<u64>,
        /// Why.
        why: Refusal,
    },
    /// What a fetch brought, or why nothing.
    Retained {
        /// The topic.
        topic: String,
        /// The message's payload.
        found: Result<Bytes, String>,
    },
}

/// Why the broker does not take a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than this, the largest packet that the broker takes.
    TooLarge(usize),
    /// We may not publish on its topic, in the broker's word.
    Denied(String),
}

/// What the link is asked.
#[derive(Debug)]
pub enum ClientCommand {
    /// Deliver a message, which the spool knows by this number.
    Send {
        /// The message.
        message: Message,
        /// Its number, where its delivery is to be told.
        number: Option<u64>,
    },
    /// Acknowledge a message.
    Acknowledge(AckToken),
    /// Fetch the retained message on this topic.
    Fetch(String),
    /// Fetch it no longer.
    Forget(String),
    /// Deliver what is still here for so long, then disconnect and end.
    Close(Duration),
}
