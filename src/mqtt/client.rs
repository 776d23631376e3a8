//! The MQTT client: one task that owns the connection to the broker.
//!
//! rumqttc's event loop is polled by a task of its own, because a poll that is cancelled can lose a
//! packet. The client task passes messages to it and handles its events. After an error it discards
//! both rumqttc's client and its event loop, and reconnects after a delay.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{self, Connection, ConnectionEvent};
use super::delivery::{Action, Delivery};
use super::subscriptions::RetainedFetches;
use super::tls::TlsError;
use super::topics::Topics;

pub use super::events::{
    AckToken, ClientCommand, ClientEvent, ClientSettings, Incoming, UndeliverableReason,
};

/// Maximum number of unacknowledged messages on a connection.
const MAX_IN_FLIGHT: usize = 8;
/// About how many bytes of messages the client holds; the spool holds the others.
const MAX_QUEUED_BYTES: usize = 64 << 20;
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(250);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);
/// Requests at QoS 0 are dropped while this many events are pending.
const MAX_PENDING_EVENTS: usize = 256;

/// A handle to the client task.
#[derive(Debug)]
pub struct MqttClient {
    /// Sends commands to the client.
    pub commands: mpsc::Sender<ClientCommand>,
    /// Receives the client's events.
    pub events: mpsc::Receiver<ClientEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl MqttClient {
    /// Starts the client task, which connects to the broker and subscribes to the input topics.
    pub fn open(settings: ClientSettings, topics: Topics) -> Result<Self, TlsError> {
        let options = connection::options(&settings, &topics)?;
        let (command_sender, commands) = mpsc::channel(64);
        let (event_sender, events) = mpsc::channel(64);
        let task = ClientTask {
            delivery: Delivery::new(MAX_QUEUED_BYTES, MAX_IN_FLIGHT),
            broker_address: format!("{}:{}", settings.host, settings.port),
            max_packet: settings.max_packet as usize,
            stall_timeout: settings.stall_timeout,
            options,
            topics,
            commands,
            events: event_sender,
            pending_events: VecDeque::new(),
            fetches: RetainedFetches::default(),
            reconnect_delay: MIN_RECONNECT_DELAY,
            connection_id: 0,
            close_deadline: None,
            was_connected: false,
        };
        Ok(Self { commands: command_sender, events, task: tokio::spawn(task.run()) })
    }

    /// Delivers pending messages for at most `timeout`, then disconnects and ends the task.
    pub async fn close(self, timeout: Duration) {
        let Self { commands, mut events, task } = self;
        // Fails only if the task has already ended.
        let _ = commands.send(ClientCommand::Close(timeout)).await;
        drop(commands);
        events.close();
        let _ = task.await;
    }
}

struct ClientTask {
    delivery: Delivery,
    broker_address: String,
    max_packet: usize,
    stall_timeout: Duration,
    options: rumqttc::v5::MqttOptions,
    topics: Topics,
    commands: mpsc::Receiver<ClientCommand>,
    events: mpsc::Sender<ClientEvent>,
    /// Events that the owner has not received. Bounded by the receive maximum, the messages in
    /// flight and, for requests at QoS 0, by [`MAX_PENDING_EVENTS`].
    pending_events: VecDeque<ClientEvent>,
    fetches: RetainedFetches,
    reconnect_delay: Duration,
    /// Counts connections; an [`AckToken`] is valid for one of them.
    connection_id: u64,
    close_deadline: Option<Instant>,
    /// Whether the broker ever accepted a connection. If it did not, closing does not wait for it.
    was_connected: bool,
}

impl ClientTask {
    async fn run(mut self) {
        while !self.is_past_deadline() {
            self.connection_id += 1;
            let mut connection = Connection::open(self.options.clone(), self.stall_timeout);
            let closed = self.run_connection(&mut connection).await;
            connection.close().await;
            self.delivery.on_disconnected();
            self.pending_events.push_back(ClientEvent::Disconnected);
            match closed {
                Some(reason) => self.wait_to_reconnect(&reason).await,
                None => return,
            }
        }
    }

    fn is_past_deadline(&self) -> bool {
        self.close_deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Runs until the connection fails, and returns the reason; returns `None` once the client is
    /// closed.
    async fn run_connection(&mut self, connection: &mut Connection) -> Option<String> {
        let events = self.events.clone();
        loop {
            self.publish_queued(connection);
            if self.close_deadline.is_some() && self.delivery.is_empty() {
                connection.disconnect().await;
                return None;
            }
            let deadline = self.close_deadline.unwrap_or_else(|| Instant::now() + MAX_RECONNECT_DELAY);
            tokio::select! {
                event = connection.next_event() => {
                    if let Some(reason) = self.handle_event(event, connection) {
                        return Some(reason);
                    }
                }
                command = self.commands.recv(), if self.accepts_commands() => {
                    self.handle_command(command, Some(connection));
                }
                Ok(permit) = events.reserve(), if !self.pending_events.is_empty() => {
                    if let Some(event) = self.pending_events.pop_front() {
                        permit.send(event);
                    }
                }
                () = tokio::time::sleep_until(deadline), if self.close_deadline.is_some() => return None,
            }
        }
    }

    fn accepts_commands(&self) -> bool {
        self.delivery.has_capacity() && self.close_deadline.is_none()
    }

    /// Publishes the queued messages that may be in flight now.
    fn publish_queued(&mut self, connection: &Connection) {
        loop {
            match self.delivery.next_action() {
                Action::Publish(message) => connection.publish(message),
                Action::RejectTooLarge { message, number, limit } => {
                    let reason = UndeliverableReason::TooLarge(limit);
                    self.pending_events.push_back(ClientEvent::Undeliverable { message, number, reason });
                }
                Action::Wait => return,
            }
        }
    }

    /// Handles an event of the connection. Returns a reason if the connection must be closed.
    fn handle_event(&mut self, event: ConnectionEvent, connection: &Connection) -> Option<String> {
        match event {
            ConnectionEvent::Connected { max_packet_size } => self.on_connected(max_packet_size, connection),
            ConnectionEvent::PacketIdAssigned(packet_id) => self.delivery.assign_packet_id(packet_id),
            ConnectionEvent::Acknowledged(packet_id) => {
                let number = self.delivery.complete(packet_id).and_then(|(_, number)| number);
                self.pending_events.extend(number.map(ClientEvent::Delivered));
            }
            ConnectionEvent::Rejected { packet_id, reason, is_permanent } => {
                return self.on_rejected(packet_id, reason, is_permanent);
            }
            ConnectionEvent::Received(publish) => self.on_received(*publish, connection),
            ConnectionEvent::Subscribed(result) => return self.on_subscribed(result),
            ConnectionEvent::Closed(reason) => return Some(reason),
            ConnectionEvent::Other => {}
        }
        None
    }

    fn on_connected(&mut self, max_packet_size: Option<usize>, connection: &Connection) {
        log::info!("connected to the broker at {}", self.broker_address);
        self.reconnect_delay = MIN_RECONNECT_DELAY;
        self.was_connected = true;
        connection.subscribe(&self.topics);
        self.fetches.on_connected().iter().for_each(|topic| self.subscribe_once(topic, connection));
        let limit = max_packet_size.map_or(self.max_packet, |size| size.min(self.max_packet));
        self.delivery.on_connected(limit);
        self.pending_events.push_back(ClientEvent::Connected);
    }

    /// Handles a message that the broker rejected. Only a permanent rejection of a requester's own
    /// topic makes the message undeliverable. The daemon's topics are retried on a new connection,
    /// because the broker's administrator can correct the access list.
    fn on_rejected(&mut self, packet_id: u16, reason: String, is_permanent: bool) -> Option<String> {
        let topic = &self.delivery.in_flight(packet_id)?.topic;
        if !is_permanent || self.topics.is_own_topic(topic) {
            return Some(format!(
                "the broker rejected a message on {topic} ({reason}); check its access list and quotas"
            ));
        }
        let (message, number) = self.delivery.complete(packet_id)?;
        let reason = UndeliverableReason::Rejected(reason);
        self.pending_events.push_back(ClientEvent::Undeliverable { message, number, reason });
        None
    }

    fn on_subscribed(&mut self, result: Result<(), String>) -> Option<String> {
        match (self.fetches.on_suback(), result) {
            (_, Ok(())) => None,
            (Some(topic), Err(reason)) => {
                self.fetches.remove(&topic);
                let payload =
                    Err(format!("the broker does not permit the daemon to read this topic ({reason})"));
                self.pending_events.push_back(ClientEvent::Retained { topic, payload });
                None
            }
            (None, Err(reason)) => Some(format!(
                "the broker rejected the daemon's subscriptions ({reason}); check its access list"
            )),
        }
    }

    fn on_received(&mut self, publish: rumqttc::v5::mqttbytes::v5::Publish, connection: &Connection) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let Some(kind) = self.topics.kind(&topic) else {
            connection.unsubscribe(&topic);
            if self.fetches.contains(&topic) {
                self.fetches.remove(&topic);
                let payload = Ok(publish.payload);
                self.pending_events.push_back(ClientEvent::Retained { topic, payload });
            } else {
                log::warn!("dropped a message on {topic}: the daemon is not subscribed to this topic");
            }
            return;
        };
        let is_best_effort = publish.qos == rumqttc::v5::mqttbytes::QoS::AtMostOnce;
        if is_best_effort && self.pending_events.len() >= MAX_PENDING_EVENTS {
            log::warn!("dropped a request at QoS 0: {MAX_PENDING_EVENTS} events are pending");
            return;
        }
        let properties = publish.properties.clone().unwrap_or_default();
        self.pending_events.push_back(ClientEvent::Incoming(Incoming {
            kind,
            payload: publish.payload.clone(),
            is_retained: publish.retain,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            ack: AckToken { connection_id: self.connection_id, publish },
        }));
    }

    fn subscribe_once(&mut self, topic: &str, connection: &Connection) {
        if connection.subscribe_once(topic) {
            self.fetches.on_subscribe(topic);
        }
    }

    /// Handles a command; `None` means that every sender was dropped.
    fn handle_command(&mut self, command: Option<ClientCommand>, connection: Option<&Connection>) {
        match command {
            Some(ClientCommand::Send { message, number }) => self.delivery.enqueue(message, number),
            Some(ClientCommand::Ack(ack)) => {
                // The broker redelivers a message of an earlier connection.
                if let Some(connection) = connection.filter(|_| ack.connection_id == self.connection_id) {
                    connection.acknowledge(&ack.publish);
                }
            }
            Some(ClientCommand::FetchRetained(topic)) if self.topics.kind(&topic).is_some() => {
                let payload = Err("this topic carries requests, not images".to_owned());
                self.pending_events.push_back(ClientEvent::Retained { topic, payload });
            }
            Some(ClientCommand::FetchRetained(topic)) => {
                if let (true, Some(connection)) = (self.fetches.add(&topic), connection) {
                    self.subscribe_once(&topic, connection);
                }
            }
            Some(ClientCommand::CancelFetch(topic)) if self.fetches.contains(&topic) => {
                self.fetches.remove(&topic);
                connection.into_iter().for_each(|connection| connection.unsubscribe(&topic));
            }
            Some(ClientCommand::CancelFetch(_)) => {}
            Some(ClientCommand::Close(timeout)) => {
                let timeout = if self.was_connected { timeout } else { Duration::ZERO };
                self.close_deadline = Some(Instant::now() + timeout);
            }
            None => self.close_deadline = Some(Instant::now()),
        }
    }

    /// Waits before the next attempt to connect, and handles commands meanwhile. The delay doubles
    /// with every attempt and has random jitter.
    async fn wait_to_reconnect(&mut self, reason: &str) {
        let delay = self.reconnect_delay.mul_f64(0.5 + fastrand::f64());
        self.reconnect_delay = (self.reconnect_delay * 2).min(MAX_RECONNECT_DELAY);
        log::warn!(
            "no connection to the broker at {}: {reason}; next try in {delay:.1?}",
            self.broker_address
        );
        let retry_at = Instant::now() + delay;
        let retry_at = self.close_deadline.map_or(retry_at, |deadline| deadline.min(retry_at));
        let events = self.events.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(retry_at) => return,
                command = self.commands.recv(), if self.accepts_commands() => {
                    self.handle_command(command, None);
                    if self.close_deadline.is_some() {
                        return;
                    }
                }
                Ok(permit) = events.reserve(), if !self.pending_events.is_empty() => {
                    if let Some(event) = self.pending_events.pop_front() {
                        permit.send(event);
                    }
                }
            }
        }
    }
}
