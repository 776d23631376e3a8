//! What stands in the spool, as bytes.
//!
//! A message is its header as JSON behind the header's length, then the payload as it is. A job is
//! JSON. Reading never trusts: a record that is none is told by its fault.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::mqtt::{Message, QoS};

/// A request that was accepted and is not done yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcceptedJob {
    /// The job's id.
    pub id: String,
    /// What tells a repeated request from another one with the same id.
    pub digest: String,
    /// The request as JSON, its id and seed filled in.
    pub request: serde_json::Value,
    /// Where the requester wants answers besides the usual topics.
    pub reply: Option<ReplyTo>,
}

/// A requester's own topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The topic.
    pub topic: String,
    /// What the requester wants to see again there.
    pub correlation: Option<Vec<u8>>,
}

/// A job that was done, for answering repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DoneJob {
    /// The request's digest.
    pub digest: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The numbers of the messages that answered it on the usual topics.
    pub answers: Vec<u64>,
}

/// A record that is none.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It ends too early.
    #[error("the record ends within its header")]
    Short,
    /// Its header or body can't be read.
    #[error("the record can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A quality of service that MQTT has not.
    #[error("the record has the quality of service {0}")]
    QoS(u8),
}

#[derive(Serialize, Deserialize)]
struct Header {
    topic: String,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    correlation: Option<Vec<u8>>,
    user: Vec<(String, String)>,
}

/// A message as a record.
pub fn write_message(message: &Message) -> Vec<u8> {
    let header = Header {
        topic: message.topic.clone(),
        qos: message.qos as u8,
        retain: message.retain,
        content_type: message.content_type.as_deref().map(str::to_owned),
        correlation: message.correlation_data.as_ref().map(|data| data.to_vec()),
        user: message.user_properties.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
    };
    // Strings and numbers always have a form in JSON.
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let mut record = Vec::with_capacity(4 + header.len() + message.payload.len());
    record.extend((header.len() as u32).to_le_bytes());
    record.extend(header);
    record.extend_from_slice(&message.payload);
    record
}

/// The message of a record.
pub fn read_message(record: &[u8]) -> Result<Message, RecordError> {
    let (length, rest) = record.split_first_chunk::<4>().ok_or(RecordError::Short)?;
    let (header, payload) =
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(RecordError::Short)?;
    let header: Header = serde_json::from_slice(header)?;
    Ok(Message {
        topic: header.topic,
        payload: Bytes::copy_from_slice(payload),
        qos: match header.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            other => return Err(RecordError::QoS(other)),
        },
        retain: header.retain,
        content_type: header.content_type.map(Cow::Owned),
        correlation_data: header.correlation.map(Bytes::from),
        user_properties: header.user.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_survives_its_record(
            topic in "[a-z/]{1,20}",
            payload in prop::collection::vec(any::<u8>(), 0..200),
            correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            retain in any::<bool>(),
            value in ".{0,20}",
        ) {
            let message = Message {
                retain,
                correlation_data: correlation.map(Bytes::from),
                content_type: Some("image/png".into()),
                user_properties: vec![("id".into(), value)],
                qos: QoS::ExactlyOnce,
                ..Message::new(topic, payload)
            };
            prop_assert_eq!(read_message(&write_message(&message)).unwrap(), message);
        }

        #[test]
        fn anything_else_is_an_error_and_no_panic(record in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_message(&record);
        }
    }
}
