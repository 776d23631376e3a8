//! One connection: rumqttc's client and event loop, the latter polled by a task of its own.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, Packet, PubAckReason, PubRecReason, Publish, PublishProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::Settings;
use crate::mqtt::message::{Message, QoS};
use crate::mqtt::tls::{self, TlsError};
use crate::mqtt::topics::Topics;

/// A connection on which nothing else happened for so long is pinged.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// For so long the broker keeps our subscriptions and what arrives for them.
const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Requests that the broker sends before the first is acknowledged.
const RECEIVE_MAXIMUM: u16 = 32;
/// Packet identifiers that are used in turn; the client library has a place in memory for each, of
/// which the protocol's 65,535 would take 14 MB.
const PACKET_IDENTIFIERS: u16 = 256;
/// Room for what the link hands over: its window, acknowledgements, subscriptions.
const REQUESTS: usize = 256;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Happening {
    /// The broker accepted us.
    Connected {
        /// The largest packet it takes, if it said so.
        largest_packet: Option<usize>,
    },
    /// The oldest message handed over that has no packet identifier got this one.
    Numbered(u16),
    /// The broker has the message with this packet identifier.
    Acknowledged(u16),
    /// The broker does not take the message with this packet identifier.
    RejectedProvider {
        /// The packet identifier.
        packet: u16,
        /// The broker's reason.
        reason: String,
        /// Whether the same message would be refused again.
        for_good: bool,
    },
    /// The broker's answer to the oldest subscription that has none; its word where it refused.
    Subscribed(Result<(), String>),
    /// A message came in.
    Message(Box<Publish>),
    /// The connection is over.
    Broken(String),
    /// Nothing that matters here.
    Other,
}

/// The client's options for these settings.
pub(super) fn options(settings: &Settings, topics: &Topics) -> Result<MqttOptions, TlsError> {
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
    // Small packets that wait for the acknowledgement of the last would wait some 40 ms.
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    if let Some((user, password)) = &settings.credentials {
        options.set_credentials(user, password);
    }
    if let Some(ca_file) = &settings.tls {
        let config = tls::client(ca_file.as_deref(), settings.client_certificate.as_ref())?;
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(config)));
    }
    Ok(options)
}

#[derive(Debug)]
pub(super) struct Connection {
    client: AsyncClient,
    happenings: mpsc::Receiver<Happening>,
    poller: JoinHandle<()>,
}

impl Connection {
    /// Begin to connect; a poll that takes longer than `patience` is stuck, since it returns at
    /// least at every ping.
    pub(super) fn open(options: MqttOptions, patience: Duration) -> Self {
        let (client, event_loop) = AsyncClient::new(options, REQUESTS);
        let (sender, happenings) = mpsc::channel(64);
        Self { client, happenings, poller: tokio::spawn(poll(event_loop, sender, patience)) }
    }

    /// The next thing that happens; [`Happening::Broken`] is the last.
    pub(super) async fn next(&mut self) -> Happening {
        let ended = || Happening::Broken("the connection ended".to_owned());
        self.happenings.recv().await.unwrap_or_else(ended)
    }

    pub(super) fn subscribe(&self, topics: &Topics) {
        let filters = topics.subscriptions();
        let filters =
            filters.into_iter().map(|topic| Filter::new(topic, WireQoS::AtLeastOnce)).collect::<Vec<_>>();
        if let Err(error) = self.client.try_subscribe_many(filters) {
            log::error!("subscribing failed: {error}");
        }
    }

    /// Subscribe to one more topic, whose retained message the broker sends then; tells whether the
    /// subscription is on its way.
    pub(super) fn look_at(&self, topic: &str) -> bool {
        let asked = self.client.try_subscribe(topic, WireQoS::AtMostOnce);
        asked.inspect_err(|error| log::error!("subscribing to {topic} failed: {error}")).is_ok()
    }

    pub(super) fn leave(&self, topic: &str) {
        if let Err(error) = self.client.try_unsubscribe(topic) {
            log::error!("unsubscribing from {topic} failed: {error}");
        }
    }

    pub(super) fn publish(&self, message: Message) {
        let quality = match message.quality {
            QoS::AtMostOnce => WireQoS::AtMostOnce,
            QoS::AtLeastOnce => WireQoS::AtLeastOnce,
            QoS::ExactlyOnce => WireQoS::ExactlyOnce,
        };
        let properties = PublishProperties {
            content_type: message.content_type.map(std::borrow::Cow::into_owned),
            correlation_data: message.correlation,
            user_properties: message
                .user
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value))
                .collect(),
            ..PublishProperties::default()
        };
        // The channel has more room than the link ever hands over before an acknowledgement;
        // were it full all the same, the message would be sent again on the next connection.
        if let Err(error) = self.client.try_publish_with_properties(
            message.topic,
            quality,
            message.retain,
            message.payload,
            properties,
        ) {
            log::error!("handing a message over failed: {error}");
        }
    }

    pub(super) fn acknowledge(&self, publish: &Publish) {
        if let Err(error) = self.client.try_ack(publish) {
            log::error!("acknowledging a request failed, it will come again: {error}");
        }
    }

    /// Say goodbye, so that the broker does not send the last will.
    pub(super) async fn disconnect(&mut self) {
        if self.client.try_disconnect().is_ok() {
            let goodbye = async { while !matches!(self.next().await, Happening::Broken(_)) {} };
            let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
        }
    }

    pub(super) async fn close(self) {
        self.poller.abort();
        let _ = self.poller.await;
    }
}

async fn poll(mut event_loop: EventLoop, happenings: mpsc::Sender<Happening>, patience: Duration) {
    loop {
        let happening = match tokio::time::timeout(patience, event_loop.poll()).await {
            Err(_) => Happening::Broken(format!("nothing moved for {patience:?}")),
            Ok(Err(error)) => Happening::Broken(explain(&error)),
            Ok(Ok(event)) => understand(event),
        };
        let over = matches!(happening, Happening::Broken(_));
        if happenings.send(happening).await.is_err() || over {
            return;
        }
    }
}

fn understand(event: Event) -> Happening {
    match event {
        Event::Outgoing(Outgoing::Publish(packet)) if packet > 0 => Happening::Numbered(packet),
        Event::Outgoing(Outgoing::AwaitAck(packet)) => {
            Happening::Broken(format!("packet identifier {packet} is in use twice"))
        }
        Event::Outgoing(Outgoing::Disconnect) => Happening::Broken("we disconnected".to_owned()),
        Event::Incoming(Packet::ConnAck(ack)) => Happening::Connected {
            largest_packet: ack
                .properties
                .and_then(|properties| properties.max_packet_size)
                .map(|n| n as usize),
        },
        Event::Incoming(Packet::PubAck(ack)) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Happening::Acknowledged(ack.pkid),
            reason => refused(ack.pkid, format!("{reason:?}")),
        },
        Event::Incoming(Packet::PubRec(ack)) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Happening::Other,
            reason => refused(ack.pkid, format!("{reason:?}")),
        },
        Event::Incoming(Packet::PubComp(ack)) => Happening::Acknowledged(ack.pkid),
        Event::Incoming(Packet::Publish(publish)) => Happening::Message(Box::new(publish)),
        Event::Incoming(Packet::SubAck(ack)) => {
            use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
            let refused = ack.return_codes.iter().find(|code| !matches!(code, Success(_)));
            Happening::Subscribed(refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        _ => Happening::Other,
    }
}

/// A refusal; of the reasons that PUBACK and PUBREC have in common, these are the topic's or the
/// payload's own (MQTT 5, 3.4.2.1).
fn refused(packet: u16, reason: String) -> Happening {
    let for_good = ["NotAuthorized", "TopicNameInvalid", "PayloadFormatInvalid"].contains(&reason.as_str());
    Happening::RejectedProvider { packet, reason, for_good }
}

/// The error in words of one line.
fn explain(error: &rumqttc::v5::ConnectionError) -> String {
    use rumqttc::v5::ConnectionError::{ConnectionRefused, Io, MqttState, Timeout, Tls};
    match error {
        Io(error) => error.to_string(),
        Timeout(_) => "no answer in time".to_owned(),
        ConnectionRefused(code) => format!("the broker refused us: {code:?}"),
        Tls(error) => format!("TLS: {error}"),
        MqttState(error) => error.to_string(),
        other => other.to_string(),
    }
}
