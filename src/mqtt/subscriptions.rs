//! Temporary subscriptions that fetch retained messages.

use std::collections::VecDeque;

/// The topics whose retained message is being fetched, and the order of unanswered SUBSCRIBE packets.
#[derive(Debug, Default)]
pub(super) struct RetainedFetches {
    topics: Vec<String>,
    /// SUBSCRIBE packets without a SUBACK, oldest first: the fetched topic, or `None` for the
    /// daemon's own subscriptions.
    unanswered: VecDeque<Option<String>>,
}

impl RetainedFetches {
    /// Resets for a new connection, whose first SUBSCRIBE packet is for the daemon's own topics.
    /// Returns the topics to subscribe to after those.
    pub(super) fn on_connected(&mut self) -> Vec<String> {
        self.unanswered = [None].into();
        self.topics.clone()
    }

    /// Adds a topic. Returns `false` if it was already being fetched.
    pub(super) fn add(&mut self, topic: &str) -> bool {
        let is_new = !self.contains(topic);
        if is_new {
            self.topics.push(topic.to_owned());
        }
        is_new
    }

    /// Records that a SUBSCRIBE packet for `topic` was queued.
    pub(super) fn on_subscribe(&mut self, topic: &str) {
        self.unanswered.push_back(Some(topic.to_owned()));
    }

    /// Returns whether the topic is being fetched.
    pub(super) fn contains(&self, topic: &str) -> bool {
        self.topics.iter().any(|fetched| fetched == topic)
    }

    /// Removes a topic that was fetched or is no longer needed.
    pub(super) fn remove(&mut self, topic: &str) {
        self.topics.retain(|fetched| fetched != topic);
    }

    /// Returns the topic that the next SUBACK belongs to, or `None` for the daemon's own topics.
    pub(super) fn on_suback(&mut self) -> Option<String> {
        self.unanswered.pop_front().flatten()
    }
}
