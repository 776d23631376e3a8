//! Requests of the fleet's queue that this daemon forwards to one that has the model in memory: a state machine without
//! I/O.
//!
//! A forwarded request stays unacknowledged at the broker until another daemon has stored it and claims it. If none does,
//! this daemon does the job itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::held_commands::HeldCommand;
use super::parsed_request::ParsedRequest;

/// How long to wait for a claim. The broker drops a forwarded message that it has not delivered by then.
pub(super) const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// The broker delivers at most 32 requests that are not acknowledged; others have QoS 0.
const MAX_FORWARDED: usize = 64;
/// How often a request is forwarded. A daemon that has just closed the model declines it, and has left the queue.
const MAX_ATTEMPTS: u8 = 2;

/// The answer of a daemon to a forwarded request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The id of the job.
    pub(super) id: String,
    /// Whether the daemon has stored the job or answered the request. Otherwise it is left to the sender.
    pub(super) accepted: bool,
}

/// A request that waits for a claim.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// It has an id.
    pub(super) request: Box<ParsedRequest>,
    /// The message that carried it.
    pub(super) command: Option<HeldCommand>,
    attempts: u8,
    deadline: Instant,
}

/// What follows from a claim.
#[derive(Debug)]
pub(super) enum ClaimEffect {
    /// Nothing: the request was done here, because the claim is late.
    None,
    /// The request is done by another daemon, and its message is to be acknowledged.
    Done(Option<HeldCommand>),
    /// The request is to be forwarded again.
    Again,
    /// The request is to be done here.
    Own(Forwarded),
}

/// The forwarded requests that wait for a claim.
#[derive(Debug, Default)]
pub(super) struct Forwarding(Vec<Forwarded>);

impl Forwarding {
    /// Returns whether a request with this id can be added: few others wait, and none with the same id.
    pub(super) fn can_add(&self, id: &str) -> bool {
        self.0.len() < MAX_FORWARDED && self.find(id).is_none()
    }

    /// Adds a request that is forwarded now.
    pub(super) fn add(&mut self, request: Box<ParsedRequest>, command: Option<HeldCommand>, now: Instant) {
        self.0.push(Forwarded { request, command, attempts: 1, deadline: now + CLAIM_TIMEOUT });
    }

    /// The request of this id.
    pub(super) fn request(&self, id: &str) -> Option<&ParsedRequest> {
        self.find(id).map(|index| &*self.0[index].request)
    }

    /// Handles the answer of another daemon.
    pub(super) fn on_claim(&mut self, claim: &Claim, now: Instant) -> ClaimEffect {
        let Some(index) = self.find(&claim.id) else { return ClaimEffect::None };
        if claim.accepted {
            return ClaimEffect::Done(self.0.remove(index).command);
        }
        let forwarded = &mut self.0[index];
        if forwarded.attempts < MAX_ATTEMPTS {
            forwarded.attempts += 1;
            forwarded.deadline = now + CLAIM_TIMEOUT;
            return ClaimEffect::Again;
        }
        ClaimEffect::Own(self.0.remove(index))
    }

    /// The broker has no subscriber for the request of this id, or does not take it. Returns it, to be done here.
    pub(super) fn on_no_subscriber(&mut self, id: &str) -> Option<Forwarded> {
        self.find(id).map(|index| self.0.remove(index))
    }

    /// Returns the requests that nobody has claimed in time, to be done here.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Forwarded> {
        self.0.extract_if(.., |forwarded| forwarded.deadline <= now).collect()
    }

    /// The connection was lost. The broker delivers most requests again; returns the others, to be done here.
    pub(super) fn on_disconnected(&mut self) -> Vec<Forwarded> {
        let is_redelivered =
            |forwarded: &Forwarded| forwarded.command.as_ref().is_some_and(|(_, ack)| ack.is_redelivered());
        std::mem::take(&mut self.0).into_iter().filter(|forwarded| !is_redelivered(forwarded)).collect()
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|forwarded| forwarded.request.request.id.as_deref() == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Request;
    use crate::mqtt::client::AckToken;

    fn request(id: &str) -> Box<ParsedRequest> {
        Box::new(ParsedRequest {
            request: Request { id: Some(id.to_owned()), ..Request::default() },
            digest: String::new(),
            reply: None,
            client: None,
            arrival: std::time::Instant::now(),
            may_be_forwarded: true,
            claim_topic: None,
        })
    }

    /// Forwards requests with these ids, whose messages have these digests.
    fn forwarding(ids: &[&str], now: Instant) -> Forwarding {
        let mut forwarding = Forwarding::default();
        for (id, digest) in ids.iter().zip(0..) {
            forwarding.add(request(id), Some((digest, AckToken::without_broker("jobs"))), now);
        }
        forwarding
    }

    fn claim(id: &str, accepted: bool) -> Claim {
        Claim { id: id.to_owned(), accepted }
    }

    #[test]
    fn a_request_is_acknowledged_when_another_daemon_has_it() {
        let now = Instant::now();
        let mut forwarding = forwarding(&["a", "b"], now);
        assert!(!forwarding.can_add("a") && forwarding.can_add("c"));
        let effect = forwarding.on_claim(&claim("b", true), now);
        assert!(matches!(effect, ClaimEffect::Done(Some((1, _)))), "{effect:?}");
        assert!(matches!(forwarding.on_claim(&claim("b", true), now), ClaimEffect::None));
    }

    #[test]
    fn a_declined_request_is_forwarded_once_more_and_then_done_here() {
        let start = Instant::now();
        let mut forwarding = forwarding(&["a"], start);
        let now = start + Duration::from_secs(1);
        assert!(matches!(forwarding.on_claim(&claim("a", false), now), ClaimEffect::Again));
        assert!(forwarding.request("a").is_some());
        assert!(forwarding.expire(start + CLAIM_TIMEOUT).is_empty());
        assert!(matches!(forwarding.on_claim(&claim("a", false), now), ClaimEffect::Own(_)));
        assert!(forwarding.request("a").is_none());
    }

    #[test]
    fn a_request_that_nobody_claims_is_done_here() {
        let now = Instant::now();
        let mut forwarding = forwarding(&["a", "b"], now);
        assert!(forwarding.on_no_subscriber("a").is_some() && forwarding.on_no_subscriber("a").is_none());
        assert_eq!(forwarding.expire(now + CLAIM_TIMEOUT).len(), 1);
        assert!(matches!(forwarding.on_claim(&claim("b", true), now), ClaimEffect::None));
    }

    #[test]
    fn a_lost_connection_leaves_the_requests_that_the_broker_does_not_deliver_again() {
        let now = Instant::now();
        let mut forwarding = forwarding(&["a"], now);
        forwarding.add(request("b"), None, now);
        let own: Vec<_> =
            forwarding.on_disconnected().into_iter().map(|own| own.request.request.id).collect();
        assert_eq!(own, [Some("b".to_owned())]);
        assert!(forwarding.can_add("a"));
    }
}
