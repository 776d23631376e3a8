//! A message on its way to the broker.

use std::borrow::Cow;

use bytes::Bytes;

/// How surely a message arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QoS {
    /// At most once; dropped while there is no connection.
    AtMostOnce,
    /// At least once.
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

/// A message with its MQTT 5 properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// How surely.
    pub quality: QoS,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// The payload's MIME type.
    pub content_type: Option<Cow<'static, str>>,
    /// The requester's correlation data.
    pub correlation: Option<Bytes>,
    /// User properties.
    pub user: Vec<(Cow<'static, str>, String)>,
}

impl Message {
    /// A message without properties, at least once, not retained.
    pub fn new(topic: String, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            quality: QoS::AtLeastOnce,
            retain: false,
            content_type: None,
            correlation: None,
            user: Vec::new(),
        }
    }

    /// The same for a requester's own topic, with its correlation data.
    pub fn for_reply(&self, topic: &str, correlation: Option<Vec<u8>>) -> Self {
        let mut copy = Self {
            topic: topic.to_owned(),
            correlation: correlation.map(Bytes::from),
            retain: false,
            ..self.clone()
        };
        copy.user.push((Cow::Borrowed("copy"), "reply".to_owned()));
        copy
    }

    /// At least as many bytes as its packet has.
    pub fn packet_size(&self) -> usize {
        const FIXED: usize = 5 + 2 + 4; // header, packet identifier, properties' length
        const PROPERTY: usize = 5; // its identifier and its lengths
        let user: usize = self.user.iter().map(|(name, value)| PROPERTY + name.len() + value.len()).sum();
        FIXED
            + 2
            + self.topic.len()
            + self.payload.len()
            + self.content_type.as_ref().map_or(0, |text| PROPERTY + text.len())
            + self.correlation.as_ref().map_or(0, |data| PROPERTY + data.len())
            + user
    }
}
