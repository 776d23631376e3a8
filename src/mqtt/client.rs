//! The link: the one place that talks to the broker.
//!
//! One task owns the client library's event loop and does nothing but poll it, since a poll that
//! is dropped half-way may lose a packet. This task hands it messages, sorts what comes back,
//! and after any error throws both away and begins anew after a pause.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Connection, Happening};
use super::delivery::{Delivery, Next};
use super::subscriptions::Fetches;
use super::tls::TlsError;
use super::topics::Topics;

use super::connection;
pub use super::events::{AckToken, ClientCommand, ClientEvent, Incoming, Refusal, Settings};

/// Messages handed to the connection before the first is acknowledged.
const WINDOW: usize = 8;
/// The bytes that wait here at most, about; the spool holds the rest.
const MEMORY: usize = 64 << 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Requests that were sent without acknowledgement wait here at most.
const INBOX: usize = 256;

/// The service's end of the link.
#[derive(Debug)]
pub struct MqttClient {
    /// What the link is asked.
    pub asks: mpsc::Sender<ClientCommand>,
    /// What it tells.
    pub reports: mpsc::Receiver<ClientEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl MqttClient {
    /// Begin to connect; the last will and the subscriptions follow from the topics.
    pub fn open(settings: Settings, topics: Topics) -> Result<Self, TlsError> {
        let options = connection::options(&settings, &topics)?;
        let (asks, asked) = mpsc::channel(64);
        let (report, reports) = mpsc::channel(64);
        let state = State {
            delivery: Delivery::new(MEMORY, WINDOW),
            address: format!("{}:{}", settings.host, settings.port),
            own_limit: settings.max_packet as usize,
            patience: settings.patience,
            options,
            topics,
            asked,
            report,
            tidings: VecDeque::new(),
            fetches: Fetches::default(),
            pause: SHORTEST_PAUSE,
            generation: 0,
            closing: None,
            met: false,
        };
        Ok(Self { asks, reports, task: tokio::spawn(state.run()) })
    }

    /// Deliver what is still here for at most so long, disconnect, and end.
    pub async fn close(self, patience: Duration) {
        let Self { asks, mut reports, task } = self;
        // The link may have ended already; then there is nothing to close.
        let _ = asks.send(ClientCommand::Close(patience)).await;
        drop(asks);
        reports.close();
        let _ = task.await;
    }
}

struct State {
    delivery: Delivery,
    address: String,
    own_limit: usize,
    patience: Duration,
    options: rumqttc::v5::MqttOptions,
    topics: Topics,
    asked: mpsc::Receiver<ClientCommand>,
    report: mpsc::Sender<ClientEvent>,
    /// What is still to be told; the broker's own window bounds it, and [`INBOX`] the rest.
    tidings: VecDeque<ClientEvent>,
    fetches: Fetches,
    pause: Duration,
    generation: u64,
    closing: Option<Instant>,
    /// Whether the broker ever accepted us; one that did not has nothing to be told.
    met: bool,
}

impl State {
    async fn run(mut self) {
        while !self.is_over() {
            self.generation += 1;
            let mut connection = Connection::open(self.options.clone(), self.patience);
            let reason = self.serve(&mut connection).await;
            connection.close().await;
            self.delivery.disconnected();
            self.tidings.push_back(ClientEvent::Disconnected);
            match reason {
                Some(reason) => self.rest(&reason).await,
                None => return,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.closing.is_some_and(|end| Instant::now() >= end)
    }

    /// Until the connection breaks, with the reason, or the link is closed.
    async fn serve(&mut self, connection: &mut Connection) -> Option<String> {
        let report = self.report.clone();
        loop {
            self.hand_over(connection);
            if self.closing.is_some() && self.delivery.is_empty() {
                connection.disconnect().await;
                return None;
            }
            let end = self.closing.unwrap_or_else(|| Instant::now() + LONGEST_PAUSE);
            tokio::select! {
                happening = connection.next() => match happening {
                    Happening::Broken(reason) => return Some(reason),
                    other => if let Some(reason) = self.sort(other, connection) {
                        return Some(reason);
                    }
                },
                ask = self.asked.recv(), if self.delivery.has_room() && self.closing.is_none() => {
                    self.answer(ask, Some(connection));
                }
                Ok(permit) = report.reserve(), if !self.tidings.is_empty() => {
                    if let Some(tidings) = self.tidings.pop_front() {
                        permit.send(tidings);
                    }
                }
                () = tokio::time::sleep_until(end), if self.closing.is_some() => return None,
            }
        }
    }

    /// Hand the connection what it may have now.
    fn hand_over(&mut self, connection: &Connection) {
        loop {
            match self.delivery.next_step() {
                Next::Send(message) => connection.publish(message),
                Next::TooLarge { message, number, limit } => {
                    let why = Refusal::TooLarge(limit);
                    self.tidings.push_back(ClientEvent::Undeliverable { message, number, why });
                }
                Next::Nothing => return,
            }
        }
    }

    /// What follows from a happening; a reason if the connection can't go on.
    fn sort(&mut self, happening: Happening, connection: &Connection) -> Option<String> {
        match happening {
            Happening::Connected { largest_packet } => {
                log::info!("connected to the broker at {}", self.address);
                self.pause = SHORTEST_PAUSE;
                self.met = true;
                connection.subscribe(&self.topics);
                self.fetches.connected().iter().for_each(|topic| self.look_at(topic, connection));
                let limit = largest_packet.map_or(self.own_limit, |n| n.min(self.own_limit));
                self.delivery.connected(limit);
                self.tidings.push_back(ClientEvent::Connected);
            }
            Happening::Numbered(packet) => self.delivery.numbered(packet),
            Happening::Acknowledged(packet) => {
                let number = self.delivery.answered(packet).and_then(|(_, number)| number);
                self.tidings.extend(number.map(ClientEvent::Delivered));
            }
            Happening::RejectedProvider { packet, reason, for_good } => {
                return self.refused(packet, reason, for_good);
            }
            Happening::Message(publish) => self.receive(*publish, connection),
            Happening::Subscribed(answer) => match (self.fetches.answered(), answer) {
                (_, Ok(())) => {}
                (Some(topic), Err(reason)) => {
                    self.fetches.forget(&topic);
                    let found = Err(format!("the broker does not let this daemon read it ({reason})"));
                    self.tidings.push_back(ClientEvent::Retained { topic, found });
                }
                (None, Err(reason)) => {
                    return Some(format!(
                        "the broker refused our subscription ({reason}); check its access list"
                    ));
                }
            },
            Happening::Broken(reason) => return Some(reason),
            Happening::Other => {}
        }
        None
    }

    /// A requester's topic that is denied to us is the requester's fault, who is told. Of our own
    /// topics nothing is given up: whoever keeps the broker's access list can mend it.
    fn refused(&mut self, packet: u16, reason: String, for_good: bool) -> Option<String> {
        let topic = &self.delivery.in_flight(packet)?.topic;
        if !for_good || self.topics.owns(topic) {
            return Some(format!(
                "the broker refused a message on {topic} ({reason}); check its access list and quotas"
            ));
        }
        let (message, number) = self.delivery.answered(packet)?;
        let why = Refusal::Denied(reason);
        self.tidings.push_back(ClientEvent::Undeliverable { message, number, why });
        None
    }

    fn receive(&mut self, publish: rumqttc::v5::mqttbytes::v5::Publish, connection: &Connection) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let Some(input) = self.topics.input(&topic) else {
            if self.fetches.wants(&topic) {
                let found = Ok(publish.payload.clone());
                self.fetches.forget(&topic);
                self.tidings.push_back(ClientEvent::Retained { topic: topic.clone(), found });
            } else {
                log::warn!("a message on {topic}, which nobody subscribed to, is dropped");
            }
            return connection.leave(&topic);
        };
        let unasked = publish.qos == rumqttc::v5::mqttbytes::QoS::AtMostOnce;
        if unasked && self.tidings.len() >= INBOX {
            log::warn!("a request at QoS 0 is dropped: {INBOX} wait already");
            return;
        }
        let properties = publish.properties.clone().unwrap_or_default();
        self.tidings.push_back(ClientEvent::Incoming(Incoming {
            input,
            payload: publish.payload.clone(),
            response_topic: properties.response_topic,
            correlation: properties.correlation_data,
            receipt: AckToken { connection: self.generation, publish },
        }));
    }

    fn look_at(&mut self, topic: &str, connection: &Connection) {
        if connection.look_at(topic) {
            self.fetches.asked(topic);
        }
    }

    fn answer(&mut self, ask: Option<ClientCommand>, connection: Option<&Connection>) {
        match ask {
            Some(ClientCommand::Send { message, number }) => self.delivery.take(message, number),
            Some(ClientCommand::Acknowledge(receipt)) => {
                // A message of an earlier connection will be delivered again.
                if let Some(connection) = connection.filter(|_| receipt.connection == self.generation) {
                    connection.acknowledge(&receipt.publish);
                }
            }
            Some(ClientCommand::Fetch(topic)) if self.topics.input(&topic).is_some() => {
                let found = Err("requests arrive there, and no pictures".to_owned());
                self.tidings.push_back(ClientEvent::Retained { topic, found });
            }
            Some(ClientCommand::Fetch(topic)) => {
                if let (true, Some(connection)) = (self.fetches.want(&topic), connection) {
                    self.look_at(&topic, connection);
                }
            }
            Some(ClientCommand::Forget(topic)) if self.fetches.wants(&topic) => {
                self.fetches.forget(&topic);
                connection.into_iter().for_each(|connection| connection.leave(&topic));
            }
            Some(ClientCommand::Forget(_)) => {}
            Some(ClientCommand::Close(patience)) => {
                let patience = if self.met { patience } else { Duration::ZERO };
                self.closing = Some(Instant::now() + patience);
            }
            None => self.closing = Some(Instant::now()),
        }
    }

    /// Pause before the next try, with jitter, longer each time; go on taking messages.
    async fn rest(&mut self, reason: &str) {
        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        log::warn!("no connection to the broker at {}: {reason}; next try in {pause:.1?}", self.address);
        let until = Instant::now() + pause;
        let until = self.closing.map_or(until, |end| end.min(until));
        let report = self.report.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                ask = self.asked.recv(), if self.delivery.has_room() && self.closing.is_none() => {
                    self.answer(ask, None);
                    if self.closing.is_some() {
                        return;
                    }
                }
                Ok(permit) = report.reserve(), if !self.tidings.is_empty() => {
                    if let Some(tidings) = self.tidings.pop_front() {
                        permit.send(tidings);
                    }
                }
            }
        }
    }
}
