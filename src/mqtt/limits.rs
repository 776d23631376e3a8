//! What the broker offers, as its CONNACK states it.
//!
//! Wildcard subscriptions, subscription identifiers and topic aliases are not used, so their absence has no effect.

use rumqttc::v5::mqttbytes::v5::ConnAckProperties;

use super::message::QoS;
use super::reasons::Reason;

/// What the daemon needs from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The QoS of images, results and errors.
    pub qos: QoS,
    /// The filter of the shared subscription, if there is one.
    pub shared_queue: Option<String>,
    /// How long the broker is to keep the session, in seconds.
    pub session_expiry_s: u32,
}

/// The properties of a CONNACK that limit a client (MQTT 5, section 3.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// The highest QoS at which the broker accepts messages.
    pub max_qos: QoS,
    /// Whether the broker accepts and keeps retained messages.
    pub retain: bool,
    /// Whether the broker has shared subscriptions.
    pub shared_subscriptions: bool,
    /// The most unacknowledged messages that the broker accepts.
    pub receive_maximum: u16,
    /// The largest packet that the broker accepts, in bytes; `None` without a limit.
    pub max_packet_size: Option<u32>,
    /// How long the broker keeps the session in place of the time that was asked for, in seconds.
    pub session_expiry_s: Option<u32>,
    /// The keep-alive interval in place of the client's, in seconds.
    pub keep_alive_s: Option<u16>,
    /// The client id that the broker assigned in place of the client's.
    pub client_id: Option<String>,
}

impl Default for BrokerLimits {
    /// The limits of a CONNACK without properties.
    fn default() -> Self {
        Self {
            max_qos: QoS::ExactlyOnce,
            retain: true,
            shared_subscriptions: true,
            receive_maximum: u16::MAX,
            max_packet_size: None,
            session_expiry_s: None,
            keep_alive_s: None,
            client_id: None,
        }
    }
}

impl From<Option<ConnAckProperties>> for BrokerLimits {
    fn from(properties: Option<ConnAckProperties>) -> Self {
        let Some(properties) = properties else { return Self::default() };
        Self {
            max_qos: match properties.max_qos {
                Some(0) => QoS::AtMostOnce,
                Some(1) => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: properties.retain_available != Some(0),
            shared_subscriptions: properties.shared_subscription_available != Some(0),
            // 0 is a protocol error; 1 is the nearest limit.
            receive_maximum: properties.receive_max.unwrap_or(u16::MAX).max(1),
            max_packet_size: properties.max_packet_size,
            session_expiry_s: properties.session_expiry_interval,
            keep_alive_s: properties.server_keep_alive,
            client_id: properties.assigned_client_identifier,
        }
    }
}

impl BrokerLimits {
    /// Describes each requirement that the broker does not fulfil, with its consequence.
    pub fn deficits(&self, requirements: &Requirements) -> Vec<Reason> {
        let qos = match (self.max_qos, requirements.qos) {
            (QoS::AtMostOnce, _) => Some(Reason::new(
                "the broker accepts messages at QoS 0 only: images, results and errors are sent once, and are lost if \
                 the connection breaks before the broker has read them",
                "use a broker with QoS 1",
            )),
            (QoS::AtLeastOnce, QoS::ExactlyOnce) => Some(Reason::new(
                "the broker accepts messages up to QoS 1: mqtt.qos = 2 has no effect, and a message can arrive twice \
                 after a reconnection",
                "set mqtt.qos = 1, or use a broker with QoS 2",
            )),
            _ => None,
        };
        let retain = (!self.retain).then(|| {
            Reason::new(
                "the broker keeps no retained messages: a subscriber sees status, state and the last image only while \
                 it is connected, and a request cannot name the topic of a picture",
                "turn retained messages on in the broker, and send pictures in the request",
            )
        });
        let shared =
            requirements.shared_queue.as_ref().filter(|_| !self.shared_subscriptions).map(|filter| {
                Reason::new(
                    format!("the broker has no shared subscriptions: requests on {filter} are not received"),
                    "publish to the daemon's own request topic, or use a broker with shared subscriptions",
                )
            });
        let required_s = requirements.session_expiry_s;
        let session = self.session_expiry_s.filter(|&seconds| seconds < required_s).map(|seconds| {
            Reason::new(
                format!(
                    "the broker keeps the session for {seconds} s, not for {required_s}: requests that it receives \
                     while the daemon is disconnected for longer are lost"
                ),
                "raise the broker's limit of the session expiry interval",
            )
        });
        [qos, retain, shared, session].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements() -> Requirements {
        Requirements {
            qos: QoS::ExactlyOnce,
            shared_queue: Some("$share/g/jobs".to_owned()),
            session_expiry_s: 86_400,
        }
    }

    #[test]
    fn a_broker_without_limits_has_no_deficits() {
        assert_eq!(BrokerLimits::from(None).deficits(&requirements()), []);
    }

    #[test]
    fn each_missing_feature_is_one_deficit_with_its_consequence_and_advice() {
        let limits = BrokerLimits {
            max_qos: QoS::AtLeastOnce,
            retain: false,
            shared_subscriptions: false,
            session_expiry_s: Some(60),
            ..BrokerLimits::default()
        };
        let deficits = limits.deficits(&requirements());
        let expected =
            ["up to QoS 1", "keeps no retained messages", "no shared subscriptions", "session for 60 s"];
        assert_eq!(deficits.len(), expected.len(), "{deficits:#?}");
        for (deficit, expected) in deficits.iter().zip(expected) {
            assert!(deficit.cause.contains(expected) && deficit.cause.contains(": "), "{deficit}");
            // `doctor` printed the consequence as the advice.
            assert!(deficit.advice.is_some(), "{deficit}");
        }
        let modest = Requirements { qos: QoS::AtLeastOnce, shared_queue: None, session_expiry_s: 60 };
        assert_eq!(limits.deficits(&modest).len(), 1);
    }
}
