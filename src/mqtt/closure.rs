//! Why a connection ended.

use std::io;

use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Disconnect, DisconnectReasonCode};

use super::endpoint::Endpoint;
use super::reasons::{self, ClientFacts, Reason};
use super::tls_faults;
use super::wire::WireError;

/// The causes to which the client or `doctor` reacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing listens on the broker's port.
    NothingListens,
    /// The broker does not accept clients without a login.
    LoginRequired,
    /// Another client connected with the same client id.
    TakenOver,
    /// The broker does not accept the last will's QoS.
    WillQos,
    /// The broker does not accept a retained last will.
    WillRetain,
    /// The broker has no shared subscriptions.
    SharedSubscription,
    /// The broker did not accept the connection, and gave no reason.
    Unclear,
    /// The broker closed a connection that it had accepted, and gave no reason.
    Silent,
    /// The broker closed the connection, and gave a reason that concerns a packet.
    Packet,
    /// Any other cause.
    Other,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// What the client reacts to.
    pub cause: Cause,
    /// The cause in plain words, with advice.
    pub reason: Reason,
}

impl Closure {
    pub(super) fn other(reason: Reason) -> Self {
        Self { cause: Cause::Other, reason }
    }

    /// Ends with a cause about which nothing can be done in the configuration.
    pub(super) fn without_advice(cause: impl Into<String>) -> Self {
        Self::other(Reason::without_advice(cause))
    }

    pub(super) fn unclear(cause: impl Into<String>) -> Self {
        Self { cause: Cause::Unclear, reason: Reason::without_advice(cause) }
    }

    pub(super) fn silent() -> Self {
        let reason = Reason::new(
            "the broker closed the connection without a reason",
            "read the broker's log, which may have one",
        );
        Self { cause: Cause::Silent, reason }
    }

    /// Another client connected with the same client id.
    pub(super) fn taken_over(facts: &ClientFacts) -> Self {
        Self::disconnected(&Disconnect::new(DisconnectReasonCode::SessionTakenOver), facts)
    }

    /// The broker refused the connection with this CONNACK.
    pub(super) fn refused(refusal: &ConnAck, facts: &ClientFacts) -> Self {
        let cause = match refusal.code {
            ConnectReturnCode::QoSNotSupported => Cause::WillQos,
            ConnectReturnCode::RetainNotSupported => Cause::WillRetain,
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized
                if !facts.has_credentials =>
            {
                Cause::LoginRequired
            }
            _ => Cause::Other,
        };
        let properties = refusal.properties.iter();
        let texts =
            properties.flat_map(|properties| [&properties.reason_string, &properties.server_reference]);
        let texts = texts.flatten().map(String::as_str).filter(|text| !text.is_empty());
        Self { cause, reason: reasons::refused_connection(refusal.code, texts, facts) }
    }

    /// The broker closed the connection with this DISCONNECT.
    pub(super) fn disconnected(disconnect: &Disconnect, facts: &ClientFacts) -> Self {
        use DisconnectReasonCode::*;
        let cause = match disconnect.reason_code {
            SessionTakenOver => Cause::TakenOver,
            SharedSubscriptionNotSupported => Cause::SharedSubscription,
            MalformedPacket
            | ProtocolError
            | TopicNameInvalid
            | TopicFilterInvalid
            | PayloadFormatInvalid
            | PacketTooLarge
            | NotAuthorized
            | NormalDisconnection
            | UnspecifiedError
            | ImplementationSpecificError => Cause::Packet,
            _ => Cause::Other,
        };
        let text = disconnect.properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
        Self { cause, reason: reasons::disconnected(disconnect.reason_code, text, facts) }
    }

    pub(super) fn from_io(error: &io::Error, is_connected: bool, endpoint: &Endpoint) -> Self {
        if let Some(error) = tls_faults::inside(error) {
            let cause = if tls_faults::may_be_plain(error) { Cause::Unclear } else { Cause::Other };
            return Self { cause, reason: tls_faults::explain(error, &endpoint.host, &endpoint.tls_facts) };
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self {
                cause: Cause::NothingListens,
                reason: Reason::new("nothing listens on this port", "start the broker, or correct mqtt.url"),
            },
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                if is_connected {
                    return Self::silent();
                }
                Self::unclear("the broker closed the connection without an answer")
            }
            _ if error.to_string().contains("failed to lookup address") => {
                Self::other(Reason::new(error.to_string(), "check the host name in mqtt.url"))
            }
            _ => Self::without_advice(error.to_string()),
        }
    }
}

impl From<WireError> for Closure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::ConnAck3 => Self::other(Reason::only_mqtt_3()),
            WireError::Malformed(_) => Self::unclear(error.to_string()),
            WireError::TooLarge(_) => Self::other(Reason::new(error.to_string(), "raise mqtt.max_packet")),
        }
    }
}
