//! Reason codes of MQTT 5 in plain words, with advice.

use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, PubAckReason, PubRecReason, SubscribeReasonCode,
};

use super::message::QoS;

/// What the advice depends on.
#[derive(Debug, Clone)]
pub(super) struct ClientFacts {
    pub(super) client_id: String,
    pub(super) has_credentials: bool,
}

/// The sentence that names a broker without MQTT 5.
pub(super) const ONLY_MQTT_3: &str =
    "the broker speaks only MQTT 3.1.1; denoised needs MQTT 5: update the broker, or use another one";

/// Why the broker refused the connection.
pub(super) fn refused_connection(code: ConnectReturnCode, facts: &ClientFacts) -> String {
    use ConnectReturnCode::*;
    let ClientFacts { client_id, has_credentials } = facts;
    let reason = match code {
        UnsupportedProtocolVersion | RefusedProtocolVersion => return ONLY_MQTT_3.to_owned(),
        BadUserNamePassword | NotAuthorized if *has_credentials => {
            "the user name or the password is wrong, or this user is not allowed to connect; check mqtt.username and \
             mqtt.password_file"
        }
        BadUserNamePassword | NotAuthorized => {
            "it does not accept clients without a login; set mqtt.username and mqtt.password_file"
        }
        ClientIdentifierNotValid | BadClientId => {
            return format!(
                "the broker refused the connection: it does not accept the client id {client_id}; set \
                 mqtt.client_id to one that it accepts"
            );
        }
        Banned => "this client is banned; ask the broker's administrator",
        BadAuthenticationMethod => {
            "it requires an authentication method other than user name and password, which denoised does not have"
        }
        ServerUnavailable | ServiceUnavailable => "it is not available; it may be starting",
        ServerBusy => "it is busy",
        ConnectionRateExceeded => "too many clients connect at once",
        QuotaExceeded => "a limit is reached, such as the number of clients; check the broker's limits",
        UseAnotherServer | ServerMoved => "it refers clients to another server; set mqtt.url to that one",
        TopicNameInvalid => "it does not accept the topic of the last will; check mqtt.root",
        PacketTooLarge => "it does not accept a CONNECT packet of this size",
        PayloadFormatInvalid => "it does not accept the payload of the last will",
        RetainNotSupported => "it does not keep retained messages",
        QoSNotSupported => "it does not accept a last will at this quality of service",
        MalformedPacket | ProtocolError => "it did not understand the CONNECT packet",
        UnspecifiedError | ImplementationSpecificError | Success => {
            "it gives no reason; the broker's log may have one"
        }
    };
    format!("the broker refused the connection: {reason}")
}

/// Why the broker closed the connection, with the broker's own text if it sent one.
pub(super) fn disconnected(code: DisconnectReasonCode, text: Option<&str>, facts: &ClientFacts) -> String {
    use DisconnectReasonCode::*;
    let reason = match code {
        SessionTakenOver => {
            return format!(
                "another client uses the client id {}: two daemons have the same name, or mqtt.client_id is set to \
                 the same value twice; set `node` or mqtt.client_id to another value in one of them",
                facts.client_id
            );
        }
        ServerShuttingDown => "it shuts down",
        ServerBusy => "it is busy",
        KeepAliveTimeout => "it heard nothing for longer than the keep-alive interval",
        NotAuthorized => "this user is not allowed to do that; check the broker's access list",
        AdministrativeAction => "its administrator closed the connection",
        QuotaExceeded => "a quota is exceeded; check the broker's limits",
        MessageRateTooHigh => "messages arrive too fast; check the broker's limits",
        ConnectionRateExceeded => "too many clients connect at once",
        MaximumConnectTime => "the connection has lasted as long as it allows",
        PacketTooLarge => "a packet was too large; lower mqtt.max_packet, or raise the broker's limit",
        ReceiveMaximumExceeded => "too many messages were unacknowledged",
        RetainNotSupported => "it does not keep retained messages",
        QoSNotSupported => "it does not accept this quality of service",
        SharedSubscriptionNotSupported => "it does not have shared subscriptions",
        SubscriptionIdentifiersNotSupported => "it does not have subscription identifiers",
        WildcardSubscriptionsNotSupported => "it does not have wildcard subscriptions",
        TopicFilterInvalid => "it does not accept a topic filter",
        TopicNameInvalid => "it does not accept a topic name; check mqtt.root and the response topics",
        TopicAliasInvalid => "it does not accept a topic alias",
        PayloadFormatInvalid => "it does not accept the format of a payload",
        UseAnotherServer | ServerMoved => "it refers clients to another server; set mqtt.url to that one",
        MalformedPacket | ProtocolError => "it did not understand a packet",
        NormalDisconnection | DisconnectWithWillMessage => "it gives no reason",
        UnspecifiedError | ImplementationSpecificError => "it gives no reason; the broker's log may have one",
    };
    let text = text.filter(|text| !text.is_empty()).map(|text| format!(" ({text})")).unwrap_or_default();
    format!("the broker closed the connection: {reason}{text}")
}

/// The QoS at which the broker granted a subscription, or why it refused it.
pub(super) fn subscription(code: SubscribeReasonCode) -> Result<QoS, String> {
    use SubscribeReasonCode::*;
    let reason = match code {
        Success(WireQoS::AtMostOnce) => return Ok(QoS::AtMostOnce),
        Success(WireQoS::AtLeastOnce) => return Ok(QoS::AtLeastOnce),
        Success(WireQoS::ExactlyOnce) => return Ok(QoS::ExactlyOnce),
        NotAuthorized => "not authorized; allow this user to read the topic in the broker's access list",
        SharedSubscriptionsNotSupported => {
            "the broker has no shared subscriptions; use the daemon's own request topic, or another broker"
        }
        QuotaExceeded => "a quota is exceeded; raise the broker's limit of subscriptions",
        TopicFilterInvalid => "the broker does not accept this filter; check mqtt.root and mqtt.shared_queue",
        WildcardSubscriptionsNotSupported => "the broker has no wildcard subscriptions",
        SubscriptionIdNotSupported => "the broker has no subscription identifiers",
        PkidInUse => "the packet identifier is in use",
        Failure | Unspecified | ImplementationSpecific => {
            "the broker gives no reason; check its access list and its log"
        }
    };
    Err(reason.to_owned())
}

/// Why the broker rejected a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    /// The reason in plain words.
    pub(super) reason: &'static str,
    /// Whether the broker would reject the same message again, because of its topic or payload.
    pub(super) is_permanent: bool,
}

/// The reason code of a PUBACK (MQTT 5, section 3.4.2.1); `None` if the broker has the message.
pub(super) fn rejected_by_puback(code: PubAckReason) -> Option<Rejection> {
    use PubAckReason::*;
    let (reason, is_permanent) = match code {
        Success | NoMatchingSubscribers => return None,
        NotAuthorized => ("not authorized", true),
        TopicNameInvalid => ("the topic is not valid", true),
        PayloadFormatInvalid => ("the format of the payload is not valid", true),
        QuotaExceeded => ("a quota is exceeded", false),
        PacketIdentifierInUse => ("the packet identifier is in use", false),
        UnspecifiedError | ImplementationSpecificError => ("without a reason", false),
    };
    Some(Rejection { reason, is_permanent })
}

/// The reason code of a PUBREC, which has the codes of a PUBACK (MQTT 5, section 3.5.2.1).
pub(super) fn rejected_by_pubrec(code: PubRecReason) -> Option<Rejection> {
    rejected_by_puback(match code {
        PubRecReason::Success => PubAckReason::Success,
        PubRecReason::NoMatchingSubscribers => PubAckReason::NoMatchingSubscribers,
        PubRecReason::NotAuthorized => PubAckReason::NotAuthorized,
        PubRecReason::TopicNameInvalid => PubAckReason::TopicNameInvalid,
        PubRecReason::PayloadFormatInvalid => PubAckReason::PayloadFormatInvalid,
        PubRecReason::QuotaExceeded => PubAckReason::QuotaExceeded,
        PubRecReason::PacketIdentifierInUse => PubAckReason::PacketIdentifierInUse,
        PubRecReason::UnspecifiedError => PubAckReason::UnspecifiedError,
        PubRecReason::ImplementationSpecificError => PubAckReason::ImplementationSpecificError,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_permanent_if_it_concerns_the_topic_or_the_payload() {
        let permanent = |rejection: Option<Rejection>| rejection.map(|rejection| rejection.is_permanent);
        assert_eq!(permanent(rejected_by_puback(PubAckReason::NotAuthorized)), Some(true));
        assert_eq!(permanent(rejected_by_pubrec(PubRecReason::PayloadFormatInvalid)), Some(true));
        assert_eq!(permanent(rejected_by_puback(PubAckReason::QuotaExceeded)), Some(false));
        assert_eq!(permanent(rejected_by_pubrec(PubRecReason::UnspecifiedError)), Some(false));
        assert_eq!(permanent(rejected_by_pubrec(PubRecReason::NoMatchingSubscribers)), None);
    }

    #[test]
    fn a_takeover_names_the_client_id_and_how_to_set_it() {
        let facts = ClientFacts { client_id: "denoised-a".to_owned(), has_credentials: false };
        let message = disconnected(DisconnectReasonCode::SessionTakenOver, None, &facts);
        assert!(message.contains("another client uses the client id denoised-a"), "{message}");
        assert!(message.contains("mqtt.client_id"), "{message}");
    }

    #[test]
    fn a_missing_login_and_a_wrong_one_have_different_advice() {
        let facts = |has_credentials| ClientFacts { client_id: "a".to_owned(), has_credentials };
        let code = ConnectReturnCode::NotAuthorized;
        assert!(refused_connection(code, &facts(false)).contains("without a login"));
        assert!(refused_connection(code, &facts(true)).contains("password is wrong"));
    }
}
