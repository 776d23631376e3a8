//! Requests that name pictures by the topics of retained messages, until those have come.
//!
//! Free of I/O: what is to be fetched goes out, what was fetched comes in. A request that waits here is not
//! acknowledged, so that it is not lost with the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::mqtt::client::Incoming;

/// How long a retained message may take; a broker that has none says nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that wait at once.
const WAITING: usize = 64;

/// What was found on topics, or why nothing was.
pub(super) type Found = BTreeMap<String, Result<Bytes, String>>;

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct PendingFetches(Vec<PendingRequest>);

#[derive(Debug)]
struct PendingRequest {
    incoming: Incoming,
    wants: Vec<String>,
    found: Found,
    until: Instant,
}

impl PendingFetches {
    /// Let a request wait for the messages on these topics; gives it back where too many wait.
    pub(super) fn hold(
        &mut self,
        incoming: Incoming,
        wants: Vec<String>,
        now: Instant,
    ) -> Option<(Incoming, Found)> {
        let held = PendingRequest { incoming, wants, found: Found::new(), until: now + PATIENCE };
        if self.0.len() < WAITING {
            self.0.push(held);
            return None;
        }
        Some(held.without("too many requests wait for retained messages; ask again later"))
    }

    /// What a fetch brought; the requests that have all that they want.
    pub(super) fn found(&mut self, topic: &str, what: &Result<Bytes, String>) -> Vec<(Incoming, Found)> {
        for held in self.0.iter_mut().filter(|held| held.wants.iter().any(|wanted| wanted == topic)) {
            held.found.insert(topic.to_owned(), what.clone());
        }
        let complete = self.0.extract_if(.., |held| held.found.len() == held.wants.len());
        complete.map(|held| (held.incoming, held.found)).collect()
    }

    /// The requests that waited long enough.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(Incoming, Found)> {
        let late = self.0.extract_if(.., |held| held.until <= now);
        let reason = format!(
            "no retained message came within {PATIENCE:?}; publish one there with its retain flag, and within \
             mqtt.max_packet"
        );
        late.map(|held| held.without(&reason)).collect()
    }

    /// The topics on which nothing that waits is missing any more, of these.
    pub(super) fn unwanted<'a>(&self, topics: impl Iterator<Item = &'a String>) -> Vec<String> {
        let wanted = |topic: &&String| self.0.iter().any(|held| held.wants.contains(topic));
        topics.filter(|topic| !wanted(topic)).cloned().collect()
    }

    /// The connection is gone: what the broker will send again is not kept.
    pub(super) fn disconnected(&mut self) {
        self.0.retain(|held| !held.incoming.ack.is_redelivered());
    }
}

impl PendingRequest {
    fn without(mut self, reason: &str) -> (Incoming, Found) {
        for topic in self.wants {
            self.found.entry(topic).or_insert_with(|| Err(reason.to_owned()));
        }
        (self.incoming, self.found)
    }
}
