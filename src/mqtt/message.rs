//! An outgoing MQTT message.

use std::borrow::Cow;

use bytes::Bytes;

/// An MQTT quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    /// QoS 0; the client drops such a message while it is disconnected.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

/// A message with its MQTT 5 properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic name.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The quality of service.
    pub qos: QoS,
    /// Whether the broker retains the message.
    pub retain: bool,
    /// The payload's MIME type.
    pub content_type: Option<Cow<'static, str>>,
    /// The requester's correlation data.
    pub correlation_data: Option<Bytes>,
    /// User properties, as name and value.
    pub user_properties: Vec<(Cow<'static, str>, String)>,
    /// Where the answers to a request go. The spool does not keep it.
    pub response_topic: Option<String>,
    /// After how many seconds the broker drops the message if it was not delivered. The spool does not keep it.
    pub expiry_s: Option<u32>,
}

impl Message {
    /// Creates a message at QoS 1 that is not retained and has no properties.
    pub fn new(topic: String, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            content_type: None,
            correlation_data: None,
            user_properties: Vec::new(),
            response_topic: None,
            expiry_s: None,
        }
    }

    /// Returns a copy for the requester's response topic, marked by the user property `copy`.
    pub fn for_reply(&self, topic: &str, correlation_data: Option<Vec<u8>>) -> Self {
        let mut copy = Self {
            topic: topic.to_owned(),
            correlation_data: correlation_data.map(Bytes::from),
            retain: false,
            ..self.clone()
        };
        copy.user_properties.push((Cow::Borrowed("copy"), "reply".to_owned()));
        copy
    }

    /// Returns an upper bound of the PUBLISH packet's size, in bytes.
    pub fn packet_size(&self) -> usize {
        // Fixed header, packet identifier, length of the properties.
        const FIXED: usize = 5 + 2 + 4;
        // A property's identifier and length fields.
        const PROPERTY: usize = 5;
        let user_properties: usize =
            self.user_properties.iter().map(|(name, value)| PROPERTY + name.len() + value.len()).sum();
        FIXED
            + 2
            + self.topic.len()
            + self.payload.len()
            + self.content_type.as_ref().map_or(0, |text| PROPERTY + text.len())
            + self.correlation_data.as_ref().map_or(0, |data| PROPERTY + data.len())
            + self.response_topic.as_ref().map_or(0, |topic| PROPERTY + topic.len())
            + self.expiry_s.map_or(0, |_| PROPERTY)
            + user_properties
    }
}
