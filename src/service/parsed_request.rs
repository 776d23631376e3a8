//! A request as it arrives: parsed and digested once, with the topic for its responses.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::local::{LocalClient, LocalRequest};
use super::responses::{Reply, Responses};
use crate::config::LimitsConfig;
use crate::job::{ErrorCode, JobError, Request, id_near_start, parse_within, shortened_id};
use crate::mqtt::client::Incoming;

/// A well-formed request that is not yet validated against the models.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) request: Request,
    /// Distinguishes a repeated request from another request with the same id.
    pub(super) digest: String,
    pub(super) reply: Option<Reply>,
    /// The local client that sent the request; `None` for one over MQTT.
    pub(super) client: Option<LocalClient>,
    /// When the request arrived.
    pub(super) arrival: Instant,
    /// Whether it came from the fleet's common queue, so that another daemon may do it.
    pub(super) may_be_forwarded: bool,
    /// Where the daemon that forwarded it waits for a claim.
    pub(super) claim_topic: Option<String>,
}

/// A request or a cancellation that is answered with an error.
#[derive(Debug)]
pub(super) struct RejectedRequest {
    /// The id as the sender wrote it, if it can be read.
    pub(super) id: Option<String>,
    pub(super) reply: Option<Reply>,
    pub(super) client: Option<LocalClient>,
    pub(super) error: JobError,
}

impl ParsedRequest {
    /// Creates a request of the daemon itself.
    pub(super) fn new(request: Request, reply: Option<Reply>, arrival: Instant) -> Self {
        let digest = digest(&request);
        Self { digest, request, reply, client: None, arrival, may_be_forwarded: false, claim_topic: None }
    }

    /// Parses a message within the limits.
    pub(super) fn parse(
        incoming: &Incoming,
        limits: &LimitsConfig,
        responses: &Responses,
    ) -> Result<Self, Box<RejectedRequest>> {
        let reply = reply(incoming, responses);
        let parsed = Self::parse_payload(&incoming.payload, reply, None, incoming.arrival, limits)?;
        // Anybody can send a request with this property.
        let is_valid = |topic: &String| responses.check_reply_topic(topic).is_ok();
        let claim_topic = incoming.claim_topic.clone().filter(is_valid);
        let is_of_common_queue = responses.is_shared_queue(&incoming.ack.topic());
        Ok(Self { may_be_forwarded: is_of_common_queue && claim_topic.is_none(), claim_topic, ..parsed })
    }

    /// Parses a local request within the limits.
    pub(super) fn parse_local(
        LocalRequest { payload, arrival, client }: LocalRequest,
        limits: &LimitsConfig,
    ) -> Result<Self, Box<RejectedRequest>> {
        Self::parse_payload(&payload, Ok(None), Some(client), arrival, limits)
    }

    fn parse_payload(
        payload: &[u8],
        reply: Result<Option<Reply>, JobError>,
        client: Option<LocalClient>,
        arrival: Instant,
        limits: &LimitsConfig,
    ) -> Result<Self, Box<RejectedRequest>> {
        let rejected =
            |id, reply, error| Box::new(RejectedRequest { id, reply, client: client.clone(), error });
        let (size, max_bytes) = (payload.len(), limits.payload.0);
        if size as u64 > max_bytes {
            let message =
                format!("the request has {size} bytes; at most {max_bytes} are accepted (limits.payload)");
            let error = JobError::new(ErrorCode::OutOfRange, message);
            return Err(rejected(id_near_start(payload), reply.unwrap_or_default(), error));
        }
        let parsed = parse_within(payload, limits.job(None));
        let (request, reply) = match (parsed, reply) {
            (Ok(request), Ok(reply)) => (request, reply),
            (Ok(request), Err(error)) => return Err(rejected(written_id(&request), None, error)),
            (Err((id, error)), reply) => return Err(rejected(id, reply.unwrap_or_default(), error)),
        };
        let digest = digest(&request);
        Ok(Self { digest, request, reply, client, arrival, may_be_forwarded: false, claim_topic: None })
    }

    /// Rejects the request.
    pub(super) fn reject(self, error: JobError) -> RejectedRequest {
        RejectedRequest { id: written_id(&self.request), reply: self.reply, client: self.client, error }
    }
}

fn written_id(request: &Request) -> Option<String> {
    request.id.as_deref().map(shortened_id)
}

#[expect(clippy::expect_used, reason = "a request holds only values that JSON can represent")]
fn digest(request: &Request) -> String {
    let json = serde_json::to_vec(request).expect("a request was parsed from JSON");
    format!("{:x}", Sha256::digest(json))
}

/// Returns where to send a copy of the answers, if the sender named a valid topic for it.
pub(super) fn reply(incoming: &Incoming, responses: &Responses) -> Result<Option<Reply>, JobError> {
    let Some(topic) = &incoming.response_topic else {
        return Ok(None);
    };
    responses.check_reply_topic(topic)?;
    Ok(Some(Reply { topic: topic.clone(), correlation: incoming.correlation_data.clone() }))
}
