//! Reads and writes MQTT packets.
//!
//! rumqttc encodes and decodes them. Its own event loop drops two packets in which a broker gives its reason: a CONNACK of
//! MQTT 3, and a DISCONNECT without properties, which mosquitto sends. Its decoder fails on some reason codes.

mod codes;

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{Disconnect, DisconnectReasonCode, Packet, check};

use codes::{CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBREC};

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "each one is handled at once, and not stored")]
pub(super) enum Received {
    /// The answer to a message at QoS 1, with its reason code.
    PubAck {
        /// The packet identifier.
        packet_id: u16,
        /// Any byte: brokers also send codes that MQTT 5 does not list for this packet.
        code: u8,
    },
    /// The first answer to a message at QoS 2, with its reason code.
    PubRec {
        /// The packet identifier.
        packet_id: u16,
        /// Any byte.
        code: u8,
    },
    /// The last answer to a message at QoS 2. Its reason code has no consequence.
    PubComp(u16),
    /// Another packet.
    Other(Packet),
}

/// Why the received bytes are no packet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// A CONNACK without properties.
    #[error("a CONNACK packet of MQTT 3")]
    ConnAck3,
    #[error("the broker sent a packet of {0} bytes, more than mqtt.max_packet allows")]
    TooLarge(usize),
    #[error("the broker sent a packet that is not valid ({0})")]
    Malformed(String),
}

/// Takes the next packet from the received bytes; `None` if it is not complete.
pub(super) fn decode(received: &mut BytesMut, max_packet: u32) -> Result<Option<Received>, WireError> {
    let length = match check(received.iter(), Some(max_packet)) {
        Ok(header) => header.frame_length(),
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(Error::PayloadSizeLimitExceeded { pkt_size, .. }) => return Err(WireError::TooLarge(pkt_size)),
        Err(error) => return Err(WireError::Malformed(error.to_string())),
    };
    match (&received[..length], length) {
        ([CONNACK, ..], 4) => return Err(WireError::ConnAck3),
        ([DISCONNECT, ..], 2) => {
            received.advance(length);
            let disconnect = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
            return Ok(Some(Received::Other(Packet::Disconnect(disconnect))));
        }
        ([DISCONNECT, _, code], 3) => {
            let code = *code;
            received.advance(length);
            let code = code.try_into().unwrap_or(DisconnectReasonCode::UnspecifiedError);
            return Ok(Some(Received::Other(Packet::Disconnect(Disconnect::new(code)))));
        }
        ([PUBACK | PUBREC | PUBCOMP, ..], _) => return answer(&received.split_to(length)).map(Some),
        _ => codes::replace_unknown_errors(&mut received[..length]),
    }
    match Packet::read(received, Some(max_packet)) {
        Ok(packet) => Ok(Some(Received::Other(packet))),
        Err(error) => Err(WireError::Malformed(error.to_string())),
    }
}

/// Reads a PUBACK, PUBREC or PUBCOMP; without a reason code it is a success.
fn answer(frame: &[u8]) -> Result<Received, WireError> {
    let [high, low, rest @ ..] = &frame[codes::header_length(frame)..] else {
        return Err(WireError::Malformed("it has no packet identifier".to_owned()));
    };
    let (packet_id, code) = (u16::from_be_bytes([*high, *low]), rest.first().copied().unwrap_or(0));
    Ok(match frame[0] {
        PUBACK => Received::PubAck { packet_id, code },
        PUBREC => Received::PubRec { packet_id, code },
        _ => Received::PubComp(packet_id),
    })
}

/// The bytes of a packet.
pub(super) fn encode(packet: &Packet) -> Result<BytesMut, WireError> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).map_err(|error| WireError::Malformed(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::{PingReq, PingResp};

    use super::*;

    fn decode_all(bytes: &[u8]) -> Result<Vec<Received>, WireError> {
        let mut received = BytesMut::from(bytes);
        let mut packets = Vec::new();
        while let Some(packet) = decode(&mut received, 100)? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[test]
    fn a_disconnect_without_properties_has_its_reason_code() {
        for (bytes, code) in [
            (&[0xE0, 1, 0x8E][..], DisconnectReasonCode::SessionTakenOver),
            (&[0xE0, 2, 0x8B, 0], DisconnectReasonCode::ServerShuttingDown),
            (&[0xE0, 0], DisconnectReasonCode::NormalDisconnection),
        ] {
            assert_eq!(
                decode_all(bytes),
                Ok(vec![Received::Other(Packet::Disconnect(Disconnect::new(code)))])
            );
        }
    }

    #[test]
    fn a_connack_of_mqtt_3_is_recognised() {
        assert_eq!(decode_all(&[0x20, 2, 0, 1]), Err(WireError::ConnAck3));
    }

    /// A code that MQTT 5 does not list for PUBACK ended the connection, and so did every repetition.
    #[test]
    fn every_reason_code_of_an_answer_is_read() {
        for code in 0..=0xFF {
            let (puback, pubrec) = ([0x40, 3, 1, 7, code], [0x50, 4, 1, 7, code, 0]);
            assert_eq!(decode_all(&puback), Ok(vec![Received::PubAck { packet_id: 263, code }]));
            assert_eq!(decode_all(&pubrec), Ok(vec![Received::PubRec { packet_id: 263, code }]));
            assert_eq!(decode_all(&[0x70, 3, 1, 7, code]), Ok(vec![Received::PubComp(263)]));
            for frame in [
                vec![0xE0, 2, code, 0],
                vec![0x20, 3, 0, code, 0],
                vec![0x90, 4, 0, 9, 0, code],
                vec![0xB0, 4, 0, 9, 0, code],
            ] {
                // Codes below 0x80 are no errors, and those that are not listed have no meaning.
                assert!(code < 0x80 || decode_all(&frame).is_ok(), "{frame:?}");
            }
        }
        assert_eq!(decode_all(&[0x40, 2, 0, 7]), Ok(vec![Received::PubAck { packet_id: 7, code: 0 }]));
    }

    #[test]
    fn packets_are_split_and_limited() {
        let two = [0xD0, 0, 0xD0, 0, 0xD0];
        let ping = || Received::Other(Packet::PingResp(PingResp));
        assert_eq!(decode_all(&two), Ok(vec![ping(), ping()]));
        assert_eq!(decode_all(&[0x30, 101]), Err(WireError::TooLarge(101)));
        // A complete frame whose contents end too early is not waited for.
        assert!(matches!(decode_all(&[0x40, 1, 0]), Err(WireError::Malformed(_))));
        assert_eq!(encode(&Packet::PingReq(PingReq)).unwrap().as_ref(), [0xC0, 0]);
    }
}
