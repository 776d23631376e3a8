//! The topics of pictures: those whose retained message is fetched, and those that are followed.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::RETRY_INTERVAL;

/// After this many connections that closed on a topic, it is given up.
const MAX_CLOSED: u8 = 2;

/// A topic that the broker does not let the client read, and what it was wanted for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct RefusedTopic {
    pub(in crate::mqtt) topic: String,
    pub(in crate::mqtt) was_fetched: bool,
    pub(in crate::mqtt) was_followed: bool,
}

#[derive(Debug, Default)]
pub(super) struct PictureTopics {
    /// Topics whose retained message is being fetched.
    fetched: Vec<String>,
    /// Topics of which every message is wanted.
    followed: Vec<String>,
    /// Those of both that were not sent on this connection.
    unsent: VecDeque<String>,
    /// How many connections the broker closed before it answered a topic, and when it last did so.
    closures: BTreeMap<String, (u8, Instant)>,
}

impl PictureTopics {
    /// Starts a connection, on which every topic is sent again.
    pub(super) fn on_connected(&mut self) {
        let others = self.followed.iter().filter(|topic| !self.fetched.contains(topic));
        self.unsent = self.fetched.iter().chain(others).cloned().collect();
    }

    /// Returns the next topic to subscribe to.
    pub(super) fn next_unsent(&mut self) -> Option<String> {
        self.unsent.pop_front()
    }

    /// The broker closed the connection before it answered this topic. Returns it if it is given up.
    pub(super) fn on_closed(&mut self, topic: &str, now: Instant) -> Option<RefusedTopic> {
        self.closures.retain(|_, (_, time)| now - *time < RETRY_INTERVAL);
        let (count, time) = self.closures.entry(topic.to_owned()).or_insert((0, now));
        (*count, *time) = (count.saturating_add(1), now);
        (*count >= MAX_CLOSED).then(|| self.refuse(topic))
    }

    /// Returns whether the broker has closed connections on this topic, so that it is not sent for a while.
    pub(super) fn closes_connection(&self, topic: &str, now: Instant) -> bool {
        let closures = self.closures.get(topic);
        closures.is_some_and(|(count, time)| *count >= MAX_CLOSED && now - *time < RETRY_INTERVAL)
    }

    /// The broker granted or refused this topic. Returns it if it was refused.
    pub(super) fn on_answered(&mut self, topic: &str, is_granted: bool) -> Option<RefusedTopic> {
        self.closures.remove(topic);
        (!is_granted).then(|| self.refuse(topic))
    }

    /// Adds a topic to fetch.
    pub(super) fn fetch(&mut self, topic: &str, is_connected: bool) {
        if !self.is_fetched(topic) {
            self.fetched.push(topic.to_owned());
            self.send(topic, is_connected);
        }
    }

    /// Adds a topic to follow.
    pub(super) fn follow(&mut self, topic: &str, is_connected: bool) {
        if !self.is_followed(topic) {
            self.followed.push(topic.to_owned());
            self.send(topic, is_connected);
        }
    }

    /// Sends the filter, also if the broker has it: it answers with the retained message again.
    fn send(&mut self, topic: &str, is_connected: bool) {
        if is_connected && !self.unsent.iter().any(|unsent| unsent == topic) {
            self.unsent.push_back(topic.to_owned());
        }
    }

    pub(super) fn is_fetched(&self, topic: &str) -> bool {
        self.fetched.iter().any(|fetched| fetched == topic)
    }

    pub(super) fn is_followed(&self, topic: &str) -> bool {
        self.followed.iter().any(|followed| followed == topic)
    }

    pub(super) fn end_fetch(&mut self, topic: &str) {
        self.fetched.retain(|fetched| fetched != topic);
        self.drop_unused(topic);
    }

    pub(super) fn unfollow(&mut self, topic: &str) {
        self.followed.retain(|followed| followed != topic);
        self.drop_unused(topic);
    }

    fn refuse(&mut self, topic: &str) -> RefusedTopic {
        let (was_fetched, was_followed) = (self.is_fetched(topic), self.is_followed(topic));
        self.end_fetch(topic);
        self.unfollow(topic);
        RefusedTopic { topic: topic.to_owned(), was_fetched, was_followed }
    }

    fn drop_unused(&mut self, topic: &str) {
        if !self.is_fetched(topic) && !self.is_followed(topic) {
            self.unsent.retain(|unsent| unsent != topic);
        }
    }
}
