//! Reason codes that rumqttc does not know.
//!
//! It fails on a packet with a code that MQTT 5 does not list for this kind of packet. Brokers send such codes: mosquitto
//! answers a message above its `message_size_limit` with "packet too large".

/// The first byte of packets with reason codes.
pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const SUBACK: u8 = 0x90;
pub(super) const UNSUBACK: u8 = 0xB0;
pub(super) const DISCONNECT: u8 = 0xE0;

/// Codes from this one on are errors; this one is an error without a reason.
const UNSPECIFIED: u8 = 0x80;

/// The errors that MQTT 5 lists for each kind of packet.
fn known_errors(packet_type: u8) -> &'static [u8] {
    match packet_type {
        CONNACK => &[
            0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
            0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        SUBACK => &[0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        UNSUBACK => &[0x80, 0x83, 0x87, 0x8F, 0x91],
        _ => &[
            0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
            0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
    }
}

/// The length of the fixed header of a complete packet.
pub(super) fn header_length(frame: &[u8]) -> usize {
    2 + frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count()
}

/// Replaces errors that rumqttc does not know by the one without a reason.
pub(super) fn replace_unknown_errors(frame: &mut [u8]) {
    let (packet_type, header) = (frame[0], header_length(frame));
    let Some(body) = frame.get_mut(header..) else { return };
    let codes = match packet_type {
        CONNACK => body.get_mut(1..2),
        DISCONNECT => body.get_mut(..1),
        // The codes follow the packet identifier and the properties.
        SUBACK | UNSUBACK => codes_start(body).and_then(|start| body.get_mut(start..)),
        _ => None,
    };
    for code in codes.into_iter().flatten() {
        if *code >= UNSPECIFIED && !known_errors(packet_type).contains(code) {
            *code = UNSPECIFIED;
        }
    }
}

/// Where the codes of a SUBACK or UNSUBACK begin.
fn codes_start(body: &[u8]) -> Option<usize> {
    let (mut length, mut shift) = (0_usize, 0);
    for (index, byte) in body.iter().enumerate().skip(2).take(4) {
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(index + 1 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_are_not_listed_are_replaced() {
        for (frame, expected) in [
            (&[0x90, 6, 0, 9, 0, 0x01, 0x95, 0x87][..], &[0x90, 6, 0, 9, 0, 0x01, 0x80, 0x87][..]),
            (&[0x90, 7, 0, 9, 2, 0xFE, 0xFE, 0xFE, 0x02], &[0x90, 7, 0, 9, 2, 0xFE, 0xFE, 0x80, 0x02]),
            (&[0xB0, 4, 0, 9, 0, 0x97], &[0xB0, 4, 0, 9, 0, 0x80]),
            (&[0x20, 3, 0, 0x96, 0], &[0x20, 3, 0, 0x80, 0]),
            (&[0x20, 3, 1, 0, 0], &[0x20, 3, 1, 0, 0]),
            (&[0xE0, 2, 0xC0, 0], &[0xE0, 2, 0x80, 0]),
            (&[0xE0, 0], &[0xE0, 0]),
            (&[0x90, 2, 0, 9], &[0x90, 2, 0, 9]),
            (&[0x30, 3, 0xFF, 0xFF, 0xFF], &[0x30, 3, 0xFF, 0xFF, 0xFF]),
        ] {
            let mut frame = frame.to_vec();
            replace_unknown_errors(&mut frame);
            assert_eq!(frame, expected);
        }
    }
}
