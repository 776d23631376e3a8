//! The messages that answer a request.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::PublishQos;
use crate::image::Format;
use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, JobError};
use crate::mqtt::{Message, QoS, Topics};
use crate::spool::ReplyTo;

/// Where a requester wants answers besides the usual topics.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) correlation: Option<Bytes>,
}

impl Reply {
    /// As the spool keeps it.
    pub(super) fn to_record(&self) -> ReplyTo {
        let correlation = self.correlation.as_ref().map(|data| data.to_vec());
        ReplyTo { topic: self.topic.clone(), correlation }
    }

    /// From the spool.
    pub(super) fn of_record(record: ReplyTo) -> Self {
        Self { topic: record.topic, correlation: record.correlation.map(Bytes::from) }
    }
}

/// An image that was handed to the link.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Delivered {
    topics: Vec<String>,
    bytes: usize,
    sha256: String,
    content_type: &'static str,
    receipt: Receipt,
}

/// Makes messages for a daemon's topics.
#[derive(Debug)]
pub(super) struct Answers {
    topics: Topics,
    quality: QoS,
}

#[derive(Debug, Serialize)]
struct Result<'a> {
    id: &'a str,
    images: Vec<Delivered>,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    id: &'a str,
    code: ErrorCode,
    field: Option<&'a str>,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Progress {
    step: usize,
    of: usize,
    eta_ms: u64,
}

impl Answers {
    pub(super) fn new(topics: Topics, qos: PublishQos) -> Self {
        let quality = match qos {
            PublishQos::AtLeastOnce => QoS::AtLeastOnce,
            PublishQos::ExactlyOnce => QoS::ExactlyOnce,
        };
        Self { topics, quality }
    }

    /// An image on its topic, which keeps the last one, and to the requester.
    pub(super) fn image(
        &self,
        receipt: Receipt,
        format: Format,
        bytes: Vec<u8>,
        reply: Option<&Reply>,
    ) -> (Vec<Message>, Delivered) {
        let sha256 = Sha256::digest(&bytes);
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let size = bytes.len();
        let message = Message {
            quality: self.quality,
            retain: true,
            content_type: Some(format.content_type().into()),
            user: vec![
                ("type".into(), "image".to_owned()),
                ("id".into(), receipt.id.clone()),
                ("index".into(), receipt.index.to_string()),
                ("seed".into(), receipt.seed.to_string()),
                ("model".into(), receipt.model.clone()),
                ("sampler".into(), receipt.sampler.clone()),
                ("steps".into(), receipt.steps.to_string()),
            ],
            ..Message::new(self.topics.image(), bytes)
        };
        let messages = with_reply(message, reply);
        let delivered = Delivered {
            topics: messages.iter().map(|m| m.topic.clone()).collect(),
            bytes: size,
            sha256,
            content_type: format.content_type(),
            receipt,
        };
        (messages, delivered)
    }

    /// A job's receipts.
    pub(super) fn result(
        &self,
        id: &str,
        mut images: Vec<Delivered>,
        elapsed_ms: u64,
        reply: Option<&Reply>,
    ) -> Vec<Message> {
        images.sort_by_key(|image| image.receipt.index);
        let result = Result { id, images, elapsed_ms };
        with_reply(self.json(self.topics.result(id), "result", id, &result), reply)
    }

    /// Why a job is not done.
    pub(super) fn error(&self, id: &str, error: &JobError, reply: Option<&Reply>) -> Vec<Message> {
        let body = Error { id, code: error.code, field: error.field.as_deref(), message: &error.message };
        with_reply(self.json(self.topics.error(id), "error", id, &body), reply)
    }

    /// How far a job is.
    pub(super) fn progress(&self, id: &str, step: usize, of: usize, eta_ms: u64) -> Vec<Message> {
        let progress = Progress { step, of, eta_ms };
        let message = self.json(self.topics.progress(id), "progress", id, &progress);
        vec![Message { quality: QoS::AtMostOnce, ..message }]
    }

    /// The present x̂_0 of a job's image.
    pub(super) fn preview(&self, id: &str, index: usize, png: Vec<u8>) -> Vec<Message> {
        vec![Message {
            quality: QoS::AtMostOnce,
            content_type: Some(Format::Png.content_type().into()),
            user: vec![
                ("type".into(), "preview".to_owned()),
                ("id".into(), id.to_owned()),
                ("index".into(), index.to_string()),
            ],
            ..Message::new(self.topics.preview(id), png)
        }]
    }

    fn json(&self, topic: String, kind: &str, id: &str, body: &impl Serialize) -> Message {
        Message {
            quality: self.quality,
            content_type: Some("application/json".into()),
            user: vec![("type".into(), kind.to_owned()), ("id".into(), id.to_owned())],
            ..Message::new(topic, serde_json::to_vec(body).unwrap_or_default())
        }
    }
}

/// The message, and a copy with the correlation data to the requester's own topic.
fn with_reply(message: Message, reply: Option<&Reply>) -> Vec<Message> {
    let copy = reply
        .map(|reply| message.for_reply(&reply.topic, reply.correlation.as_ref().map(|data| data.to_vec())));
    std::iter::once(message).chain(copy).collect()
}
