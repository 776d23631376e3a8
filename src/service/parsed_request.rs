//! A request as it arrives: parsed and digested once, with the topic for its responses.

use sha2::{Digest, Sha256};

use super::responses::Reply;
use crate::job::{ErrorCode, JobError, Request, is_id, parse};
use crate::mqtt::client::Incoming;
use crate::topic_name::is_topic_name;

/// A well-formed request that is not yet validated against the models.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) request: Request,
    /// Distinguishes a repeated request from another request with the same id.
    pub(super) digest: String,
    pub(super) reply: Option<Reply>,
}

/// A request that is answered with an error.
#[derive(Debug)]
pub(super) struct RejectedRequest {
    pub(super) id: Option<String>,
    pub(super) reply: Option<Reply>,
    pub(super) error: JobError,
}

impl ParsedRequest {
    /// Parses a message of at most `max_bytes`.
    pub(super) fn parse(incoming: &Incoming, max_bytes: u64) -> Result<Self, Box<RejectedRequest>> {
        let rejected = |id, reply, error| Box::new(RejectedRequest { id, reply, error });
        let reply = reply(incoming).map_err(|error| rejected(None, None, error))?;
        let size = incoming.payload.len();
        if size as u64 > max_bytes {
            let message =
                format!("the request has {size} bytes; at most {max_bytes} are accepted (limits.payload)");
            return Err(rejected(None, reply, JobError::new(ErrorCode::OutOfRange, message)));
        }
        match parse(&incoming.payload) {
            Ok(request) => Ok(Self { digest: digest(&request), request, reply }),
            Err((id, error)) => Err(rejected(id, reply, error)),
        }
    }

    /// Rejects the request.
    pub(super) fn reject(self, error: JobError) -> RejectedRequest {
        RejectedRequest { id: self.request.id.filter(|id| is_id(id)), reply: self.reply, error }
    }
}

#[expect(clippy::expect_used, reason = "a request holds only values that JSON can represent")]
fn digest(request: &Request) -> String {
    let json = serde_json::to_vec(request).expect("a request was parsed from JSON");
    format!("{:x}", Sha256::digest(json))
}

fn reply(incoming: &Incoming) -> Result<Option<Reply>, JobError> {
    let Some(topic) = &incoming.response_topic else {
        return Ok(None);
    };
    if !is_topic_name(topic) {
        let message = format!("the response topic {topic:?} is not a valid topic name; remove its wildcards");
        return Err(JobError::new(ErrorCode::BadRequest, message));
    }
    Ok(Some(Reply { topic: topic.clone(), correlation: incoming.correlation_data.clone() }))
}
