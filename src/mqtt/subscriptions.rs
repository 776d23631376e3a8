//! Topics whose retained message is fetched: a subscription for the time that it takes.

use std::collections::VecDeque;

/// What is being fetched, and what the broker's answers to subscriptions are about.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    wanted: Vec<String>,
    /// Subscriptions without an answer, in order; none: the daemon's own.
    unanswered: VecDeque<Option<String>>,
}

impl Fetches {
    /// A connection is there, on which the daemon's own topics are subscribed to first; tells what is to be
    /// subscribed to after them.
    pub(super) fn connected(&mut self) -> Vec<String> {
        self.unanswered = [None].into();
        self.wanted.clone()
    }

    /// Fetch this; tells whether that is new.
    pub(super) fn want(&mut self, topic: &str) -> bool {
        let is_new = !self.wants(topic);
        if is_new {
            self.wanted.push(topic.to_owned());
        }
        is_new
    }

    /// A subscription to this is on its way.
    pub(super) fn asked(&mut self, topic: &str) {
        self.unanswered.push_back(Some(topic.to_owned()));
    }

    /// Whether this is being fetched.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == topic)
    }

    /// It came, or is not wanted any more.
    pub(super) fn forget(&mut self, topic: &str) {
        self.wanted.retain(|wanted| wanted != topic);
    }

    /// Which topic the broker's next answer to a subscription is about; none for the daemon's own.
    pub(super) fn answered(&mut self) -> Option<String> {
        self.unanswered.pop_front().flatten()
    }
}
