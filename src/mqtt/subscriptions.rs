//! The subscriptions of a connection: a state machine without I/O.
//!
//! The daemon's own topics are in a SUBSCRIBE packet of their own, and are answered before any other filter is sent:
//! some brokers close the connection on a filter that they do not support.

mod picture_topics;

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{Filter, RetainForwardRule};
use tokio::time::Instant;

use super::message::QoS;
use super::reasons::Reason;
use super::topics::Topics;
use picture_topics::PictureTopics;
pub(super) use picture_topics::RefusedTopic;

/// When a filter that was refused, or that closed the connection, is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);
/// When one of the daemon's own topics that was refused is tried again.
const OWN_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// After this many connections in a row that closed on a filter, it is left out for a while.
const MAX_CLOSED: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Requests, cancellations, requests to load and unload models, and claims.
    Own,
    /// The queue of a fleet.
    SharedQueue,
    /// The queue of a model in a fleet.
    ModelQueue,
    /// Commands of Home Assistant's entities.
    HomeAssistant,
    /// The birth message of Home Assistant.
    HomeAssistantStatus,
    /// The state of another daemon under the same root.
    Peers,
}

#[derive(Debug)]
struct DaemonFilter {
    filter: String,
    purpose: Purpose,
    /// When to send it; `None` while it is sent or granted.
    due: Option<Instant>,
    /// Why the broker refused it, until it is granted.
    refusal: Option<Reason>,
    /// Whether the broker granted QoS 0 only.
    is_best_effort: bool,
    /// How many connections in a row closed before the broker answered this filter.
    closed: u8,
    /// Whether the daemon still wants it.
    is_wanted: bool,
}

/// A SUBSCRIBE packet without a SUBACK.
#[derive(Debug)]
enum Unanswered {
    /// Indices of the daemon's filters.
    Daemon(Vec<usize>),
    /// A topic that is fetched or followed.
    Topic(String),
}

/// What a SUBACK means for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The daemon's own topics were answered.
    Subscribed,
    /// The topic of requests was granted.
    TakesRequests,
    /// The broker refused to let this topic be fetched or followed, for this reason.
    TopicRefused(RefusedTopic, Reason),
}

#[derive(Debug)]
pub(super) struct Subscriptions {
    filters: Vec<DaemonFilter>,
    pictures: PictureTopics,
    /// Oldest first; brokers answer in this order.
    unanswered: VecDeque<Unanswered>,
    is_connected: bool,
    is_own_answered: bool,
    has_shared_subscriptions: bool,
}

impl Subscriptions {
    pub(super) fn new(topics: &Topics) -> Self {
        let own = topics.inputs().map(|topic| (topic, Purpose::Own));
        let shared = topics.shared_filter().map(|filter| (filter.to_owned(), Purpose::SharedQueue));
        let commands = topics.home_assistant_commands().into_iter();
        let commands = commands.map(|topic| (topic, Purpose::HomeAssistant));
        let status = topics.home_assistant_status().map(|topic| (topic, Purpose::HomeAssistantStatus));
        let filters = own.chain(shared).chain(commands).chain(status);
        let filters = filters.chain([(topics.state(), Purpose::Peers)]);
        Self {
            filters: filters.map(|(filter, purpose)| DaemonFilter::new(filter, purpose)).collect(),
            pictures: PictureTopics::default(),
            unanswered: VecDeque::new(),
            is_connected: false,
            is_own_answered: false,
            has_shared_subscriptions: true,
        }
    }

    /// Starts a connection, on which every filter is sent again, whether the broker has the session or not.
    pub(super) fn on_connected(&mut self, has_shared_subscriptions: bool, now: Instant) {
        self.is_connected = true;
        self.is_own_answered = false;
        self.has_shared_subscriptions = has_shared_subscriptions;
        self.unanswered.clear();
        self.pictures.on_connected();
        for filter in self.filters.iter_mut().filter(|filter| filter.is_wanted) {
            let is_left_out = filter.closed >= MAX_CLOSED && filter.due.is_some_and(|due| due > now);
            if !is_left_out {
                filter.due = Some(now);
            }
        }
    }

    /// The broker closed the connection. Returns the topics that are given up, because it did so twice on them.
    pub(super) fn on_closed_by_broker(&mut self, now: Instant) -> Vec<RefusedTopic> {
        let topics = self.unanswered.iter().filter_map(|packet| match packet {
            Unanswered::Topic(topic) => Some(topic),
            Unanswered::Daemon(_) => None,
        });
        topics.filter_map(|topic| self.pictures.on_closed(topic, now)).collect()
    }

    /// Returns whether the broker has closed connections on this topic, so that it is not subscribed to for a while.
    pub(super) fn closes_connection(&self, topic: &str, now: Instant) -> bool {
        self.pictures.closes_connection(topic, now)
    }

    /// Ends the connection. `is_shared_refused` means that the broker gave the shared subscription as the reason.
    pub(super) fn on_closed(&mut self, is_shared_refused: bool, now: Instant) {
        let unanswered: Vec<usize> = self.unanswered.drain(..).flat_map(Unanswered::into_indices).collect();
        for (_, filter) in self.filters.iter_mut().enumerate().filter(|(index, _)| unanswered.contains(index))
        {
            let is_refused = is_shared_refused && filter.is_shared();
            filter.closed = if is_refused { MAX_CLOSED } else { filter.closed.saturating_add(1) };
            if filter.purpose == Purpose::Own || filter.closed < MAX_CLOSED {
                continue;
            }
            filter.due = Some(now + RETRY_INTERVAL);
            filter.refusal = Some(Reason::without_advice("the broker closes the connection on this filter"));
        }
        self.is_connected = false;
    }

    /// Returns the next SUBSCRIBE packet that is due.
    pub(super) fn next_packet(&mut self, now: Instant) -> Option<Vec<Filter>> {
        if !self.is_connected {
            return None;
        }
        let is_due = |purpose: Purpose, filter: &DaemonFilter| {
            filter.purpose == purpose && filter.due.is_some_and(|due| due <= now)
        };
        for purpose in [
            Purpose::Own,
            Purpose::SharedQueue,
            Purpose::ModelQueue,
            Purpose::HomeAssistant,
            Purpose::HomeAssistantStatus,
            Purpose::Peers,
        ] {
            if !self.is_sendable(purpose) {
                continue;
            }
            let indices: Vec<usize> =
                (0..self.filters.len()).filter(|&index| is_due(purpose, &self.filters[index])).collect();
            if indices.is_empty() {
                continue;
            }
            let filters = indices.iter().map(|&index| {
                let filter = &mut self.filters[index];
                filter.due = None;
                filter.to_wire()
            });
            let filters = filters.collect();
            self.unanswered.push_back(Unanswered::Daemon(indices));
            return Some(filters);
        }
        if !self.is_own_answered {
            return None;
        }
        // One at a time, too.
        if self.unanswered.iter().any(|packet| matches!(packet, Unanswered::Topic(_))) {
            return None;
        }
        let topic = self.pictures.next_unsent()?;
        let filter = Filter::new(topic.clone(), WireQoS::AtMostOnce);
        self.unanswered.push_back(Unanswered::Topic(topic));
        Some(vec![filter])
    }

    /// Returns whether filters of this purpose may be sent now, if they are due.
    fn is_sendable(&self, purpose: Purpose) -> bool {
        // One at a time, so that it is clear which filter closed the connection.
        let is_answered = !self.unanswered.iter().any(|packet| matches!(packet, Unanswered::Daemon(_)));
        match purpose {
            Purpose::Own => self.is_connected,
            Purpose::SharedQueue | Purpose::ModelQueue if !self.has_shared_subscriptions => false,
            _ => self.is_connected && self.is_own_answered && is_answered,
        }
    }

    /// Returns when the next SUBSCRIBE packet is due, if it is not due now. `None` if an answer or a connection must come
    /// first.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let filters = self.filters.iter().filter(|filter| self.is_sendable(filter.purpose));
        filters.filter_map(|filter| filter.due).min()
    }

    /// Handles the SUBACK of the oldest unanswered packet: for each filter the QoS, or why it was refused.
    pub(super) fn on_suback(&mut self, results: Vec<Result<QoS, Reason>>, now: Instant) -> Vec<Outcome> {
        match self.unanswered.pop_front() {
            None => Vec::new(),
            Some(Unanswered::Topic(topic)) => {
                let refusal = results.into_iter().find_map(Result::err);
                let refused = self.pictures.on_answered(&topic, refusal.is_none());
                refused
                    .zip(refusal)
                    .map(|(topic, reason)| Outcome::TopicRefused(topic, reason))
                    .into_iter()
                    .collect()
            }
            Some(Unanswered::Daemon(indices)) => {
                let mut outcomes = Vec::new();
                for (index, result) in indices.into_iter().zip(results) {
                    let Some(filter) = self.filters.get_mut(index) else { continue };
                    filter.closed = 0;
                    if filter.purpose == Purpose::Own && !self.is_own_answered {
                        self.is_own_answered = true;
                        outcomes.push(Outcome::Subscribed);
                    }
                    let interval = match filter.purpose {
                        Purpose::Own => OWN_RETRY_INTERVAL,
                        _ => RETRY_INTERVAL,
                    };
                    // The first filter is the topic of requests.
                    if index == 0 && result.is_ok() {
                        outcomes.push(Outcome::TakesRequests);
                    }
                    if !filter.is_wanted {
                        continue;
                    }
                    filter.due = result.is_err().then(|| now + interval);
                    filter.is_best_effort =
                        result == Ok(QoS::AtMostOnce) && filter.purpose.qos() == WireQoS::AtLeastOnce;
                    filter.refusal = result.err();
                }
                outcomes
            }
        }
    }

    /// Adds the queue of a model, which is due at once.
    pub(super) fn add_queue(&mut self, filter: &str, now: Instant) {
        let known = self.filters.iter().position(|known| known.filter == filter);
        let index = known.unwrap_or_else(|| {
            self.filters.push(DaemonFilter::new(filter.to_owned(), Purpose::ModelQueue));
            self.filters.len() - 1
        });
        let filter = &mut self.filters[index];
        filter.is_wanted = true;
        if self.is_connected && filter.closed < MAX_CLOSED {
            filter.due = Some(now);
        }
    }

    /// Removes the queue of a model.
    pub(super) fn remove_queue(&mut self, filter: &str) {
        for known in self.filters.iter_mut().filter(|known| known.filter == filter) {
            (known.is_wanted, known.due, known.refusal, known.is_best_effort) = (false, None, None, false);
        }
    }

    /// Returns whether the daemon takes requests from the queue of a model with this filter.
    pub(super) fn has_queue(&self, filter: &str) -> bool {
        self.filters.iter().any(|known| known.is_wanted && known.filter == filter)
    }

    /// Adds a topic whose retained message is fetched.
    pub(super) fn add_fetch(&mut self, topic: &str) {
        self.pictures.fetch(topic, self.is_connected);
    }

    /// Adds a topic of which every message is wanted, the retained one first.
    pub(super) fn add_follow(&mut self, topic: &str) {
        self.pictures.follow(topic, self.is_connected);
    }

    /// Returns whether the topic's retained message is being fetched.
    pub(super) fn is_fetched(&self, topic: &str) -> bool {
        self.pictures.is_fetched(topic)
    }

    /// Returns whether the topic is followed.
    pub(super) fn is_followed(&self, topic: &str) -> bool {
        self.pictures.is_followed(topic)
    }

    /// Removes a topic that was fetched or is no longer needed.
    pub(super) fn remove_fetch(&mut self, topic: &str) {
        self.pictures.end_fetch(topic);
    }

    /// Removes a topic that is no longer followed.
    pub(super) fn remove_follow(&mut self, topic: &str) {
        self.pictures.unfollow(topic);
    }

    /// Describes the filters that the broker refuses, or grants at QoS 0 only. Without [`Purpose::Peers`], which only serves a warning.
    pub(super) fn refusals(&self) -> impl Iterator<Item = String> {
        self.filters.iter().filter(|filter| filter.purpose != Purpose::Peers).filter_map(|filter| {
            let name = &filter.filter;
            let refused = filter.refusal.as_ref().map(|reason| format!("not subscribed to {name}: {reason}"));
            refused.or_else(|| {
                filter.is_best_effort.then(|| {
                    format!(
                        "the broker grants QoS 0 only for {name}: it does not repeat a message that is lost"
                    )
                })
            })
        })
    }
}

impl Unanswered {
    fn into_indices(self) -> Vec<usize> {
        match self {
            Self::Daemon(indices) => indices,
            Self::Topic(_) => Vec::new(),
        }
    }
}

impl Purpose {
    /// The QoS to ask for. What is sent again on the next connection, or only serves a warning, may be lost.
    fn qos(self) -> WireQoS {
        match self {
            Self::Own | Self::SharedQueue | Self::ModelQueue | Self::HomeAssistant => WireQoS::AtLeastOnce,
            Self::HomeAssistantStatus | Self::Peers => WireQoS::AtMostOnce,
        }
    }
}

impl DaemonFilter {
    fn new(filter: String, purpose: Purpose) -> Self {
        Self { filter, purpose, due: None, refusal: None, is_best_effort: false, closed: 0, is_wanted: true }
    }

    fn is_shared(&self) -> bool {
        matches!(self.purpose, Purpose::SharedQueue | Purpose::ModelQueue)
    }

    fn to_wire(&self) -> Filter {
        let mut filter = Filter::new(self.filter.clone(), self.purpose.qos());
        if matches!(self.purpose, Purpose::HomeAssistantStatus | Purpose::Peers) {
            filter.nolocal = true;
            filter.retain_forward_rule = RetainForwardRule::Never;
        }
        filter
    }
}

#[cfg(test)]
mod tests;
