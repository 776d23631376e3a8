//! Parsed requests that wait for pictures from retained messages.
//!
//! Free of I/O. A waiting request is not acknowledged, so the broker redelivers it if the daemon ends.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::held_commands::HeldCommand;
use super::parsed_request::ParsedRequest;
use crate::spool::CommandDigest;

/// How long to wait for a retained message. A broker that has none sends nothing.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_PENDING_REQUESTS: usize = 64;

/// For each topic, its retained payload, or the reason why there is none.
pub(super) type FetchedTopics = BTreeMap<String, Result<Bytes, String>>;

#[derive(Debug, Default)]
pub(super) struct PendingFetches(Vec<PendingRequest>);

/// A request, the topics that it waits for, and the results so far.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) request: Box<ParsedRequest>,
    /// The message that carried the request; `None` for a local request.
    pub(super) command: Option<HeldCommand>,
    pub(super) fetched: FetchedTopics,
    pub(super) topics: Vec<String>,
    deadline: Instant,
}

impl PendingFetches {
    /// Adds a request. Returns it with an error for each topic if too many requests are waiting.
    pub(super) fn add(
        &mut self,
        request: Box<ParsedRequest>,
        command: Option<HeldCommand>,
        topics: Vec<String>,
        now: Instant,
    ) -> Option<PendingRequest> {
        let deadline = now + FETCH_TIMEOUT;
        let pending = PendingRequest { request, command, fetched: FetchedTopics::new(), topics, deadline };
        if self.0.len() < MAX_PENDING_REQUESTS {
            self.0.push(pending);
            return None;
        }
        Some(pending.fail_missing("too many requests wait for retained messages; try again later"))
    }

    /// Records the result of a fetch. Returns the requests that have all of their topics.
    pub(super) fn resolve(&mut self, topic: &str, payload: &Result<Bytes, String>) -> Vec<PendingRequest> {
        for pending in self.0.iter_mut().filter(|pending| pending.topics.iter().any(|wanted| wanted == topic))
        {
            pending.fetched.insert(topic.to_owned(), payload.clone());
        }
        self.0.extract_if(.., |pending| pending.fetched.len() == pending.topics.len()).collect()
    }

    /// Removes the requests that have waited too long, with an error for each missing topic.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PendingRequest> {
        let late = self.0.extract_if(.., |pending| pending.deadline <= now);
        let reason = format!(
            "no retained message arrived within {FETCH_TIMEOUT:?}; publish one there with the retain flag, no \
             larger than mqtt.max_packet"
        );
        late.map(|pending| pending.fail_missing(&reason)).collect()
    }

    /// Removes the requests for the job with this id.
    pub(super) fn cancel(&mut self, id: &str) -> Vec<PendingRequest> {
        self.0.extract_if(.., |pending| pending.request.request.id.as_deref() == Some(id)).collect()
    }

    /// Returns whether a request of this content is waiting.
    pub(super) fn contains(&self, command: CommandDigest) -> bool {
        self.0.iter().any(|pending| pending.command.as_ref().is_some_and(|(known, _)| *known == command))
    }

    /// Returns those of the topics for which no request waits any more.
    pub(super) fn unreferenced_topics<'a>(&self, topics: impl Iterator<Item = &'a String>) -> Vec<String> {
        let is_referenced = |topic: &&String| self.0.iter().any(|pending| pending.topics.contains(topic));
        topics.filter(|topic| !is_referenced(topic)).cloned().collect()
    }

    /// Drops the requests that the broker redelivers on the next connection.
    pub(super) fn on_disconnected(&mut self) {
        self.0.retain(|pending| pending.command.as_ref().is_none_or(|(_, ack)| !ack.is_redelivered()));
    }
}

impl PendingRequest {
    fn fail_missing(mut self, reason: &str) -> Self {
        for topic in &self.topics {
            self.fetched.entry(topic.clone()).or_insert_with(|| Err(reason.to_owned()));
        }
        self
    }
}
