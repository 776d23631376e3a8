//! One connection to the broker, which a task of its own reads and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, Disconnect, DisconnectReasonCode, Filter, LastWill, Login, Packet, PubAck,
    PubRel, Publish, PublishProperties, Subscribe, Unsubscribe,
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

use super::closure::Closure;
use super::delivery::MAX_IN_FLIGHT;
use super::endpoint::Endpoint;
use super::events::ClientSettings;
use super::limits::BrokerLimits;
use super::message::{Message, QoS};
use super::reasons::{ClientFacts, Reason, Rejection};
use super::topics::Topics;
use super::transfer;

/// An idle connection is pinged at this interval, and more often if the broker asks for it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the broker keeps the session, with its subscriptions and queued messages.
pub(super) const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Maximum number of unacknowledged requests that the broker sends.
const RECEIVE_MAXIMUM: u16 = 32;
/// The most messages at QoS 0 that wait to be written; the others stay in the queue, where they are dropped first.
const MAX_UNWRITTEN: usize = 16;
/// The most packets that wait to be written. Messages in flight, [`MAX_UNWRITTEN`] and [`RECEIVE_MAXIMUM`] keep their number
/// far below this.
const MAX_WAITING_PACKETS: usize = 1024;
/// How long to wait for the DISCONNECT packet to be sent.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An event of one connection.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The broker accepted the connection.
    Connected {
        /// What the broker accepts.
        limits: Box<BrokerLimits>,
        /// Whether the broker has kept the session of an earlier connection.
        has_session: bool,
    },
    /// The oldest published message at QoS 0 was written to the connection.
    Written,
    /// The broker has the message at QoS 2 with this packet identifier, and PUBREL was sent.
    Stored(u16),
    /// The broker acknowledged a message.
    Acknowledged {
        /// The packet identifier.
        packet_id: u16,
        /// Whether somebody gets it, as far as the broker says.
        has_subscribers: bool,
    },
    /// The broker rejected the message with this packet identifier.
    Rejected {
        /// The packet identifier.
        packet_id: u16,
        /// The reason.
        rejection: Rejection,
    },
    /// The SUBACK of the oldest unanswered SUBSCRIBE packet.
    SubAck {
        /// The packet identifier.
        packet_id: u16,
        /// For each filter the QoS, or why it was refused.
        results: Vec<Result<QoS, Reason>>,
    },
    /// The answer to an UNSUBSCRIBE packet.
    UnsubAck(u16),
    /// A message was received.
    Received(Box<Publish>),
    /// The connection ended.
    Closed(Closure),
}

/// What a connection is made with.
#[derive(Debug, Clone)]
pub(super) struct ConnectionOptions {
    pub(super) endpoint: Endpoint,
    pub(super) facts: ClientFacts,
    pub(super) max_packet: u32,
    /// Whether to end an earlier session, and to keep none.
    pub(super) is_temporary: bool,
    /// Whether to end an earlier session, and to keep the new one.
    pub(super) begins_anew: bool,
    pub(super) will: Option<LastWill>,
    /// A connection that takes no byte for this time is closed.
    pub(super) stall_timeout: Duration,
    /// Whether to find out why the broker gives no reason.
    pub(super) diagnoses: bool,
}

impl ConnectionOptions {
    /// Options without a last will.
    pub(super) fn new(settings: &ClientSettings, endpoint: Endpoint) -> Self {
        let facts = ClientFacts {
            client_id: settings.client_id.clone(),
            has_credentials: settings.credentials.is_some(),
        };
        Self {
            endpoint,
            facts,
            max_packet: settings.max_packet,
            is_temporary: false,
            begins_anew: false,
            will: None,
            stall_timeout: settings.stall_timeout,
            diagnoses: true,
        }
    }

    /// The CONNECT packet.
    pub(super) fn connect_packet(&self) -> Packet {
        let properties = ConnectProperties {
            session_expiry_interval: (!self.is_temporary).then_some(SESSION_EXPIRY_S),
            receive_maximum: Some(RECEIVE_MAXIMUM),
            max_packet_size: Some(self.max_packet),
            ..ConnectProperties::new()
        };
        let connect = Connect {
            keep_alive: KEEP_ALIVE.as_secs() as u16,
            client_id: self.facts.client_id.clone(),
            clean_start: self.is_temporary || self.begins_anew,
            properties: Some(properties),
        };
        let login = self.endpoint.credentials.as_ref().map(|(user, password)| Login::new(user, password));
        Packet::Connect(connect, self.will.clone(), login)
    }
}

/// The last will `offline`.
pub(super) fn last_will(topics: &Topics, qos: QoS, retain: bool) -> LastWill {
    LastWill::new(topics.status(), "offline", wire_qos(qos), retain, None)
}

fn wire_qos(qos: QoS) -> WireQoS {
    match qos {
        QoS::AtMostOnce => WireQoS::AtMostOnce,
        QoS::AtLeastOnce => WireQoS::AtLeastOnce,
        QoS::ExactlyOnce => WireQoS::ExactlyOnce,
    }
}

/// Packet identifiers of SUBSCRIBE and UNSUBSCRIBE packets, which end with the connection. Those of messages, below these,
/// are part of the session, as [`Delivery`](super::delivery::Delivery) is.
#[derive(Debug)]
struct PacketIds {
    last: u16,
    in_use: BTreeSet<u16>,
}

impl Default for PacketIds {
    fn default() -> Self {
        Self { last: MAX_IN_FLIGHT, in_use: BTreeSet::new() }
    }
}

impl PacketIds {
    fn next(&mut self) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(MAX_IN_FLIGHT + 1);
            if self.in_use.insert(self.last) {
                return self.last;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    packets: mpsc::Sender<Packet>,
    events: mpsc::Receiver<ConnectionEvent>,
    packet_ids: PacketIds,
    /// Messages at QoS 0 that are not written yet.
    unwritten: usize,
    /// Whether a packet found no room.
    has_overflowed: bool,
    task: JoinHandle<()>,
}

impl Connection {
    /// Starts to connect.
    pub(super) fn open(options: ConnectionOptions) -> Self {
        let (packets, outgoing) = mpsc::channel(MAX_WAITING_PACKETS);
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(transfer::run(options, packets.clone(), outgoing, sender));
        Self { packets, events, packet_ids: PacketIds::default(), unwritten: 0, has_overflowed: false, task }
    }

    /// Waits for the next event; [`ConnectionEvent::Closed`] is the last.
    pub(super) async fn next_event(&mut self) -> ConnectionEvent {
        if self.has_overflowed {
            let reason = format!("{MAX_WAITING_PACKETS} packets wait for the broker");
            return ConnectionEvent::Closed(Closure::without_advice(reason));
        }
        let ended = || ConnectionEvent::Closed(Closure::without_advice("the connection ended"));
        let event = self.events.recv().await.unwrap_or_else(ended);
        match event {
            ConnectionEvent::Written => self.unwritten = self.unwritten.saturating_sub(1),
            ConnectionEvent::SubAck { packet_id, .. } | ConnectionEvent::UnsubAck(packet_id) => {
                self.packet_ids.in_use.remove(&packet_id);
            }
            _ => {}
        }
        event
    }

    fn send(&mut self, packet: Packet) {
        // A closed channel means that the connection has ended. Then all messages are sent again on the next one.
        self.has_overflowed |= matches!(self.packets.try_send(packet), Err(TrySendError::Full(_)));
    }

    /// Returns whether a message may be published now.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten < MAX_UNWRITTEN
    }

    pub(super) fn subscribe(&mut self, filters: Vec<Filter>) {
        let pkid = self.packet_ids.next();
        self.send(Packet::Subscribe(Subscribe { pkid, filters, properties: None }));
    }

    /// Returns the packet identifier.
    pub(super) fn unsubscribe(&mut self, topic: &str) -> u16 {
        let pkid = self.packet_ids.next();
        self.send(Packet::Unsubscribe(Unsubscribe {
            pkid,
            filters: vec![topic.to_owned()],
            properties: None,
        }));
        pkid
    }

    /// Publishes a message with this packet identifier, or without one at QoS 0. `is_repeated` means that it was sent before
    /// with this identifier.
    pub(super) fn publish(&mut self, message: Message, packet_id: Option<u16>, is_repeated: bool) {
        if packet_id.is_none() {
            self.unwritten += 1;
        }
        let properties = PublishProperties {
            content_type: message.content_type.map(std::borrow::Cow::into_owned),
            correlation_data: message.correlation_data,
            response_topic: message.response_topic,
            message_expiry_interval: message.expiry_s,
            user_properties: message
                .user_properties
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value))
                .collect(),
            ..PublishProperties::default()
        };
        self.send(Packet::Publish(Publish {
            dup: is_repeated,
            retain: message.retain,
            pkid: packet_id.unwrap_or(0),
            ..Publish::new(message.topic, wire_qos(message.qos), message.payload, Some(properties))
        }));
    }

    /// Sends PUBREL for a message at QoS 2 that the broker has.
    pub(super) fn release(&mut self, packet_id: u16) {
        self.send(Packet::PubRel(PubRel::new(packet_id, None)));
    }

    /// Acknowledges a received message at QoS 1. The daemon's subscriptions allow no higher one.
    pub(super) fn acknowledge(&mut self, publish: &Publish) {
        if publish.qos == WireQoS::AtLeastOnce {
            self.send(Packet::PubAck(PubAck::new(publish.pkid, None)));
        }
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will.
    pub(super) async fn disconnect(&mut self) {
        self.send(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)));
        let closed = async { while !matches!(self.next_event().await, ConnectionEvent::Closed(_)) {} };
        // Without DISCONNECT the broker publishes the last will; nothing else depends on it.
        let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, closed).await;
    }

    pub(super) async fn close(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_identifier_in_use_is_not_used_again() {
        let mut ids = PacketIds { last: u16::MAX - 1, ..PacketIds::default() };
        ids.in_use.extend([9, 10, 12]);
        // Those of messages are left out.
        assert_eq!([(); 4].map(|()| ids.next()), [u16::MAX, 11, 13, 14]);
        assert_eq!(PacketIds::default().next(), 9);
    }

    #[test]
    fn what_a_connection_is_made_with_is_printed_without_the_password() {
        let settings = ClientSettings {
            host: "broker".to_owned(),
            port: 1883,
            tls: None,
            client_id: "denoised-a".to_owned(),
            credentials: Some(("board".to_owned(), "hunter2".to_owned())),
            max_packet: 1000,
            qos: QoS::AtLeastOnce,
            client_certificate: None,
            stall_timeout: Duration::from_secs(1),
        };
        let options = ConnectionOptions::new(&settings, Endpoint::new(&settings).unwrap());
        for text in [format!("{settings:?}"), format!("{options:?}"), format!("{:?}", options.endpoint)] {
            assert!(text.contains("\"broker\"") && !text.contains("hunter2"), "{text}");
        }
    }
}
