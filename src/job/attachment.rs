//! Where a request's pictures are: in it, or on a topic.

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{JobError, Request};

/// A picture that a request begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a picture is a string, a PNG or JPEG file in base64, or {\"topic\": \"…\"}, where such a file is retained"
)]
pub enum Attached {
    /// A PNG or JPEG file in base64.
    Base64(String),
    /// One that the broker keeps as a retained message.
    Retained(OnTopic),
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnTopic {
    /// Its topic.
    pub topic: String,
}

impl Attached {
    /// A file's bytes.
    pub fn file(bytes: &[u8]) -> Self {
        Self::Base64(base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// The file, where it is here.
    pub(super) fn base64(&self, field: &str) -> Result<&String, JobError> {
        match self {
            Self::Base64(text) => Ok(text),
            Self::Retained(OnTopic { topic }) => {
                Err(JobError::range(field, format!("{field}: nothing was fetched from the topic {topic}")))
            }
        }
    }
}

impl Request {
    fn attachments(&mut self) -> impl Iterator<Item = (&'static str, &mut Attached)> {
        let all = [("image", &mut self.image), ("mask", &mut self.mask)];
        all.into_iter().filter_map(|(field, attached)| Some((field, attached.as_mut()?)))
    }

    /// Put what was found on topics into the request, each of at most so many bytes; tells the topics that
    /// are still to be looked at.
    pub fn attach(
        &mut self,
        found: &BTreeMap<String, Result<Bytes, String>>,
        most: u64,
    ) -> Result<Vec<String>, JobError> {
        let mut missing = Vec::new();
        for (field, attached) in self.attachments() {
            let Attached::Retained(OnTopic { topic }) = attached else { continue };
            let wrong = |why: String| JobError::range(field, format!("{field}: {topic}: {why}"));
            match found.get(topic) {
                None if !crate::topic_name::is_topic_name(topic) => {
                    return Err(wrong("is no topic; wildcards can't be fetched".to_owned()));
                }
                None if missing.contains(topic) => {}
                None => missing.push(topic.clone()),
                Some(Err(reason)) => return Err(wrong(reason.clone())),
                Some(Ok(bytes)) if bytes.len() as u64 > most => {
                    let size = bytes.len();
                    return Err(wrong(format!("{size} bytes; at most {most} are taken (limits.payload)")));
                }
                Some(Ok(bytes)) => *attached = Attached::file(bytes),
            }
        }
        Ok(missing)
    }
}
