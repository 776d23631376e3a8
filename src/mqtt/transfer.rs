//! The task of a connection: connects, then reads and writes packets until the connection ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Packet, PingReq, PubRel};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::closure::{Cause, Closure};
use super::connection::{ConnectionEvent, ConnectionOptions, KEEP_ALIVE};
use super::diagnosis;
use super::endpoint::Stream;
use super::limits::BrokerLimits;
use super::reasons;
use super::wire::{self, Received};

/// How long to wait for CONNACK.
/// The reason code of a PUBACK for a message that nobody gets (MQTT 5, table 3.4).
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
const CONNACK_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BUFFER: usize = 64 << 10;

/// Runs a connection, and reports its end as the last event.
pub(super) async fn run(
    options: ConnectionOptions,
    packets: mpsc::Sender<Packet>,
    outgoing: mpsc::Receiver<Packet>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let mut closure = match connect(&options).await {
        Ok(Accepted { stream, limits, has_session, received }) => {
            let keep_alive = keep_alive(limits.keep_alive_s);
            let connected = ConnectionEvent::Connected { limits: Box::new(limits), has_session };
            if events.send(connected).await.is_err() {
                return;
            }
            let (reader, writer) = tokio::io::split(stream);
            let is_ping_unanswered = AtomicBool::new(false);
            let read = read_packets(reader, received, &options, &packets, &events, &is_ping_unanswered);
            let write = write_packets(writer, outgoing, &options, keep_alive, &events, &is_ping_unanswered);
            let closure = tokio::select! {
                closure = read => closure,
                closure = write => closure,
            };
            let cause = if closure.cause == Cause::Unclear { Cause::Other } else { closure.cause };
            Closure { cause, ..closure }
        }
        Err(closure) => closure,
    };
    if closure.cause == Cause::Unclear && options.diagnoses {
        closure.reason = diagnosis::diagnose(&options.endpoint).await.unwrap_or(closure.reason);
    }
    // The receiver is gone if the client is closed.
    let _ = events.send(ConnectionEvent::Closed(closure)).await;
}

/// The broker's interval if it is shorter than the client's. More pings than the broker asks for are allowed; 0 turns its
/// keep-alive off, but not the client's.
fn keep_alive(broker_s: Option<u16>) -> Duration {
    let broker = broker_s.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
    broker.map_or(KEEP_ALIVE, |broker| broker.min(KEEP_ALIVE))
}

/// A connection that the broker accepted.
struct Accepted {
    stream: Box<dyn Stream>,
    limits: BrokerLimits,
    /// Whether the broker has kept the session of an earlier connection.
    has_session: bool,
    /// The bytes that follow CONNACK.
    received: BytesMut,
}

/// Connects, and waits for the broker to accept the connection.
async fn connect(options: &ConnectionOptions) -> Result<Accepted, Closure> {
    let failed = |error: &io::Error| Closure::from_io(error, false, &options.endpoint);
    let mut stream = options.endpoint.connect().await.map_err(|error| failed(&error))?;
    let mut received = BytesMut::new();
    let exchange = async {
        let packet = wire::encode(&options.connect_packet())?;
        stream.write_all(&packet).await.map_err(|error| failed(&error))?;
        stream.flush().await.map_err(|error| failed(&error))?;
        loop {
            if let Some(packet) = wire::decode(&mut received, options.max_packet)? {
                return Ok(packet);
            }
            if stream.read_buf(&mut received).await.map_err(|error| failed(&error))? == 0 {
                return Err(Closure::unclear("the broker closed the connection without an answer"));
            }
        }
    };
    let answer = timeout(CONNACK_TIMEOUT, exchange).await;
    match answer.unwrap_or_else(|_| Err(Closure::unclear("the broker did not answer in time")))? {
        Received::Other(Packet::ConnAck(ConnAck {
            code: ConnectReturnCode::Success,
            properties,
            session_present,
        })) => Ok(Accepted { stream, limits: properties.into(), has_session: session_present, received }),
        Received::Other(Packet::ConnAck(refusal)) => Err(Closure::refused(&refusal, &options.facts)),
        _ => Err(Closure::unclear("the broker's answer is not a CONNACK packet")),
    }
}

async fn read_packets(
    mut reader: impl AsyncRead + Unpin,
    mut received: BytesMut,
    options: &ConnectionOptions,
    packets: &mpsc::Sender<Packet>,
    events: &mpsc::Sender<ConnectionEvent>,
    is_ping_unanswered: &AtomicBool,
) -> Closure {
    loop {
        loop {
            let event = match wire::decode(&mut received, options.max_packet) {
                Ok(None) => break,
                Ok(Some(Received::Other(Packet::Disconnect(disconnect)))) => {
                    return Closure::disconnected(&disconnect, &options.facts);
                }
                Ok(Some(packet)) => classify(packet, packets),
                Err(error) => return error.into(),
            };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return Closure::without_advice("the client ended");
            }
        }
        received.reserve(READ_BUFFER);
        match reader.read_buf(&mut received).await {
            Ok(0) => return Closure::silent(),
            // Any byte shows that the broker is alive: PINGRESP may be behind a large packet.
            Ok(_) => is_ping_unanswered.store(false, Ordering::Relaxed),
            Err(error) => return Closure::from_io(&error, true, &options.endpoint),
        }
    }
}

/// Converts a packet to an event, and answers PUBREC.
fn classify(received: Received, packets: &mpsc::Sender<Packet>) -> Option<ConnectionEvent> {
    let answer = |packet_id, code| match reasons::rejection(code) {
        None => ConnectionEvent::Acknowledged { packet_id, has_subscribers: code != NO_MATCHING_SUBSCRIBERS },
        Some(rejection) => ConnectionEvent::Rejected { packet_id, rejection },
    };
    let packet = match received {
        Received::PubAck { packet_id, code } => return Some(answer(packet_id, code)),
        Received::PubRec { packet_id, code } => {
            return Some(match reasons::rejection(code) {
                Some(rejection) => ConnectionEvent::Rejected { packet_id, rejection },
                None => {
                    // PUBCOMP completes the message. Sending fails only after the connection has ended.
                    let _ = packets.try_send(Packet::PubRel(PubRel::new(packet_id, None)));
                    ConnectionEvent::Stored(packet_id)
                }
            });
        }
        Received::PubComp(packet_id) => {
            return Some(ConnectionEvent::Acknowledged { packet_id, has_subscribers: true });
        }
        Received::Other(packet) => packet,
    };
    Some(match packet {
        Packet::Publish(publish) => ConnectionEvent::Received(Box::new(publish)),
        Packet::SubAck(ack) => ConnectionEvent::SubAck {
            packet_id: ack.pkid,
            results: ack.return_codes.into_iter().map(reasons::subscription).collect(),
        },
        Packet::UnsubAck(ack) => ConnectionEvent::UnsubAck(ack.pkid),
        _ => return None,
    })
}

async fn write_packets(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Packet>,
    options: &ConnectionOptions,
    keep_alive: Duration,
    events: &mpsc::Sender<ConnectionEvent>,
    is_ping_unanswered: &AtomicBool,
) -> Closure {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let packet = tokio::select! {
            packet = outgoing.recv() => packet,
            _ = pings.tick() => {
                if is_ping_unanswered.swap(true, Ordering::Relaxed) {
                    return Closure::without_advice(format!("the broker has not answered for {keep_alive:?}"));
                }
                Some(Packet::PingReq(PingReq))
            }
        };
        let Some(packet) = packet else { return Closure::without_advice("the client ended") };
        let bytes = match wire::encode(&packet) {
            Ok(bytes) => bytes,
            Err(error) => return error.into(),
        };
        match write_all(&mut writer, &bytes, options.stall_timeout).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Closure::without_advice(format!(
                    "the broker has read nothing for {:?}",
                    options.stall_timeout
                ));
            }
            // The reader has the broker's reason, if it sent one.
            Err(error) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Closure::from_io(&error, true, &options.endpoint);
            }
        }
        let is_best_effort = matches!(&packet, Packet::Publish(publish) if publish.qos == QoS::AtMostOnce);
        if is_best_effort && events.send(ConnectionEvent::Written).await.is_err() {
            return Closure::without_advice("the client ended");
        }
        if matches!(packet, Packet::Disconnect(_)) {
            // The connection ends with it in any case.
            let _ = writer.shutdown().await;
            return Closure::without_advice("the daemon disconnected");
        }
    }
}

/// Writes all bytes. The time limit is for each part that the broker takes, so that a slow connection can take long.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = timeout(stall, writer.write(bytes)).await??;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
    }
    timeout(stall, writer.flush()).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_keep_alive_can_shorten_the_interval_of_pings_and_not_end_them() {
        let seconds = [None, Some(0), Some(5), Some(60)].map(|broker| keep_alive(broker).as_secs());
        assert_eq!(seconds, [10, 10, 5, 10]);
    }

    #[test]
    fn a_pubrec_without_an_error_is_answered_and_does_not_acknowledge_the_message() {
        let (packets, mut sent) = mpsc::channel(1);
        let event = classify(Received::PubRec { packet_id: 7, code: 0 }, &packets);
        assert!(matches!(event, Some(ConnectionEvent::Stored(7))), "{event:?}");
        assert_eq!(sent.try_recv(), Ok(Packet::PubRel(PubRel::new(7, None))));
    }
}
