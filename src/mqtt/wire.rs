//! Reads and writes MQTT packets.
//!
//! rumqttc encodes and decodes them. Its own event loop drops two packets in which a broker gives its reason: a CONNACK of
//! MQTT 3, and a DISCONNECT without properties, which mosquitto sends.

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{Disconnect, DisconnectReasonCode, Packet, check};

/// The first byte of CONNACK and of DISCONNECT.
const CONNACK: u8 = 0x20;
const DISCONNECT: u8 = 0xE0;

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
pub(super) fn decode(received: &mut BytesMut, max_packet: u32) -> Result<Option<Packet>, WireError> {
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
            return Ok(Some(Packet::Disconnect(disconnect)));
        }
        ([DISCONNECT, _, code], 3) => {
            let code = *code;
            received.advance(length);
            let code = code.try_into().unwrap_or(DisconnectReasonCode::UnspecifiedError);
            return Ok(Some(Packet::Disconnect(Disconnect::new(code))));
        }
        _ => {}
    }
    match Packet::read(received, Some(max_packet)) {
        Ok(packet) => Ok(Some(packet)),
        Err(error) => Err(WireError::Malformed(error.to_string())),
    }
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

    fn decode_all(bytes: &[u8]) -> Result<Vec<Packet>, WireError> {
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
            assert_eq!(decode_all(bytes), Ok(vec![Packet::Disconnect(Disconnect::new(code))]));
        }
    }

    #[test]
    fn a_connack_of_mqtt_3_is_recognised() {
        assert_eq!(decode_all(&[0x20, 2, 0, 1]), Err(WireError::ConnAck3));
    }

    #[test]
    fn packets_are_split_and_limited() {
        let two = [0xD0, 0, 0xD0, 0, 0xD0];
        assert_eq!(decode_all(&two), Ok(vec![Packet::PingResp(PingResp), Packet::PingResp(PingResp)]));
        assert_eq!(decode_all(&[0x30, 101]), Err(WireError::TooLarge(101)));
        // A complete frame whose contents end too early is not waited for.
        assert!(matches!(decode_all(&[0x40, 1, 0]), Err(WireError::Malformed(_))));
        assert_eq!(encode(&Packet::PingReq(PingReq)).unwrap().as_ref(), [0xC0, 0]);
    }
}
