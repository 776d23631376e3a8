//! Builds the messages that answer a request.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::forwarding::Claim;
use super::model_requests::{ModelAnswer, ModelOutcome};
use super::stream::StreamReport;
use super::worker::EncodedImage;
use crate::config::PublishQos;
use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, JobError, shortened_id, to_id};
use crate::mqtt::{CLAIM_TOPIC, Message, QoS, Topics};
use crate::spool::{ReplyTo, STREAM};
use crate::topic_name::topic_fault;

/// The requester's response topic, which gets a copy of the responses, and its correlation data.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The user property `type` of a forwarded request.
pub(super) const FORWARDED: &str = "request";

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
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a StreamReport>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Error {
    id: String,
    #[serde(flatten)]
    error: JobError,
}

/// The shortest text that is left of an error's message, in bytes, before its properties are dropped.
const MIN_ERROR_TEXT: usize = 60;

#[derive(Debug, Serialize)]
struct Progress {
    step: usize,
    of: usize,
    eta_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamReport>,
}

impl Responses {
    pub(super) fn new(topics: Topics, qos: PublishQos) -> Self {
        Self { topics, qos: super::broker::publish_qos(qos) }
    }

    /// An image on the image topic, where it is retained, and on the response topic. `stream` is the topic of the stream
    /// that it belongs to.
    pub(super) fn image(
        &self,
        receipt: Receipt,
        image: EncodedImage,
        stream: Option<&str>,
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
                ("seed".into(), receipt.image.seed.to_string()),
                ("model".into(), receipt.image.model.clone()),
                ("sampler".into(), receipt.image.sampler.clone()),
                ("steps".into(), receipt.image.steps.to_string()),
            ],
            ..Message::new(self.topics.image(), bytes)
        };
        let message = match stream {
            Some(topic) => of_stream(message, topic),
            None => message,
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
        with_reply(self.result_message(Result { id, images, elapsed_ms, stream: None }), reply)
    }

    /// The result of one picture of a stream.
    pub(super) fn stream_result(
        &self,
        id: &str,
        images: Vec<ImageEntry>,
        elapsed_ms: u64,
        reply: Option<&Reply>,
        report: &StreamReport,
    ) -> Vec<Message> {
        let message = self.result_message(Result { id, images, elapsed_ms, stream: Some(report) });
        with_reply(of_stream(message, &report.topic), reply)
    }

    /// The result of a stream at its end.
    pub(super) fn final_stream_result(
        &self,
        id: &str,
        elapsed_ms: u64,
        reply: Option<&Reply>,
        report: &StreamReport,
    ) -> Vec<Message> {
        let result = Result { id, images: Vec::new(), elapsed_ms, stream: Some(report) };
        with_reply(self.result_message(result), reply)
    }

    fn result_message(&self, result: Result<'_>) -> Message {
        self.json(self.topics.result(result.id), "result", result.id, &result)
    }

    /// The answer to a request to load or unload a model.
    pub(super) fn model_result(
        &self,
        id: &str,
        outcome: &ModelOutcome,
        elapsed_ms: u64,
        reply: Option<&Reply>,
    ) -> Vec<Message> {
        let answer = ModelAnswer::new(id, outcome, elapsed_ms);
        with_reply(self.json(self.topics.model_result(id), "model", id, &answer), reply)
    }

    /// The error of a rejected or failed job. `id` is as the sender wrote it; the topic and the user property have a
    /// valid id that resembles it.
    pub(super) fn error(&self, id: &str, error: &JobError, reply: Option<&Reply>) -> Vec<Message> {
        let body = Error { id: id.to_owned(), error: error.clone() };
        let valid_id = to_id(id);
        with_reply(self.json(self.topics.error(&valid_id), "error", &valid_id, &body), reply)
    }

    /// Shortens an error's text, and drops its properties if needed, until the packet has at most `limit` bytes.
    /// Returns `None` if that is impossible.
    pub(super) fn fit_error(&self, error: Message, limit: usize) -> Option<Message> {
        if error.packet_size() <= limit {
            return Some(error);
        }
        let body: Error = serde_json::from_slice(&error.payload).ok()?;
        let mut essential = Message { content_type: None, ..error.clone() };
        // Distinguishes the messages on a response topic.
        essential.user_properties.retain(|(name, _)| matches!(name.as_ref(), "type" | "copy"));
        let bare = Message { user_properties: Vec::new(), ..essential.clone() };
        let shorten = |message: &Message, min: usize| {
            let mut body = Error { id: body.id.clone(), error: body.error.clone() };
            loop {
                let message = Message { payload: to_json(&body), ..message.clone() };
                let excess = message.packet_size().saturating_sub(limit);
                if excess == 0 {
                    return Some(message);
                }
                let text = &mut body.error.message;
                let end = text.trim_end_matches('…').len().checked_sub(excess + '…'.len_utf8());
                let end = text.floor_char_boundary(end.filter(|end| *end >= min)?);
                text.truncate(end);
                text.push('…');
            }
        };
        shorten(&error, MIN_ERROR_TEXT)
            .or_else(|| shorten(&essential, MIN_ERROR_TEXT))
            .or_else(|| shorten(&bare, 0))
    }

    /// Checks a requester's response topic. The daemon must not answer itself, nor overwrite what it publishes.
    pub(super) fn check_reply_topic(&self, topic: &str) -> std::result::Result<(), JobError> {
        let shown = shortened_id(topic);
        if let Some(fault) = topic_fault(topic) {
            let message = format!("the response topic {shown:?} is not a valid topic name: {fault}");
            return Err(JobError::new(ErrorCode::BadRequest, message));
        }
        let fault = if topic.starts_with('$') {
            "begins with $, which is reserved for brokers; use another one"
        } else if self.topics.is_own_topic(topic) {
            "is a topic of the daemon itself; use another one"
        } else if self.topics.is_command_of_another(topic) {
            "is a topic on which another daemon takes messages; use another one"
        } else if self.topics.is_discovery_topic(topic) {
            "is a topic of Home Assistant; use another one"
        } else {
            return Ok(());
        };
        Err(JobError::new(ErrorCode::BadRequest, format!("the response topic {shown:?} {fault}")))
    }

    /// Returns whether a topic is the fleet's common queue.
    pub(super) fn is_shared_queue(&self, topic: &str) -> bool {
        self.topics.shared_topic() == Some(topic)
    }

    /// Whether the daemon is in a fleet.
    pub(super) fn is_in_fleet(&self) -> bool {
        self.topics.shared_topic().is_some()
    }

    /// The filter and the topic of the fleet's queue of a model.
    pub(super) fn model_queue(&self, model: &str) -> Option<(String, String)> {
        self.topics.model_queue(&to_id(model))
    }

    /// A request for the daemons that have its model in memory. The broker drops it if none gets it in time.
    pub(super) fn forward(
        &self,
        topic: String,
        id: &str,
        request: Vec<u8>,
        reply: Option<&Reply>,
        timeout: Duration,
    ) -> Message {
        Message {
            content_type: Some("application/json".into()),
            correlation_data: reply.and_then(|reply| reply.correlation.clone()),
            response_topic: reply.map(|reply| reply.topic.clone()),
            expiry_s: Some(timeout.as_secs() as u32),
            user_properties: vec![
                ("type".into(), FORWARDED.to_owned()),
                ("id".into(), id.to_owned()),
                (CLAIM_TOPIC.into(), self.topics.claim()),
            ],
            ..Message::new(topic, request)
        }
    }

    /// The answer to the daemon that has forwarded a request.
    pub(super) fn claim(&self, topic: &str, claim: &Claim) -> Message {
        let message = self.json(topic.to_owned(), "claim", &claim.id, claim);
        Message { qos: QoS::AtLeastOnce, ..message }
    }

    /// Checks the topic of a stream. The daemon must not draw from its own images, nor from the answers to the requester.
    pub(super) fn check_stream_topic(
        &self,
        topic: &str,
        reply: Option<&Reply>,
    ) -> std::result::Result<(), JobError> {
        let shown = shortened_id(topic);
        let fault = if self.topics.is_own_topic(topic) {
            "is a topic of the daemon itself"
        } else if self.topics.is_command_of_another(topic) {
            "is a topic on which another daemon takes messages"
        } else if reply.is_some_and(|reply| reply.topic == topic) {
            "is the response topic of the request, so that each image would be drawn again"
        } else {
            return Ok(());
        };
        let message = format!("stream.topic: {shown:?} {fault}; use another one");
        Err(JobError::out_of_range("stream.topic", message))
    }

    /// The progress of a job.
    pub(super) fn progress(
        &self,
        id: &str,
        step: usize,
        of: usize,
        eta_ms: u64,
        stream: Option<StreamReport>,
    ) -> Vec<Message> {
        let progress = Progress { step, of, eta_ms, stream };
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

    fn json(&self, topic: String, kind: &str, id: &str, body: &impl Serialize) -> Message {
        Message {
            qos: self.qos,
            content_type: Some("application/json".into()),
            user_properties: vec![("type".into(), kind.to_owned()), ("id".into(), id.to_owned())],
            ..Message::new(topic, to_json(body))
        }
    }
}

#[expect(clippy::expect_used, reason = "responses hold only values that JSON can represent")]
fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("the body has string keys only").into()
}

/// The message of one picture of a stream, which the spool drops once it is delivered.
fn of_stream(mut message: Message, topic: &str) -> Message {
    message.user_properties.push((STREAM.into(), topic.to_owned()));
    message
}

/// Returns the value of a message's user property.
pub(super) fn property<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.user_properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Returns whether the message is a copy for a requester's response topic.
pub(super) fn is_copy(message: &Message) -> bool {
    property(message, "copy").is_some()
}

/// The message, and a copy of it with the correlation data on the response topic.
fn with_reply(message: Message, reply: Option<&Reply>) -> Vec<Message> {
    let copy = reply
        .map(|reply| message.for_reply(&reply.topic, reply.correlation.as_ref().map(|data| data.to_vec())));
    std::iter::once(message).chain(copy).collect()
}
