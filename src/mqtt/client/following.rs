//! How the client fetches retained messages and follows topics.

use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::time::Instant;

use super::{ClientEvent, ClientTask};
use crate::mqtt::connection::Connection;
use crate::mqtt::subscriptions::RefusedTopic;

/// Why a topic is neither fetched nor followed.
const CLOSES_CONNECTION: &str =
    "the broker closes the connection when the daemon subscribes to this topic; use another one";

impl ClientTask {
    /// Fetches the retained message of a topic.
    pub(super) fn fetch(&mut self, topic: String, is_connected: bool) {
        let fault = if self.topics.kind(&topic).is_some() {
            "this topic carries requests, not images"
        } else if is_connected && !self.limits.retain {
            "the broker keeps no retained messages; send the image in the request"
        } else if self.subscriptions.closes_connection(&topic, Instant::now()) {
            CLOSES_CONNECTION
        } else {
            self.subscriptions.add_fetch(&topic);
            return;
        };
        self.pending_events.push_back(ClientEvent::Retained { topic, payload: Err(fault.to_owned()) });
    }

    pub(super) fn cancel_fetch(&mut self, topic: &str, connection: Option<&mut Connection>) {
        if self.subscriptions.is_fetched(topic) {
            self.subscriptions.remove_fetch(topic);
            self.unsubscribe_unused(topic, connection);
        }
    }

    /// Follows a topic: its newest message is kept.
    pub(super) fn follow(&mut self, topic: String) {
        if self.subscriptions.closes_connection(&topic, Instant::now()) {
            self.pending_events
                .push_back(ClientEvent::FollowRefused { topic, reason: CLOSES_CONNECTION.to_owned() });
        } else {
            self.subscriptions.add_follow(&topic);
        }
    }

    pub(super) fn unfollow(&mut self, topic: &str, connection: Option<&mut Connection>) {
        if self.subscriptions.is_followed(topic) {
            self.subscriptions.remove_follow(topic);
            self.newest.send_modify(|newest| newest.remove(topic));
            self.unsubscribe_unused(topic, connection);
        }
    }

    fn unsubscribe_unused(&mut self, topic: &str, connection: Option<&mut Connection>) {
        let is_used = self.subscriptions.is_fetched(topic) || self.subscriptions.is_followed(topic);
        if let Some(connection) = connection.filter(|_| !is_used) {
            let packet_id = connection.unsubscribe(topic);
            self.unsubscribing.insert(packet_id, topic.to_owned());
        }
    }

    /// Takes a message on a topic that is fetched or followed, or was until now. Returns `false` on any other topic.
    pub(super) fn take_picture(
        &mut self,
        topic: &str,
        publish: &Publish,
        connection: &mut Connection,
    ) -> bool {
        let is_followed = self.subscriptions.is_followed(topic);
        if is_followed {
            self.newest
                .send_if_modified(|newest| newest.store(topic, publish.payload.clone(), publish.retain));
        }
        let is_fetched = self.subscriptions.is_fetched(topic);
        if is_fetched {
            self.cancel_fetch(topic, Some(connection));
            let payload = Ok(publish.payload.clone());
            self.pending_events.push_back(ClientEvent::Retained { topic: topic.to_owned(), payload });
        }
        is_followed || is_fetched || self.unsubscribing.values().any(|unsubscribing| unsubscribing == topic)
    }

    /// The broker does not let the daemon read this topic, for this reason.
    pub(super) fn on_topic_refused(&mut self, refused: RefusedTopic, reason: &str) {
        let RefusedTopic { topic, was_fetched, was_followed } = refused;
        self.newest.send_modify(|newest| newest.remove(&topic));
        if was_fetched {
            let payload = Err(reason.to_owned());
            self.pending_events.push_back(ClientEvent::Retained { topic: topic.clone(), payload });
        }
        if was_followed {
            self.pending_events.push_back(ClientEvent::FollowRefused { topic, reason: reason.to_owned() });
        }
    }

    /// The broker closed the connection on these topics.
    pub(super) fn on_topics_closed(&mut self, topics: Vec<RefusedTopic>) {
        topics.into_iter().for_each(|topic| self.on_topic_refused(topic, CLOSES_CONNECTION));
    }
}
