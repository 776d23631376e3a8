//! Finds out why a broker gives no answer that an MQTT 5 client understands.
//!
//! Some brokers close the connection at a CONNECT packet of MQTT 5. Further sockets send other packets, and the first
//! bytes of the answers identify what listens on the port.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::endpoint::{Endpoint, Stream};
use super::reasons::Reason;

/// How long to wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the whole diagnosis may take.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Protocol levels in a CONNECT packet.
const MQTT_3_1_1: u8 = 4;
const MQTT_5: u8 = 5;
/// CONNACK codes of a protocol version that is not supported, in MQTT 3.1.1 and MQTT 5.
const UNSUPPORTED_VERSIONS: [u8; 2] = [0x01, 0x84];

/// The first bytes of an answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// A CONNACK without properties, which only MQTT 3 has.
    ConnAck3,
    ConnAck5 {
        code: u8,
    },
    Tls,
    Http,
    Other(Vec<u8>),
    /// Closed, or no answer in time.
    Nothing,
}

impl Answer {
    fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Nothing,
            [0x20, 2, ..] => Self::ConnAck3,
            [0x20, _, _, code, ..] => Self::ConnAck5 { code: *code },
            [0x15 | 0x16, 0x03, ..] => Self::Tls,
            [b'H', b'T', b'T', b'P', ..] => Self::Http,
            other => Self::Other(other.iter().copied().take(16).collect()),
        }
    }
}

/// Explains why no connection to this broker succeeds; `None` if nothing is found.
pub(super) async fn diagnose(endpoint: &Endpoint) -> Option<Reason> {
    let result = match &endpoint.tls {
        Some(_) => tokio::time::timeout(TIMEOUT, diagnose_tls(endpoint)).await,
        None => tokio::time::timeout(TIMEOUT, diagnose_plain(endpoint)).await,
    };
    result.ok().flatten()
}

async fn diagnose_plain(endpoint: &Endpoint) -> Option<Reason> {
    match ask_plain(endpoint, MQTT_5, true).await? {
        Answer::Tls => Some(tls_expected()),
        Answer::Nothing => match ask_plain(endpoint, MQTT_3_1_1, true).await? {
            Answer::ConnAck3 => Some(Reason::only_mqtt_3()),
            Answer::Tls => Some(tls_expected()),
            _ if endpoint.speaks_tls().await => Some(tls_expected()),
            _ => None,
        },
        answer => explain(&answer),
    }
}

async fn diagnose_tls(endpoint: &Endpoint) -> Option<Reason> {
    let config = endpoint.tls.clone()?;
    let Ok(mut stream) = endpoint.connect_tls(config.clone()).await else {
        // The credentials must not leave this machine unencrypted.
        let answer = ask_plain(endpoint, MQTT_5, false).await?;
        return matches!(answer, Answer::ConnAck3 | Answer::ConnAck5 { .. }).then(|| {
            Reason::new(
                format!("port {} is without TLS", endpoint.port),
                "use mqtt:// in mqtt.url, or the broker's port with TLS",
            )
        });
    };
    match ask(&mut stream, MQTT_5, endpoint.credentials.as_ref()).await {
        Answer::Nothing => {
            let mut stream = endpoint.connect_tls(config).await.ok()?;
            let answer = ask(&mut stream, MQTT_3_1_1, endpoint.credentials.as_ref()).await;
            (answer == Answer::ConnAck3).then(Reason::only_mqtt_3)
        }
        answer => explain(&answer),
    }
}

fn tls_expected() -> Reason {
    Reason::new("the port speaks TLS", "use mqtts:// in mqtt.url")
}

/// Explains an answer to CONNECT of MQTT 5.
fn explain(answer: &Answer) -> Option<Reason> {
    match answer {
        Answer::ConnAck3 => Some(Reason::only_mqtt_3()),
        Answer::ConnAck5 { code } if UNSUPPORTED_VERSIONS.contains(code) => Some(Reason::only_mqtt_3()),
        Answer::Http => Some(Reason::new(
            "a web server answers on this port",
            "use the broker's TCP port in mqtt.url: denoised does not speak MQTT over WebSockets",
        )),
        Answer::Other(bytes) => Some(Reason::new(
            format!("the answer is not MQTT, it begins with {:?}", String::from_utf8_lossy(bytes)),
            "correct mqtt.url: another service has this port",
        )),
        Answer::ConnAck5 { .. } | Answer::Tls | Answer::Nothing => None,
    }
}

async fn ask_plain(endpoint: &Endpoint, level: u8, with_credentials: bool) -> Option<Answer> {
    let mut stream = tokio::time::timeout(ANSWER_TIMEOUT, endpoint.connect_tcp()).await.ok()?.ok()?;
    Some(ask(&mut stream, level, endpoint.credentials.as_ref().filter(|_| with_credentials)).await)
}

/// Sends CONNECT of this protocol level, and reads the beginning of the answer.
async fn ask(stream: &mut impl Stream, level: u8, credentials: Option<&(String, String)>) -> Answer {
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(&connect_packet(level, credentials)).await?;
        while answer.len() < 5 && stream.read_buf(&mut answer).await? > 0 {
            if answer.starts_with(&[0x20, 2]) && answer.len() >= 4 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    // What was read before an error or the timeout counts.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
    Answer::from_bytes(&answer)
}

/// A CONNECT packet with a clean session and a client id of its own, which takes over no other session.
fn connect_packet(level: u8, credentials: Option<&(String, String)>) -> Vec<u8> {
    let client_id = format!("denoisedprobe{:08x}", fastrand::u32(..));
    let mut body = Vec::new();
    push_field(&mut body, b"MQTT");
    let flags = if credentials.is_some() { 0b1100_0010 } else { 0b0000_0010 };
    body.extend([level, flags, 0, 10]);
    if level == MQTT_5 {
        // No properties.
        body.push(0);
    }
    push_field(&mut body, client_id.as_bytes());
    for field in credentials.into_iter().flat_map(|(user, password)| [user, password]) {
        push_field(&mut body, field.as_bytes());
    }
    let mut packet = vec![0x10];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// Appends a field with its length. A field is at most 65,535 bytes long.
fn push_field(packet: &mut Vec<u8>, field: &[u8]) {
    let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
    packet.extend(length.to_be_bytes());
    packet.extend(&field[..usize::from(length)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_recognised_by_their_first_bytes() {
        assert_eq!(Answer::from_bytes(&[0x20, 2, 0, 1]), Answer::ConnAck3);
        assert_eq!(Answer::from_bytes(&[0x20, 3, 0, 0x84, 0]), Answer::ConnAck5 { code: 0x84 });
        assert_eq!(Answer::from_bytes(&[0x15, 3, 1, 0, 2, 2, 70]), Answer::Tls);
        assert_eq!(Answer::from_bytes(b"HTTP/1.1 400 Bad Request"), Answer::Http);
        assert_eq!(Answer::from_bytes(b""), Answer::Nothing);
        assert_eq!(explain(&Answer::ConnAck5 { code: 0 }), None);
    }

    #[test]
    fn a_connect_packet_has_the_length_that_it_states() {
        let long = ("user".to_owned(), "p".repeat(300));
        for (level, credentials) in [(MQTT_3_1_1, None), (MQTT_5, None), (MQTT_5, Some(&long))] {
            let packet = connect_packet(level, credentials);
            let is_long = packet[1] >= 0x80;
            let (length, header) = if is_long {
                (usize::from(packet[1] - 0x80) + 128 * usize::from(packet[2]), 3)
            } else {
                (packet[1].into(), 2)
            };
            assert_eq!(packet.len(), header + length);
            assert_eq!(packet[header + 6], level);
        }
    }
}
