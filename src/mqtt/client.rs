//! The MQTT client: one task that owns the connection to the broker.
//!
//! Each connection is read and written by a task of its own. The client task passes packets to it and handles its events.
//! After an error it discards the connection, and makes another one after a delay.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::closure::{Cause, Closure};
use super::connection::{self, Connection, ConnectionOptions};
use super::delivery::{Action, Delivery, MAX_IN_FLIGHT};
use super::endpoint::Endpoint;
use super::limits::{BrokerLimits, Requirements};
use super::message::QoS;
use super::newest::NewestMessages;
use super::probe;
use super::reasons::Reason;
use super::subscriptions::Subscriptions;
use super::tls::TlsError;
use super::topics::Topics;

mod following;
mod handlers;

pub use super::events::{
    AckToken, ClientCommand, ClientEvent, ClientSettings, Incoming, UndeliverableReason,
};

/// About how many bytes of messages the client holds; the spool holds the others.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Why a broker gives no reason is found out at most this often, and a second daemon is reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);
/// A connection that another client takes over lives shorter than this: the other client waits less to connect again.
const MAX_SHORT_LIFETIME: Duration = Duration::from_secs(60);
/// The wait without a deadline. It is longer than any other wait.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A handle to the client task.
#[derive(Debug)]
pub struct MqttClient {
    /// Sends commands to the client.
    pub commands: mpsc::Sender<ClientCommand>,
    /// Receives the client's events.
    pub events: mpsc::Receiver<ClientEvent>,
    /// The newest messages of the followed topics.
    pub newest: watch::Receiver<NewestMessages>,
    task: tokio::task::JoinHandle<()>,
}

impl MqttClient {
    /// Starts the client task, which connects to the broker and subscribes to the input topics.
    pub fn open(settings: ClientSettings, topics: Topics) -> Result<Self, TlsError> {
        let endpoint = Endpoint::new(&settings)?;
        let requirements = Requirements {
            qos: settings.qos,
            shared_queue: topics.shared_filter().map(str::to_owned),
            session_expiry_s: connection::SESSION_EXPIRY_S,
        };
        let delivery = Delivery::new(MAX_QUEUED_BYTES, MAX_IN_FLIGHT);
        let delivery = match settings.qos {
            QoS::ExactlyOnce => delivery.with_leftover_ids(),
            QoS::AtLeastOnce | QoS::AtMostOnce => delivery,
        };
        let (command_sender, commands) = mpsc::channel(64);
        let (event_sender, events) = mpsc::channel(64);
        let (newest_sender, newest) = watch::channel(NewestMessages::default());
        let task = ClientTask {
            delivery,
            broker_address: match settings.host.contains(':') {
                true => format!("[{}]:{}", settings.host, settings.port),
                false => format!("{}:{}", settings.host, settings.port),
            },
            max_packet: settings.max_packet as usize,
            options: ConnectionOptions::new(&settings, endpoint),
            will_qos: QoS::AtLeastOnce,
            will_retain: true,
            requirements,
            limits: BrokerLimits::default(),
            subscriptions: Subscriptions::new(&topics),
            rejected_topics: BTreeMap::new(),
            deficits: Vec::new(),
            topics,
            commands,
            events: event_sender,
            pending_events: VecDeque::new(),
            backoff: Backoff::new(),
            diagnosis: None,
            peer_reported: None,
            connected_at: None,
            is_state_published: false,
            instance: format!("{:016x}", fastrand::u64(..)),
            silent_closures: 0,
            taken_over_at: None,
            connection_id: 0,
            close_deadline: None,
            was_connected: false,
            leaving: BTreeMap::new(),
            unsubscribing: BTreeMap::new(),
            newest: newest_sender,
            unacknowledged: 0,
            new_session: NewSession::Possible,
        };
        Ok(Self { commands: command_sender, events, newest, task: tokio::spawn(task.run()) })
    }

    /// Delivers pending messages for at most `timeout`, then disconnects and ends the task.
    pub async fn close(self, timeout: Duration) {
        let Self { commands, mut events, task, .. } = self;
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
    options: ConnectionOptions,
    /// The last will's QoS and whether it is retained, which a broker may not accept.
    will_qos: QoS,
    will_retain: bool,
    requirements: Requirements,
    /// Those of the current or the last connection.
    limits: BrokerLimits,
    subscriptions: Subscriptions,
    /// The daemon's own topics on which the broker accepts no messages, and why.
    rejected_topics: BTreeMap<String, Reason>,
    /// What the broker does not serve, as it was reported.
    deficits: Vec<String>,
    topics: Topics,
    commands: mpsc::Receiver<ClientCommand>,
    events: mpsc::Sender<ClientEvent>,
    /// Events that the owner has not received. Bounded by the receive maximum, the messages in
    /// flight and, for requests at QoS 0, by `handlers::MAX_PENDING_EVENTS`.
    pending_events: VecDeque<ClientEvent>,
    backoff: Backoff,
    /// When it was found out why the broker gives no reason, and the result.
    diagnosis: Option<(Instant, Reason)>,
    connected_at: Option<Instant>,
    /// Whether the broker has this daemon's state of the current or the last connection.
    is_state_published: bool,
    /// The user property `instance` of this daemon's state, which differs from that of every other process.
    instance: String,
    /// How many connections in a row the broker closed soon and without a reason.
    silent_closures: u32,
    /// When it was found out that another client uses this client id.
    taken_over_at: Option<Instant>,
    /// When a second daemon under the same root was reported.
    peer_reported: Option<Instant>,
    /// Counts connections; an [`AckToken`] is valid for one of them.
    connection_id: u64,
    close_deadline: Option<Instant>,
    /// Whether the broker ever accepted a connection. If it did not, closing does not wait for it.
    was_connected: bool,
    /// The former queues that the daemon asked to leave on this connection, by packet identifier.
    leaving: BTreeMap<u16, String>,
    /// Topics that were fetched or followed on this connection, by the packet identifier of UNSUBSCRIBE.
    unsubscribing: BTreeMap<u16, String>,
    newest: watch::Sender<NewestMessages>,
    /// The requests and cancellations of this connection that are not acknowledged.
    unacknowledged: usize,
    new_session: NewSession,
}

/// Whether to connect without the broker's session, which has a subscription that the daemon does not know. This is done
/// once: a broker may also send messages for which nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewSession {
    Possible,
    Due,
    Done,
}

impl ClientTask {
    async fn run(mut self) {
        while !self.is_past_deadline() {
            self.connection_id += 1;
            self.options.diagnoses =
                self.diagnosis.as_ref().is_none_or(|(time, _)| time.elapsed() > REPORT_INTERVAL);
            self.options.will = Some(connection::last_will(&self.topics, self.will_qos, self.will_retain));
            let mut connection = Connection::open(self.options.clone());
            let closed = self.run_connection(&mut connection).await;
            connection.close().await;
            self.delivery.on_disconnected();
            self.pending_events.push_back(ClientEvent::Disconnected);
            match closed {
                Some(closure) => {
                    let closure = self.explain(closure).await;
                    let delay = self.on_closed(&closure);
                    self.wait_to_reconnect(delay).await;
                }
                None => return,
            }
        }
    }

    /// Finds out whether another client took over the connection, which mosquitto does not say: then another daemon has
    /// published its state on this daemon's topic.
    async fn explain(&mut self, closure: Closure) -> Closure {
        let lifetime = self.connected_at.take().map(|time| time.elapsed());
        if closure.cause != Cause::Silent || lifetime.is_none_or(|lifetime| lifetime > MAX_SHORT_LIFETIME) {
            self.silent_closures = 0;
            return closure;
        }
        self.silent_closures += 1;
        // An older state may be that of an earlier run.
        if self.silent_closures < 2 || !self.is_state_published {
            return closure;
        }
        let was_taken_over = self.taken_over_at.is_some_and(|time| time.elapsed() < REPORT_INTERVAL);
        if !was_taken_over {
            if !probe::has_foreign_state(self.options.clone(), &self.topics, &self.instance).await {
                let id = &self.options.facts.client_id;
                let cause = format!(
                    "{}, for example that another client uses the client id {id}",
                    closure.reason.cause
                );
                return Closure { reason: Reason { cause, ..closure.reason }, ..closure };
            }
            self.taken_over_at = Some(Instant::now());
        }
        Closure::taken_over(&self.options.facts)
    }

    fn is_past_deadline(&self) -> bool {
        self.close_deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Runs until the connection fails, and returns the reason; returns `None` once the client is
    /// closed.
    async fn run_connection(&mut self, connection: &mut Connection) -> Option<Closure> {
        let events = self.events.clone();
        loop {
            if self.new_session == NewSession::Due && self.unacknowledged == 0 {
                self.new_session = NewSession::Done;
                self.options.begins_anew = true;
                connection.disconnect().await;
                return Some(Closure::other(Reason::without_advice("the daemon begins a new session")));
            }
            while let Some(filters) = self.subscriptions.next_packet(Instant::now()) {
                connection.subscribe(filters);
            }
            self.publish_queued(connection);
            if self.close_deadline.is_some() && self.delivery.is_empty() {
                connection.disconnect().await;
                return None;
            }
            let never = Instant::now() + NEVER;
            let deadline = self.close_deadline.unwrap_or(never);
            let subscription_due = self.subscriptions.next_due().unwrap_or(never);
            tokio::select! {
                event = connection.next_event() => {
                    if let Some(closure) = self.handle_event(event, connection) {
                        return Some(closure);
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
                () = tokio::time::sleep_until(subscription_due) => {}
                () = tokio::time::sleep_until(deadline), if self.close_deadline.is_some() => return None,
            }
        }
    }

    fn accepts_commands(&self) -> bool {
        self.delivery.has_capacity() && self.close_deadline.is_none()
    }

    /// Publishes the queued messages that may be in flight now.
    fn publish_queued(&mut self, connection: &mut Connection) {
        while connection.has_room() {
            match self.delivery.next_action() {
                Action::Publish { message, packet_id, is_repeated } => {
                    connection.publish(message, packet_id, is_repeated);
                }
                Action::Release(packet_id) => connection.release(packet_id),
                Action::RejectTooLarge { message, number: None, limit }
                    if [self.topics.status(), self.topics.state()].contains(&message.topic) =>
                {
                    let cause =
                        format!("larger than the {limit} bytes that the broker and mqtt.max_packet allow");
                    let reason = Reason::new(cause, "raise that limit");
                    self.rejected_topics.insert(message.topic, reason);
                    self.report_deficits();
                }
                Action::RejectTooLarge { message, number, limit } => {
                    let reason = UndeliverableReason::TooLarge(limit);
                    self.pending_events.push_back(ClientEvent::Undeliverable { message, number, reason });
                }
                Action::Wait => return,
            }
        }
    }

    /// Waits before the next attempt to connect, and handles commands meanwhile.
    async fn wait_to_reconnect(&mut self, delay: Duration) {
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
