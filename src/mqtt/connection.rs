//! One connection to the broker: rumqttc's client, and its event loop polled by a separate task.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, Packet, PubAckReason, PubRecReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::events::ClientSettings;
use super::message::{Message, QoS};
use super::tls::{self, TlsError};
use super::topics::Topics;

/// An idle connection is pinged at this interval.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the broker keeps the session, with its subscriptions and queued messages.
const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Maximum number of unacknowledged requests that the broker sends.
const RECEIVE_MAXIMUM: u16 = 32;
/// The packet identifiers in use. rumqttc allocates a slot for each; the protocol's 65,535 would
/// take 14 MB.
const PACKET_IDENTIFIERS: u16 = 256;
/// Capacity of rumqttc's request channel: messages in flight, acknowledgements and subscriptions.
const REQUEST_QUEUE_LEN: usize = 256;
/// How long to wait for the DISCONNECT packet to be sent.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An event of one connection.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The broker accepted the connection.
    Connected {
        /// The broker's maximum packet size, if it has one.
        max_packet_size: Option<usize>,
    },
    /// The oldest published message without a packet identifier was assigned this one.
    PacketIdAssigned(u16),
    /// The broker acknowledged the message with this packet identifier.
    Acknowledged(u16),
    /// The broker rejected the message with this packet identifier.
    Rejected {
        /// The packet identifier.
        packet_id: u16,
        /// The MQTT reason code.
        reason: String,
        /// Whether the broker would reject the same message again.
        is_permanent: bool,
    },
    /// The SUBACK of the oldest unanswered SUBSCRIBE packet, with the reason code of a failure.
    Subscribed(Result<(), String>),
    /// A message was received.
    Received(Box<Publish>),
    /// The connection ended, with the reason.
    Closed(String),
    /// An event without an effect here.
    Other,
}

/// Returns rumqttc's options for these settings.
pub(super) fn options(settings: &ClientSettings, topics: &Topics) -> Result<MqttOptions, TlsError> {
    let mut options = MqttOptions::new(&settings.client_id, &settings.host, settings.port);
    let will = LastWill::new(topics.status(), "offline", WireQoS::AtLeastOnce, true, None);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(settings.max_packet))
        .set_manual_acks(true)
        .set_outgoing_inflight_upper_limit(PACKET_IDENTIFIERS)
        .set_last_will(will);
    let mut network = NetworkOptions::new();
    // Nagle's algorithm together with delayed TCP acknowledgements delays small packets by 40 ms.
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    if let Some((user, password)) = &settings.credentials {
        options.set_credentials(user, password);
    }
    if let Some(ca_file) = &settings.tls {
        let config = tls::client_config(ca_file.as_deref(), settings.client_certificate.as_ref())?;
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(config)));
    }
    Ok(options)
}

#[derive(Debug)]
pub(super) struct Connection {
    client: AsyncClient,
    events: mpsc::Receiver<ConnectionEvent>,
    poll_task: JoinHandle<()>,
}

impl Connection {
    /// Starts to connect. The connection is closed if one poll takes longer than `stall_timeout`;
    /// a poll returns at every ping at the latest.
    pub(super) fn open(options: MqttOptions, stall_timeout: Duration) -> Self {
        let (client, event_loop) = AsyncClient::new(options, REQUEST_QUEUE_LEN);
        let (sender, events) = mpsc::channel(64);
        Self { client, events, poll_task: tokio::spawn(poll(event_loop, sender, stall_timeout)) }
    }

    /// Waits for the next event; [`ConnectionEvent::Closed`] is the last.
    pub(super) async fn next_event(&mut self) -> ConnectionEvent {
        let ended = || ConnectionEvent::Closed("the connection ended".to_owned());
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Subscribes to the daemon's own topics.
    pub(super) fn subscribe(&self, topics: &Topics) {
        let filters = topics.subscriptions();
        let filters =
            filters.into_iter().map(|topic| Filter::new(topic, WireQoS::AtLeastOnce)).collect::<Vec<_>>();
        if let Err(error) = self.client.try_subscribe_many(filters) {
            log::error!("cannot subscribe to the request topics: {error}");
        }
    }

    /// Subscribes to a topic to receive its retained message. Returns whether the SUBSCRIBE packet
    /// was queued.
    pub(super) fn subscribe_once(&self, topic: &str) -> bool {
        let queued = self.client.try_subscribe(topic, WireQoS::AtMostOnce);
        queued.inspect_err(|error| log::error!("cannot subscribe to {topic}: {error}")).is_ok()
    }

    pub(super) fn unsubscribe(&self, topic: &str) {
        if let Err(error) = self.client.try_unsubscribe(topic) {
            log::error!("cannot unsubscribe from {topic}: {error}");
        }
    }

    pub(super) fn publish(&self, message: Message) {
        let qos = match message.qos {
            QoS::AtMostOnce => WireQoS::AtMostOnce,
            QoS::AtLeastOnce => WireQoS::AtLeastOnce,
            QoS::ExactlyOnce => WireQoS::ExactlyOnce,
        };
        let properties = PublishProperties {
            content_type: message.content_type.map(std::borrow::Cow::into_owned),
            correlation_data: message.correlation_data,
            user_properties: message
                .user_properties
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value))
                .collect(),
            ..PublishProperties::default()
        };
        // The request channel holds more than the messages in flight. If it were full anyway, the
        // message would be sent on the next connection.
        if let Err(error) = self.client.try_publish_with_properties(
            message.topic,
            qos,
            message.retain,
            message.payload,
            properties,
        ) {
            log::error!("cannot publish a message, it is sent again on the next connection: {error}");
        }
    }

    pub(super) fn acknowledge(&self, publish: &Publish) {
        if let Err(error) = self.client.try_ack(publish) {
            log::error!("cannot acknowledge a request, the broker will send it again: {error}");
        }
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will.
    pub(super) async fn disconnect(&mut self) {
        if self.client.try_disconnect().is_ok() {
            let closed = async { while !matches!(self.next_event().await, ConnectionEvent::Closed(_)) {} };
            // Without DISCONNECT the broker publishes the last will; nothing else depends on it.
            let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, closed).await;
        }
    }

    pub(super) async fn close(self) {
        self.poll_task.abort();
        let _ = self.poll_task.await;
    }
}

async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<ConnectionEvent>, stall_timeout: Duration) {
    loop {
        let event = match tokio::time::timeout(stall_timeout, event_loop.poll()).await {
            Err(_) => ConnectionEvent::Closed(format!("no activity for {stall_timeout:?}")),
            Ok(Err(error)) => ConnectionEvent::Closed(describe(&error)),
            Ok(Ok(event)) => classify(event),
        };
        let is_last = matches!(event, ConnectionEvent::Closed(_));
        if events.send(event).await.is_err() || is_last {
            return;
        }
    }
}

fn classify(event: Event) -> ConnectionEvent {
    match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) if packet_id > 0 => {
            ConnectionEvent::PacketIdAssigned(packet_id)
        }
        Event::Outgoing(Outgoing::AwaitAck(packet_id)) => {
            ConnectionEvent::Closed(format!("packet identifier {packet_id} is already in use"))
        }
        Event::Outgoing(Outgoing::Disconnect) => {
            ConnectionEvent::Closed("the daemon disconnected".to_owned())
        }
        Event::Incoming(Packet::ConnAck(ack)) => {
            let max_packet_size = ack.properties.and_then(|properties| properties.max_packet_size);
            ConnectionEvent::Connected { max_packet_size: max_packet_size.map(|size| size as usize) }
        }
        Event::Incoming(Packet::PubAck(ack)) => classify_puback(ack.pkid, ack.reason),
        Event::Incoming(Packet::PubRec(ack)) => classify_pubrec(ack.pkid, ack.reason),
        Event::Incoming(Packet::PubComp(ack)) => ConnectionEvent::Acknowledged(ack.pkid),
        Event::Incoming(Packet::Publish(publish)) => ConnectionEvent::Received(Box::new(publish)),
        Event::Incoming(Packet::SubAck(ack)) => {
            let failure =
                ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            ConnectionEvent::Subscribed(failure.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        _ => ConnectionEvent::Other,
    }
}

/// Classifies a PUBACK, the answer to a message at QoS 1. The permanent reason codes are those that
/// concern the message's topic or payload (MQTT 5, section 3.4.2.1).
fn classify_puback(packet_id: u16, reason: PubAckReason) -> ConnectionEvent {
    use PubAckReason::{
        ImplementationSpecificError, NoMatchingSubscribers, NotAuthorized, PacketIdentifierInUse,
        PayloadFormatInvalid, QuotaExceeded, Success, TopicNameInvalid, UnspecifiedError,
    };
    let is_permanent = match reason {
        Success | NoMatchingSubscribers => return ConnectionEvent::Acknowledged(packet_id),
        NotAuthorized | TopicNameInvalid | PayloadFormatInvalid => true,
        UnspecifiedError | ImplementationSpecificError | PacketIdentifierInUse | QuotaExceeded => false,
    };
    ConnectionEvent::Rejected { packet_id, reason: format!("{reason:?}"), is_permanent }
}

/// Classifies a PUBREC, the first answer to a message at QoS 2; a message that it accepts is
/// acknowledged by PUBCOMP. Its reason codes are those of a PUBACK (MQTT 5, section 3.5.2.1).
fn classify_pubrec(packet_id: u16, reason: PubRecReason) -> ConnectionEvent {
    use PubRecReason::{
        ImplementationSpecificError, NoMatchingSubscribers, NotAuthorized, PacketIdentifierInUse,
        PayloadFormatInvalid, QuotaExceeded, Success, TopicNameInvalid, UnspecifiedError,
    };
    let is_permanent = match reason {
        Success | NoMatchingSubscribers => return ConnectionEvent::Other,
        NotAuthorized | TopicNameInvalid | PayloadFormatInvalid => true,
        UnspecifiedError | ImplementationSpecificError | PacketIdentifierInUse | QuotaExceeded => false,
    };
    ConnectionEvent::Rejected { packet_id, reason: format!("{reason:?}"), is_permanent }
}

/// Describes an error in one line.
fn describe(error: &ConnectionError) -> String {
    use ConnectionError::{ConnectionRefused, Io, MqttState, Timeout, Tls};
    match error {
        Io(error) => error.to_string(),
        Timeout(_) => "timed out waiting for the broker".to_owned(),
        ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        Tls(error) => format!("TLS: {error}"),
        MqttState(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(event: &ConnectionEvent) -> Option<(&str, bool)> {
        match event {
            ConnectionEvent::Rejected { reason, is_permanent, .. } => Some((reason, *is_permanent)),
            _ => None,
        }
    }

    #[test]
    fn a_rejection_is_permanent_if_it_concerns_the_topic_or_the_payload() {
        let permanent = classify_puback(1, PubAckReason::NotAuthorized);
        assert_eq!(rejection(&permanent), Some(("NotAuthorized", true)));
        let permanent = classify_pubrec(1, PubRecReason::PayloadFormatInvalid);
        assert_eq!(rejection(&permanent), Some(("PayloadFormatInvalid", true)));
        let temporary = classify_puback(1, PubAckReason::QuotaExceeded);
        assert_eq!(rejection(&temporary), Some(("QuotaExceeded", false)));
        let temporary = classify_pubrec(1, PubRecReason::UnspecifiedError);
        assert_eq!(rejection(&temporary), Some(("UnspecifiedError", false)));
    }

    #[test]
    fn a_pubrec_without_an_error_does_not_acknowledge_the_message() {
        assert!(matches!(classify_puback(7, PubAckReason::Success), ConnectionEvent::Acknowledged(7)));
        assert!(matches!(
            classify_puback(7, PubAckReason::NoMatchingSubscribers),
            ConnectionEvent::Acknowledged(7)
        ));
        assert!(matches!(classify_pubrec(7, PubRecReason::Success), ConnectionEvent::Other));
    }
}
