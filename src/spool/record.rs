//! The records of the spool's file.
//!
//! A message is the length of its header in 4 bytes, the header as JSON, and the payload. A job is
//! JSON. Records are validated on read; a malformed record is reported as an error.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::mqtt::{Message, QoS};

/// A job that was accepted and is not finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcceptedJob {
    /// The job's id.
    pub id: String,
    /// A digest of the request, which differs between requests with the same id.
    pub digest: String,
    /// The request as JSON, including its id and seed.
    pub request: serde_json::Value,
    /// The requester's response topic.
    pub reply: Option<ReplyTo>,
}

/// Where a requester wants the answers besides the daemon's own topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The MQTT 5 response topic.
    pub topic: String,
    /// The MQTT 5 correlation data.
    pub correlation: Option<Vec<u8>>,
}

/// A completed job, by which repeated requests are answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CompletedRecord {
    /// The request's digest.
    pub digest: String,
    /// The spool's time at which the job finished, in seconds.
    pub at: u64,
    /// The numbers of the job's answers on the daemon's own topics.
    pub answers: Vec<u64>,
}

/// A malformed record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record is shorter than its header.
    #[error("the record is truncated")]
    Truncated,
    /// The JSON is invalid.
    #[error("the record is malformed: {0}")]
    Json(serde_json::Error),
    /// The quality of service does not exist.
    #[error("the record has QoS {0}; MQTT has 0, 1 and 2")]
    QoS(u8),
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<RecordError> for redb::Error {
    fn from(error: RecordError) -> Self {
        Self::Corrupted(error.to_string())
    }
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

/// Encodes a message as a record.
pub fn write_message(message: &Message) -> Vec<u8> {
    let header = write_json(&Header {
        topic: message.topic.clone(),
        qos: message.qos as u8,
        retain: message.retain,
        content_type: message.content_type.as_deref().map(str::to_owned),
        correlation: message.correlation_data.as_ref().map(|data| data.to_vec()),
        user: message.user_properties.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
    });
    let mut record = Vec::with_capacity(4 + header.len() + message.payload.len());
    record.extend((header.len() as u32).to_le_bytes());
    record.extend(header);
    record.extend_from_slice(&message.payload);
    record
}

/// Decodes a message from a record.
pub fn read_message(record: &[u8]) -> Result<Message, RecordError> {
    let (length, rest) = record.split_first_chunk::<4>().ok_or(RecordError::Truncated)?;
    let (header, payload) =
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(RecordError::Truncated)?;
    let header: Header = read_json(header)?;
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
        response_topic: None,
        expiry_s: None,
    })
}

/// Encodes a value as JSON.
#[expect(clippy::expect_used, reason = "serialization to memory fails only for types that no record has")]
pub(super) fn write_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records consist of strings, numbers, lists and JSON values")
}

/// Decodes a value from JSON.
pub(super) fn read_json<T: DeserializeOwned>(record: &[u8]) -> Result<T, RecordError> {
    Ok(serde_json::from_slice(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_message_is_equal_after_a_round_trip(
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
        fn an_invalid_record_is_an_error_and_not_a_panic(record in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_message(&record);
        }
    }
}
