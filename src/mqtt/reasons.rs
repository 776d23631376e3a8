//! Reason codes of MQTT 5 in plain words, with advice.

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, SubscribeReasonCode};

use super::message::QoS;

/// What the advice depends on.
#[derive(Debug, Clone)]
pub(super) struct ClientFacts {
    pub(super) client_id: String,
    pub(super) has_credentials: bool,
}

/// Why something does not work, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What is wrong.
    pub cause: String,
    /// What to do, if that is known.
    pub advice: Option<String>,
}

impl Reason {
    pub(super) fn new(cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { cause: cause.into(), advice: Some(advice.into()) }
    }

    pub(super) fn without_advice(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), advice: None }
    }

    /// The broker has no MQTT 5.
    pub(super) fn only_mqtt_3() -> Self {
        Self::new(
            "the broker speaks only MQTT 3.1.1",
            "denoised needs MQTT 5: update the broker, or use another one",
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)?;
        self.advice.iter().try_for_each(|advice| write!(f, "; {advice}"))
    }
}

const READ_THE_LOG: &str = "read the broker's log, which may have a reason";
const CHECK_LIMITS: &str = "check the broker's limits";
const ANOTHER_SERVER: &str = "set mqtt.url to that one";

/// Why the broker refused the connection, with the broker's own texts if it sent any.
pub(super) fn refused_connection<'a>(
    code: ConnectReturnCode,
    texts: impl Iterator<Item = &'a str>,
    facts: &ClientFacts,
) -> Reason {
    use ConnectReturnCode::*;
    let ClientFacts { client_id, has_credentials } = facts;
    let (cause, advice) = match code {
        UnsupportedProtocolVersion | RefusedProtocolVersion => return Reason::only_mqtt_3(),
        BadUserNamePassword | NotAuthorized if *has_credentials => (
            "the user name or the password is wrong, or this user is not allowed to connect",
            Some("check mqtt.username and mqtt.password_file"),
        ),
        BadUserNamePassword | NotAuthorized => {
            ("it does not accept clients without a login", Some("set mqtt.username and mqtt.password_file"))
        }
        ClientIdentifierNotValid | BadClientId => (
            &*format!("it does not accept the client id {client_id}"),
            Some("set mqtt.client_id to one that it accepts"),
        ),
        Banned => ("this client is banned", Some("ask the broker's administrator")),
        BadAuthenticationMethod => (
            "it requires an authentication method other than user name and password, which denoised does not have",
            None,
        ),
        ServerUnavailable | ServiceUnavailable => ("it is not available, and may be starting", None),
        ServerBusy => ("it is busy", None),
        ConnectionRateExceeded => ("too many clients connect at once", None),
        QuotaExceeded => ("a limit is reached, such as the number of clients", Some(CHECK_LIMITS)),
        UseAnotherServer | ServerMoved => ("it refers clients to another server", Some(ANOTHER_SERVER)),
        TopicNameInvalid => ("it does not accept the topic of the last will", Some("check mqtt.root")),
        PacketTooLarge => ("it does not accept a CONNECT packet of this size", None),
        PayloadFormatInvalid => ("it does not accept the payload of the last will", None),
        RetainNotSupported => ("it does not keep retained messages", None),
        QoSNotSupported => ("it does not accept a last will at this quality of service", None),
        MalformedPacket | ProtocolError => ("it did not understand the CONNECT packet", None),
        UnspecifiedError | ImplementationSpecificError | Success => {
            ("it gives no reason", Some(READ_THE_LOG))
        }
    };
    let texts: String = texts.map(|text| format!(" ({text})")).collect();
    Reason {
        cause: format!("the broker refused the connection: {cause}{texts}"),
        advice: advice.map(str::to_owned),
    }
}

/// Why the broker closed the connection, with the broker's own text if it sent one.
pub(super) fn disconnected(code: DisconnectReasonCode, text: Option<&str>, facts: &ClientFacts) -> Reason {
    use DisconnectReasonCode::*;
    let (cause, advice) = match code {
        SessionTakenOver => {
            return Reason::new(
                format!(
                    "another client uses the client id {}: two daemons have the same name, or mqtt.client_id is set \
                     to the same value twice",
                    facts.client_id
                ),
                "set `node` or mqtt.client_id to another value in one of them",
            );
        }
        ServerShuttingDown => ("it shuts down", None),
        ServerBusy => ("it is busy", None),
        KeepAliveTimeout => ("it heard nothing for longer than the keep-alive interval", None),
        NotAuthorized => ("this user is not allowed to do that", Some("check the broker's access list")),
        AdministrativeAction => ("its administrator closed the connection", None),
        QuotaExceeded => ("a quota is exceeded", Some(CHECK_LIMITS)),
        MessageRateTooHigh => ("messages arrive too fast", Some(CHECK_LIMITS)),
        ConnectionRateExceeded => ("too many clients connect at once", None),
        MaximumConnectTime => ("the connection has lasted as long as it allows", None),
        PacketTooLarge => {
            ("a packet was too large", Some("lower mqtt.max_packet, or raise the broker's limit"))
        }
        ReceiveMaximumExceeded => ("too many messages were unacknowledged", None),
        RetainNotSupported => ("it does not keep retained messages", None),
        QoSNotSupported => ("it does not accept this quality of service", None),
        SharedSubscriptionNotSupported => ("it does not have shared subscriptions", None),
        SubscriptionIdentifiersNotSupported => ("it does not have subscription identifiers", None),
        WildcardSubscriptionsNotSupported => ("it does not have wildcard subscriptions", None),
        TopicFilterInvalid => ("it does not accept a topic filter", None),
        TopicNameInvalid => {
            ("it does not accept a topic name", Some("check mqtt.root and the response topics"))
        }
        TopicAliasInvalid => ("it does not accept a topic alias", None),
        PayloadFormatInvalid => ("it does not accept the format of a payload", None),
        UseAnotherServer | ServerMoved => ("it refers clients to another server", Some(ANOTHER_SERVER)),
        MalformedPacket | ProtocolError => ("it did not understand a packet", None),
        NormalDisconnection | DisconnectWithWillMessage => ("it gives no reason", None),
        UnspecifiedError | ImplementationSpecificError => ("it gives no reason", Some(READ_THE_LOG)),
    };
    let text = text.filter(|text| !text.is_empty()).map(|text| format!(" ({text})")).unwrap_or_default();
    Reason {
        cause: format!("the broker closed the connection: {cause}{text}"),
        advice: advice.map(str::to_owned),
    }
}

/// The QoS at which the broker granted a subscription, or why it refused it.
pub(super) fn subscription(code: SubscribeReasonCode) -> Result<QoS, Reason> {
    use SubscribeReasonCode::*;
    let (cause, advice) = match code {
        Success(WireQoS::AtMostOnce) => return Ok(QoS::AtMostOnce),
        Success(WireQoS::AtLeastOnce) => return Ok(QoS::AtLeastOnce),
        Success(WireQoS::ExactlyOnce) => return Ok(QoS::ExactlyOnce),
        NotAuthorized => {
            ("not authorized", Some("allow this user to read the topic in the broker's access list"))
        }
        SharedSubscriptionsNotSupported => (
            "the broker has no shared subscriptions",
            Some("use the daemon's own request topic, or another broker"),
        ),
        QuotaExceeded => ("a quota is exceeded", Some("raise the broker's limit of subscriptions")),
        TopicFilterInvalid => {
            ("the broker does not accept this filter", Some("check mqtt.root and mqtt.shared_queue"))
        }
        WildcardSubscriptionsNotSupported => ("the broker has no wildcard subscriptions", None),
        SubscriptionIdNotSupported => ("the broker has no subscription identifiers", None),
        PkidInUse => ("the packet identifier is in use", None),
        Failure | Unspecified | ImplementationSpecific => {
            ("the broker gives no reason", Some("check its access list and its log"))
        }
    };
    Err(Reason { cause: cause.to_owned(), advice: advice.map(str::to_owned) })
}

/// What to do if the broker does not accept a message on a topic.
const ALLOW_WRITING: &str = "allow this user to write to it in the broker's access list";

/// Why the broker rejected a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    /// The reason in plain words.
    pub(super) reason: &'static str,
    pub(super) kind: RejectionKind,
}

/// Whether the broker would reject the same message again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectionKind {
    /// It may accept the message later.
    Temporary,
    /// It would, because of the message's topic or payload.
    Permanent,
    /// It would, because of the message's size.
    TooLarge,
}

impl Rejection {
    /// The reason for a topic of the daemon itself, with advice.
    pub(super) fn of_own_topic(&self) -> Reason {
        let advice = match self.kind {
            RejectionKind::TooLarge => "raise the broker's limit of the message size",
            RejectionKind::Temporary | RejectionKind::Permanent => ALLOW_WRITING,
        };
        Reason::new(self.reason, advice)
    }
}

/// The reason code of a PUBACK or PUBREC (MQTT 5, sections 2.4 and 3.4.2.1); `None` if the broker has the message. Brokers
/// also send codes that MQTT 5 lists for other packets only.
pub(super) fn rejection(code: u8) -> Option<Rejection> {
    use RejectionKind::*;
    let (reason, kind) = match code {
        0..=0x7F => return None,
        0x81 | 0x82 => ("it did not understand the packet", Permanent),
        0x87 => ("not authorized", Permanent),
        0x88 | 0x89 => ("it is busy", Temporary),
        0x8B => ("it shuts down", Temporary),
        0x90 => ("the topic is not valid", Permanent),
        0x91 => ("the packet identifier is in use", Temporary),
        0x92 => ("the packet identifier is not known", Temporary),
        0x93 => ("too many messages were unacknowledged", Temporary),
        0x95 => ("the message is too large", TooLarge),
        0x96 => ("messages arrive too fast", Temporary),
        0x97 => ("a quota is exceeded", Temporary),
        0x98 => ("by its administrator", Temporary),
        0x99 => ("the format of the payload is not valid", Permanent),
        0x9A => ("it does not keep retained messages", Permanent),
        0x9B => ("it does not accept this quality of service", Permanent),
        _ => ("without a reason", Temporary),
    };
    Some(Rejection { reason, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_permanent_if_it_concerns_the_topic_or_the_payload() {
        let kind = |code| rejection(code).map(|rejection| rejection.kind);
        for code in [0x87, 0x90, 0x99, 0x9B] {
            assert_eq!(kind(code), Some(RejectionKind::Permanent), "{code:#x}");
        }
        for code in [0x80, 0x83, 0x89, 0x97, 0xFF] {
            assert_eq!(kind(code), Some(RejectionKind::Temporary), "{code:#x}");
        }
        assert_eq!((kind(0x95), kind(0x10), kind(0)), (Some(RejectionKind::TooLarge), None, None));
    }

    #[test]
    fn a_takeover_names_the_client_id_and_how_to_set_it() {
        let facts = ClientFacts { client_id: "denoised-a".to_owned(), has_credentials: false };
        let Reason { cause, advice } = disconnected(DisconnectReasonCode::SessionTakenOver, None, &facts);
        assert!(cause.starts_with("another client uses the client id denoised-a:"), "{cause}");
        assert_eq!(advice.as_deref(), Some("set `node` or mqtt.client_id to another value in one of them"));
    }

    #[test]
    fn a_missing_login_and_a_wrong_one_have_different_advice() {
        let facts = |has_credentials| ClientFacts { client_id: "a".to_owned(), has_credentials };
        let code = ConnectReturnCode::NotAuthorized;
        let refused = |facts| refused_connection(code, std::iter::empty(), &facts);
        let (without, wrong) = (refused(facts(false)), refused(facts(true)));
        assert!(without.cause.ends_with("without a login"), "{without}");
        assert_eq!(without.advice.as_deref(), Some("set mqtt.username and mqtt.password_file"));
        assert!(wrong.cause.contains("password is wrong"), "{wrong}");
        assert_eq!(wrong.advice.as_deref(), Some("check mqtt.username and mqtt.password_file"));
    }

    #[test]
    fn the_brokers_own_text_belongs_to_the_cause_and_not_to_the_advice() {
        let facts = ClientFacts { client_id: "a".to_owned(), has_credentials: true };
        let reason =
            refused_connection(ConnectReturnCode::QuotaExceeded, ["full; go away"].into_iter(), &facts);
        assert!(reason.cause.ends_with("number of clients (full; go away)"), "{reason}");
        assert_eq!(reason.advice.as_deref(), Some(CHECK_LIMITS));
    }
}
