//! Builds the messages that answer a request.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::worker::EncodedImage;
use crate::config::PublishQos;
use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, JobError};
use crate::mqtt::client::UndeliverableReason;
use crate::mqtt::{Message, QoS, Topics};
use crate::spool::ReplyTo;

/// The requester's response topic, which gets a copy of the responses, and its correlation data.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) correlation: Option<Bytes>,
}

impl Reply {
    /// Converts to the spool's record.
    pub(super) fn to_record(&self) -> ReplyTo {
        let correlation = self.correlation.as_ref().map(|data| data.to_vec());
        ReplyTo { topic: self.topic.clone(), correlation }
    }

    /// Converts from the spool's record.
    pub(super) fn from_record(record: ReplyTo) -> Self {
        Self { topic: record.topic, correlation: record.correlation.map(Bytes::from) }
    }
}

/// A published image, as listed in the job's result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ImageEntry {
    topics: Vec<String>,
    bytes: usize,
    sha256: String,
    content_type: &'static str,
    receipt: Receipt,
}

/// Builds messages for the daemon's topics.
#[derive(Debug)]
pub(super) struct Responses {
    topics: Topics,
    qos: QoS,
}

#[derive(Debug, Serialize)]
struct Result<'a> {
    id: &'a str,
    images: Vec<ImageEntry>,
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

impl Responses {
    pub(super) fn new(topics: Topics, qos: PublishQos) -> Self {
        Self { topics, qos: super::broker::publish_qos(qos) }
    }

    /// An image on the image topic, where it is retained, and on the response topic.
    pub(super) fn image(
        &self,
        receipt: Receipt,
        image: EncodedImage,
        reply: Option<&Reply>,
    ) -> (Vec<Message>, ImageEntry) {
        let EncodedImage { format, bytes } = image;
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        let size = bytes.len();
        let message = Message {
            qos: self.qos,
            retain: true,
            content_type: Some(format.content_type().into()),
            user_properties: vec![
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
        let entry = ImageEntry {
            topics: messages.iter().map(|m| m.topic.clone()).collect(),
            bytes: size,
            sha256,
            content_type: format.content_type(),
            receipt,
        };
        (messages, entry)
    }

    /// The result of a job: its images with their receipts.
    pub(super) fn result(
        &self,
        id: &str,
        mut images: Vec<ImageEntry>,
        elapsed_ms: u64,
        reply: Option<&Reply>,
    ) -> Vec<Message> {
        images.sort_by_key(|image| image.receipt.index);
        let result = Result { id, images, elapsed_ms };
        with_reply(self.json(self.topics.result(id), "result", id, &result), reply)
    }

    /// The error of a rejected or failed job.
    pub(super) fn error(&self, id: &str, error: &JobError, reply: Option<&Reply>) -> Vec<Message> {
        let body = Error { id, code: error.code, field: error.field.as_deref(), message: &error.message };
        with_reply(self.json(self.topics.error(id), "error", id, &body), reply)
    }

    /// The progress of a job.
    pub(super) fn progress(&self, id: &str, step: usize, of: usize, eta_ms: u64) -> Vec<Message> {
        let progress = Progress { step, of, eta_ms };
        let message = self.json(self.topics.progress(id), "progress", id, &progress);
        vec![Message { qos: QoS::AtMostOnce, ..message }]
    }

    /// The current x̂_0 of an image.
    pub(super) fn preview(&self, id: &str, index: usize, image: EncodedImage) -> Vec<Message> {
        vec![Message {
            qos: QoS::AtMostOnce,
            content_type: Some(image.format.content_type().into()),
            user_properties: vec![
                ("type".into(), "preview".to_owned()),
                ("id".into(), id.to_owned()),
                ("index".into(), index.to_string()),
            ],
            ..Message::new(self.topics.preview(id), image.bytes)
        }]
    }

    #[expect(clippy::expect_used, reason = "responses hold only values that JSON can represent")]
    fn json(&self, topic: String, kind: &str, id: &str, body: &impl Serialize) -> Message {
        let body = serde_json::to_vec(body).expect("the body has string keys only");
        Message {
            qos: self.qos,
            content_type: Some("application/json".into()),
            user_properties: vec![("type".into(), kind.to_owned()), ("id".into(), id.to_owned())],
            ..Message::new(topic, body)
        }
    }
}

/// The message, and a copy of it with the correlation data on the response topic.
fn with_reply(message: Message, reply: Option<&Reply>) -> Vec<Message> {
    let copy = reply
        .map(|reply| message.for_reply(&reply.topic, reply.correlation.as_ref().map(|data| data.to_vec())));
    std::iter::once(message).chain(copy).collect()
}

/// The error of a job whose message the broker permanently rejects.
pub(super) fn undeliverable_error(message: &Message, reason: &UndeliverableReason) -> JobError {
    let (size, topic) = (message.packet_size(), &message.topic);
    match reason {
        UndeliverableReason::TooLarge(limit) => JobError::new(
            ErrorCode::OutOfRange,
            format!(
                "a message of {size} bytes for {topic} is larger than the {limit} that the broker and \
                 mqtt.max_packet allow; raise that limit, or request a smaller image"
            ),
        ),
        UndeliverableReason::Rejected(reason) => JobError::new(
            ErrorCode::Denied,
            format!(
                "the broker does not allow this daemon to publish on {topic} ({reason}); use another response \
                 topic, or allow this one in the broker's access list"
            ),
        ),
    }
}
