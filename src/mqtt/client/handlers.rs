//! How the client reacts to events of the connection and to commands.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::time::Instant;

use super::{
    AckToken, ClientCommand, ClientEvent, ClientTask, Incoming, NewSession, REPORT_INTERVAL,
    UndeliverableReason,
};
use crate::mqtt::backoff;
use crate::mqtt::closure::{Cause, Closure};
use crate::mqtt::connection::{Connection, ConnectionEvent};
use crate::mqtt::delivery::DeliveryLimits;
use crate::mqtt::limits::BrokerLimits;
use crate::mqtt::message::QoS;
use crate::mqtt::probe;
use crate::mqtt::reasons::{Reason, Rejection, RejectionKind};
use crate::mqtt::subscriptions::Outcome;
use crate::mqtt::topics::CLAIM_TOPIC;

/// Requests at QoS 0 are dropped while this many events are pending.
const MAX_PENDING_EVENTS: usize = 256;

impl ClientTask {
    /// Handles an event of the connection. Returns a reason if the connection must be closed.
    pub(super) fn handle_event(
        &mut self,
        event: ConnectionEvent,
        connection: &mut Connection,
    ) -> Option<Closure> {
        match event {
            ConnectionEvent::Connected { limits, has_session } => {
                self.on_connected(*limits, has_session);
                self.leave_former_queues(connection);
            }
            ConnectionEvent::Written => {
                if self.limits.max_qos == QoS::AtMostOnce {
                    self.backoff.on_acknowledged();
                }
                self.pending_events.extend(self.delivery.on_written().map(ClientEvent::Delivered));
            }
            ConnectionEvent::Stored(packet_id) => self.delivery.on_received(packet_id),
            ConnectionEvent::Acknowledged { packet_id, has_subscribers } => {
                self.backoff.on_acknowledged();
                if let Some((message, number)) = self.delivery.complete(packet_id) {
                    self.pending_events.extend(number.map(ClientEvent::Delivered));
                    if !has_subscribers && self.topics.is_model_queue(&message.topic) {
                        self.pending_events.push_back(ClientEvent::NoSubscriber(message.clone()));
                    }
                    self.is_state_published |= message.topic == self.topics.state();
                    if self.rejected_topics.remove(&message.topic).is_some() {
                        self.report_deficits();
                    }
                }
            }
            ConnectionEvent::Rejected { packet_id, rejection } => {
                return self.on_rejected(packet_id, &rejection).map(Closure::other);
            }
            ConnectionEvent::Received(publish) => self.on_received(*publish, connection),
            ConnectionEvent::SubAck { results, .. } => self.on_suback(results),
            ConnectionEvent::Closed(closure) => return Some(closure),
            ConnectionEvent::UnsubAck(packet_id) => {
                self.unsubscribing.remove(&packet_id);
                // The queue of a model may have been joined meanwhile.
                let left = self.leaving.remove(&packet_id);
                if let Some(filter) = left.filter(|filter| !self.subscriptions.has_queue(filter)) {
                    if !self.topics.is_model_filter(&filter) {
                        log::info!("left the shared queue {filter}, which is no longer configured");
                    }
                    self.pending_events.push_back(ClientEvent::LeftQueue(filter));
                }
            }
        }
        None
    }

    fn on_connected(&mut self, limits: BrokerLimits, has_session: bool) {
        log::info!("connected to the broker at {}", self.broker_address);
        if let Some(client_id) = &limits.client_id {
            log::info!("the broker assigned the client id {client_id}");
        }
        let now = Instant::now();
        self.backoff.on_connected(now);
        self.connected_at = Some(now);
        self.is_state_published = false;
        self.was_connected = true;
        self.diagnosis = None;
        self.unacknowledged = 0;
        self.unsubscribing.clear();
        self.options.begins_anew = false;
        self.subscriptions.on_connected(limits.shared_subscriptions, now);
        let max_packet =
            limits.max_packet_size.map_or(self.max_packet, |size| self.max_packet.min(size as usize));
        let delivery_limits = DeliveryLimits {
            max_packet_size: max_packet,
            receive_maximum: limits.receive_maximum.into(),
            max_qos: limits.max_qos,
            retain: limits.retain,
        };
        self.delivery.on_connected(delivery_limits, has_session);
        self.limits = limits;
        self.report_deficits();
        self.pending_events.push_back(ClientEvent::Connected { has_session });
    }

    /// The broker's session may still have these filters, whatever the daemon subscribes to.
    fn leave_former_queues(&mut self, connection: &mut Connection) {
        let is_left =
            |filter: &&str| self.limits.shared_subscriptions && !self.subscriptions.has_queue(filter);
        let filters = self.topics.former_filters().filter(is_left);
        self.leaving = filters.map(|filter| (connection.unsubscribe(filter), filter.to_owned())).collect();
    }

    /// Handles the end of a connection. Returns how long to wait before the next one.
    pub(super) fn on_closed(&mut self, closure: &Closure) -> Duration {
        let now = Instant::now();
        self.give_up_what_closes(closure, now);
        self.subscriptions.on_closed(closure.cause == Cause::SharedSubscription, now);
        self.report_deficits();
        let is_taken_over = closure.cause == Cause::TakenOver;
        self.pending_events.extend(is_taken_over.then_some(ClientEvent::TakenOver));
        let mut reason = closure.reason.clone();
        match closure.cause {
            Cause::WillQos if self.will_qos != QoS::AtMostOnce => self.will_qos = QoS::AtMostOnce,
            Cause::WillRetain if self.will_retain => self.will_retain = false,
            Cause::Unclear if self.options.diagnoses => self.diagnosis = Some((now, reason.clone())),
            Cause::Unclear => {
                reason = self.diagnosis.as_ref().map_or(reason, |(_, diagnosis)| diagnosis.clone())
            }
            _ => {}
        }
        let delay = backoff::with_jitter(self.backoff.on_closed(now, is_taken_over), fastrand::f64());
        log::warn!(
            "no connection to the broker at {}: {reason}; next try in {delay:.1?}",
            self.broker_address
        );
        delay
    }

    /// Gives up a message for a requester, or a fetch, on which the broker closes the connection every time. It would stop
    /// all others.
    fn give_up_what_closes(&mut self, closure: &Closure, now: Instant) {
        let is_by_broker = matches!(closure.cause, Cause::Silent | Cause::Packet);
        let topics = &self.topics;
        let given_up = self.delivery.on_closed(is_by_broker, |message| !topics.is_own_topic(&message.topic));
        if let Some((message, number)) = given_up {
            let reason = UndeliverableReason::Rejected(
                "it has closed the connection three times after this message".to_owned(),
            );
            self.pending_events.push_back(ClientEvent::Undeliverable { message, number, reason });
        }
        if is_by_broker {
            let given_up = self.subscriptions.on_closed_by_broker(now);
            self.on_topics_closed(given_up);
        }
    }

    /// Logs what the broker does not serve, each fact once, and reports it to the owner if it has changed.
    pub(super) fn report_deficits(&mut self) {
        let rejected = self
            .rejected_topics
            .iter()
            .map(|(topic, reason)| format!("the broker accepts no messages on {topic}: {reason}"));
        let deficits: Vec<_> = self
            .limits
            .deficits(&self.requirements)
            .into_iter()
            .map(|deficit| deficit.to_string())
            .chain(self.subscriptions.refusals())
            .chain(rejected)
            .collect();
        if deficits == self.deficits {
            return;
        }
        for deficit in deficits.iter().filter(|deficit| !self.deficits.contains(deficit)) {
            log::warn!("{deficit}");
        }
        for deficit in self.deficits.iter().filter(|deficit| !deficits.contains(deficit)) {
            log::info!("no longer: {deficit}");
        }
        self.deficits.clone_from(&deficits);
        self.pending_events.push_back(ClientEvent::Deficits(deficits));
    }

    /// Handles a message that the broker rejected. A message for a requester is undeliverable if the rejection is
    /// permanent, and so is every one that is too large. Other messages of the daemon's own topics that must not be lost are sent again on a new connection, because
    /// the broker's administrator can correct the access list; the others are dropped.
    fn on_rejected(&mut self, packet_id: u16, rejection: &Rejection) -> Option<Reason> {
        let Rejection { reason, kind } = rejection;
        let in_flight = self.delivery.in_flight(packet_id)?;
        let (topic, is_own) = (in_flight.topic.clone(), self.topics.is_own_topic(&in_flight.topic));
        let is_spooled = self.delivery.number(packet_id).is_some();
        let is_given_up = match kind {
            RejectionKind::Temporary => false,
            RejectionKind::Permanent => !is_own || !is_spooled,
            RejectionKind::TooLarge => true,
        };
        if !is_given_up {
            self.delivery.on_rejected(packet_id);
            return Some(Reason::new(
                format!("the broker rejected a message on {topic} ({reason})"),
                "check its access list and quotas",
            ));
        }
        let (message, number) = self.delivery.complete(packet_id)?;
        if is_own && !is_spooled {
            if self.topics.is_model_queue(&topic) {
                self.pending_events.push_back(ClientEvent::NoSubscriber(message));
            }
            self.rejected_topics.insert(topic, rejection.of_own_topic());
            self.report_deficits();
        } else {
            let reason = match kind {
                RejectionKind::TooLarge => UndeliverableReason::TooLargeForBroker,
                _ => UndeliverableReason::Rejected((*reason).to_owned()),
            };
            self.pending_events.push_back(ClientEvent::Undeliverable { message, number, reason });
        }
        None
    }

    fn on_suback(&mut self, results: Vec<Result<QoS, Reason>>) {
        for outcome in self.subscriptions.on_suback(results, Instant::now()) {
            match outcome {
                Outcome::Subscribed => self.backoff.on_subscribed(),
                Outcome::TakesRequests => self.pending_events.push_back(ClientEvent::Subscribed),
                Outcome::TopicRefused(topic, reason) => {
                    let reason = format!("the broker does not let the daemon read this topic ({reason})");
                    self.on_topic_refused(topic, &reason);
                }
            }
        }
        self.report_deficits();
    }

    /// Reports a second daemon under the same root, which also draws every request.
    fn on_foreign_state(&mut self) {
        if self.peer_reported.is_some_and(|time| time.elapsed() < REPORT_INTERVAL) {
            return;
        }
        self.peer_reported = Some(Instant::now());
        log::warn!("{}", self.topics.same_root());
    }

    /// Handles a message on a topic to which the daemon did not subscribe. It is not acknowledged if the broker's session
    /// may be the reason: then the session has a shared subscription, and the message belongs to another client.
    fn on_unwanted(&mut self, topic: &str, publish: &Publish, connection: &mut Connection) {
        if !topic.is_empty() {
            connection.unsubscribe(topic);
        }
        let topic = if topic.is_empty() { "an empty topic" } else { topic };
        if publish.qos != WireQoS::AtMostOnce && self.new_session != NewSession::Done {
            if self.new_session == NewSession::Possible {
                log::warn!(
                    "the broker's session has an unknown subscription, which draws messages on {topic}; the daemon \
                     connects again without this session"
                );
            }
            self.new_session = NewSession::Due;
            return;
        }
        connection.acknowledge(publish);
        log::warn!("dropped a message on {topic}: the daemon is not subscribed to this topic");
    }

    fn on_received(&mut self, publish: Publish, connection: &mut Connection) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let Some(kind) = self.topics.kind(&topic) else {
            if self.take_picture(&topic, &publish, connection) {
                // At QoS 0, unless the subscription is that of an earlier session.
                connection.acknowledge(&publish);
            } else if topic == self.topics.state() {
                // A broker may send this daemon's own state, and an old one, although they were not asked for.
                if !publish.retain && probe::instance(&publish) != Some(&self.instance) {
                    self.on_foreign_state();
                }
            } else if self.topics.is_home_assistant_command(&topic) {
                // The session is from a time before Home Assistant was disabled.
                connection.unsubscribe(&topic);
                connection.acknowledge(&publish);
                log::info!("ignoring a message on {topic}, because home_assistant.enabled is false");
            } else {
                self.on_unwanted(&topic, &publish, connection);
            }
            return;
        };
        let is_best_effort = publish.qos == WireQoS::AtMostOnce;
        if is_best_effort && self.pending_events.len() >= MAX_PENDING_EVENTS {
            log::warn!("dropped a request at QoS 0: {MAX_PENDING_EVENTS} events are pending");
            return;
        }
        self.unacknowledged += usize::from(!is_best_effort);
        let properties = publish.properties.clone().unwrap_or_default();
        self.pending_events.push_back(ClientEvent::Incoming(Incoming {
            kind,
            payload: publish.payload.clone(),
            arrival: Instant::now().into_std(),
            is_retained: publish.retain,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            claim_topic: properties
                .user_properties
                .into_iter()
                .find_map(|(name, value)| (name == CLAIM_TOPIC).then_some(value)),
            ack: AckToken { connection_id: self.connection_id, publish },
        }));
    }

    /// Handles a command; `None` means that every sender was dropped.
    pub(super) fn handle_command(
        &mut self,
        command: Option<ClientCommand>,
        connection: Option<&mut Connection>,
    ) {
        match command {
            Some(ClientCommand::Send { mut message, number }) => {
                if message.topic == self.topics.state() {
                    message.user_properties.push((probe::INSTANCE.into(), self.instance.clone()));
                }
                self.delivery.enqueue(message, number);
            }
            Some(ClientCommand::Ack(ack)) => {
                // The broker redelivers a message of an earlier connection.
                if let Some(connection) = connection.filter(|_| ack.connection_id == self.connection_id) {
                    connection.acknowledge(&ack.publish);
                    self.unacknowledged =
                        self.unacknowledged.saturating_sub(usize::from(ack.is_redelivered()));
                }
            }
            Some(ClientCommand::FetchRetained(topic)) => self.fetch(topic, connection.is_some()),
            Some(ClientCommand::CancelFetch(topic)) => self.cancel_fetch(&topic, connection),
            Some(ClientCommand::Follow(topic)) => self.follow(topic),
            Some(ClientCommand::Unfollow(topic)) => self.unfollow(&topic, connection),
            Some(ClientCommand::JoinQueue(filter)) => self.subscriptions.add_queue(&filter, Instant::now()),
            Some(ClientCommand::LeaveQueue(filter)) => {
                self.subscriptions.remove_queue(&filter);
                if let Some(connection) = connection {
                    connection.unsubscribe(&filter);
                }
                self.report_deficits();
            }
            Some(ClientCommand::Close(timeout)) => {
                let timeout = if self.was_connected { timeout } else { Duration::ZERO };
                self.close_deadline = Some(Instant::now() + timeout);
            }
            None => self.close_deadline = Some(Instant::now()),
        }
    }
}
