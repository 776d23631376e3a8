//! The images of a request: in the request itself, or on the topic of a retained message.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{JobError, Request, shortened_id};
use crate::topic_name::topic_fault;

/// An image file that a request carries or refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an image is a string, a PNG, JPEG or WebP file in base64, or {\"topic\": \"…\"}, the topic of a retained message with such a file"
)]
pub enum Attachment {
    /// A PNG, JPEG or WebP file, in base64.
    Base64(String),
    /// The payload of a retained message.
    Retained(RetainedTopic),
}

/// The topic of a retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct RetainedTopic {
    /// The topic.
    pub topic: String,
}

/// An object only: serde also reads a struct from an array.
impl TryFrom<BTreeMap<String, String>> for RetainedTopic {
    type Error = String;

    fn try_from(mut fields: BTreeMap<String, String>) -> Result<Self, String> {
        match (fields.remove("topic"), fields.is_empty()) {
            (Some(topic), true) => Ok(Self { topic }),
            _ => Err("expected an object with topic alone".to_owned()),
        }
    }
}

impl Attachment {
    /// Encodes a file's bytes.
    pub fn from_bytes(file: &[u8]) -> Self {
        Self::Base64(BASE64.encode(file))
    }

    /// Returns the file's bytes; `field` is the request's field for the error.
    pub(super) fn to_bytes(&self, field: &str) -> Result<Vec<u8>, JobError> {
        match self {
            Self::Base64(text) => BASE64.decode(text).map_err(|error| {
                JobError::out_of_range(field, format!("{field} is not valid base64: {error}"))
            }),
            Self::Retained(RetainedTopic { topic }) => {
                let message = format!("{field}: the retained message on {topic} was not fetched");
                Err(JobError::out_of_range(field, message))
            }
        }
    }
}

impl Request {
    fn attachments(&mut self) -> impl Iterator<Item = (&'static str, &mut Attachment)> {
        let all = [("image", &mut self.image), ("mask", &mut self.mask)];
        all.into_iter().filter_map(|(field, attachment)| Some((field, attachment.as_mut()?)))
    }

    /// Replaces references to topics by the payloads that were fetched from them.
    ///
    /// Returns the topics that have yet to be fetched. A payload over `max_bytes` is an error.
    pub fn attach(
        &mut self,
        fetched: &BTreeMap<String, Result<Bytes, String>>,
        max_bytes: u64,
    ) -> Result<Vec<String>, JobError> {
        let mut missing = Vec::new();
        for (field, attachment) in self.attachments() {
            let Attachment::Retained(RetainedTopic { topic }) = attachment else { continue };
            let wrong = |why: String| JobError::out_of_range(field, format!("{field}: {topic}: {why}"));
            match fetched.get(topic) {
                None if let Some(fault) = topic_fault(topic) => {
                    let shown = shortened_id(topic);
                    let message = format!("{field}: {shown:?} is not a topic that can be fetched: {fault}");
                    return Err(JobError::out_of_range(field, message));
                }
                None if missing.contains(topic) => {}
                None => missing.push(topic.clone()),
                Some(Err(reason)) => return Err(wrong(reason.clone())),
                Some(Ok(bytes)) if bytes.len() as u64 > max_bytes => {
                    let size = bytes.len();
                    let message = format!("{size} bytes; at most {max_bytes} are taken (limits.payload)");
                    return Err(wrong(message));
                }
                Some(Ok(bytes)) => *attachment = Attachment::from_bytes(bytes),
            }
        }
        Ok(missing)
    }
}
