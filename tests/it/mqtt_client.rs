//! The ways in which an MQTT client library loses messages or stalls, each met by a test against a
//! broker that does what it must to bring it about.

use std::time::{Duration, Instant};

use crate::common::daemon::{Broker, Daemon, Subscriber, configuration, publish};
use crate::common::mock_broker::{Scripted, delivered, nothing_said, report, send};
use crate::common::{golden, repository};
use denoised::mqtt::client::{ClientCommand, ClientEvent, Refusal};
use denoised::mqtt::{Message, QoS};
use rumqttc::v5::mqttbytes::QoS as WireQoS;
use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, Packet, PubAckReason, Publish};

fn names(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn payloads(messages: &[(String, u16)]) -> Vec<String> {
    messages.iter().map(|(payload, _)| payload.clone()).collect()
}

fn to(topic: &str, payload: impl Into<bytes::Bytes>) -> Message {
    Message::new(topic.to_owned(), payload)
}

/// rumqttc hands a packet over the limit back to its queue, and connects for ever.
#[tokio::test]
async fn a_message_over_the_brokers_limit_is_given_back_and_the_next_one_goes() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let limit = ConnAckProperties { max_packet_size: Some(1000), ..nothing_said() };
    let mut peer = broker.welcome(false, limit).await;
    let large = to("d/image", vec![b'x'; 1000]);
    link.asks.send(ClientCommand::Send { message: large.clone(), number: Some(1) }).await.unwrap();
    send(&link, 2).await;
    let ClientEvent::Undeliverable { message, number, why } = report(&mut link).await else { panic!() };
    assert_eq!((message, number, why), (large, Some(1), Refusal::TooLarge(1000)));
    let (payload, packet) = peer.messages(1).await.remove(0);
    assert_eq!(payload, "2");
    peer.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(delivered(&mut link).await, 2);
}

/// rumqttc clears all that is pending where a reconnection finds no session.
#[tokio::test]
async fn a_reconnection_without_a_session_loses_nothing() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    for number in 0..5 {
        send(&link, number).await;
    }
    let first = peer.messages(5).await;
    peer.acknowledge(first[0].1, PubAckReason::Success).await;
    assert_eq!(delivered(&mut link).await, 0);
    drop(peer);
    let mut peer = broker.welcome(false, nothing_said()).await;
    let again = peer.messages(4).await;
    assert_eq!(payloads(&again), names(1..5));
    for (payload, packet) in again {
        peer.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(delivered(&mut link).await.to_string(), payload);
    }
}

/// rumqttc's event `Outgoing(Publish)` does not mean sent.
#[tokio::test]
async fn only_the_brokers_acknowledgement_counts_as_delivered() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    for quality in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut peer = broker.welcome(true, nothing_said()).await;
        let message = Message { quality, ..to("d/image", "7") };
        link.asks.send(ClientCommand::Send { message, number: Some(7) }).await.unwrap();
        let publish = peer.message().await;
        if quality == QoS::ExactlyOnce {
            // Received is not yet complete.
            let received = rumqttc::v5::mqttbytes::v5::PubRec::new(publish.pkid, None);
            peer.write(Packet::PubRec(received)).await;
            assert!(matches!(peer.read().await, Packet::PubRel(_)));
        }
        drop(peer);
        let mut peer = broker.welcome(true, nothing_said()).await;
        let again = peer.message().await;
        assert_eq!((&again.payload, again.qos), (&publish.payload, publish.qos));
        if quality == QoS::ExactlyOnce {
            let received = rumqttc::v5::mqttbytes::v5::PubRec::new(again.pkid, None);
            peer.write(Packet::PubRec(received)).await;
            assert!(matches!(peer.read().await, Packet::PubRel(_)));
            let complete = rumqttc::v5::mqttbytes::v5::PubComp::new(again.pkid, None);
            peer.write(Packet::PubComp(complete)).await;
        } else {
            peer.acknowledge(again.pkid, PubAckReason::Success).await;
        }
        // Nothing was told before: this is the first report of it.
        assert_eq!(delivered(&mut link).await, 7);
    }
}

/// rumqttc's `poll` waits without end for a broker that reads no more.
#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_built_anew() {
    let broker = Scripted::start().await;
    let link = broker.link();
    let stalled = broker.welcome(false, nothing_said()).await;
    // More than the sockets' buffers hold, so that writing must wait for a reader.
    for number in 0..8 {
        let message = to("d/image", vec![b'0' + number; 4 << 20]);
        link.asks.send(ClientCommand::Send { message, number: Some(u64::from(number)) }).await.unwrap();
    }
    let mut peer = broker.welcome(true, nothing_said()).await;
    for number in 0..8 {
        let message = peer.message().await;
        assert_eq!((message.payload.len(), message.payload[0]), (4 << 20, b'0' + number));
        peer.acknowledge(message.pkid, PubAckReason::Success).await;
    }
    drop(stalled);
}

/// rumqttc never clears a collision of packet identifiers, and stalls for good.
#[tokio::test]
async fn a_packet_identifier_in_use_twice_does_not_stall() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    // Two identifiers are used in turn; the first is never acknowledged.
    let two = ConnAckProperties { receive_max: Some(2), ..nothing_said() };
    let mut peer = broker.welcome(false, two).await;
    for number in 0..4 {
        send(&link, number).await;
    }
    let first = peer.messages(2).await;
    assert_eq!(payloads(&first), names(0..2));
    peer.acknowledge(first[1].1, PubAckReason::Success).await;
    assert_eq!(delivered(&mut link).await, 1);
    let mut peer = broker.welcome(true, nothing_said()).await;
    let again = peer.messages(3).await;
    assert_eq!(payloads(&again), ["0", "2", "3"]);
    for (payload, packet) in again {
        peer.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(delivered(&mut link).await.to_string(), payload);
    }
}

/// rumqttc tells no message's own acknowledgement, only packet identifiers.
#[tokio::test]
async fn an_acknowledgement_out_of_turn_tells_its_own_message() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    for number in 0..8 {
        send(&link, number).await;
    }
    let mut messages = peer.messages(8).await;
    messages.swap(0, 5);
    messages.swap(3, 7);
    for (payload, packet) in messages {
        peer.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(delivered(&mut link).await.to_string(), payload);
    }
}

/// rumqttc's `publish().await` in the task that polls waits for itself.
#[tokio::test]
async fn many_messages_before_a_silent_broker_hold_up_nothing_that_comes_in() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    for number in 0..2000 {
        send(&link, number).await;
    }
    let mut request = Publish::new("d/request", WireQoS::AtLeastOnce, "{}", None);
    request.pkid = 9;
    peer.write(Packet::Publish(request)).await;
    let ClientEvent::Incoming(incoming) = report(&mut link).await else { panic!() };
    assert_eq!(&incoming.payload[..], b"{}");
    for number in 0..2000_u64 {
        let (payload, packet) = peer.messages(1).await.remove(0);
        assert_eq!(payload, number.to_string());
        peer.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(delivered(&mut link).await, number);
    }
}

/// rumqttc connects again at once, for ever.
#[tokio::test]
async fn a_broker_that_hangs_up_is_tried_again_after_pauses_that_grow() {
    let broker = Scripted::start().await;
    let _link = broker.link();
    let mut began = Instant::now();
    drop(broker.accept().await);
    for least in [125, 250, 500] {
        drop(broker.accept().await);
        // Half of the nominal pause is what jitter leaves of it at least.
        assert!(began.elapsed() >= Duration::from_millis(least), "{:?} of {least} ms", began.elapsed());
        began = Instant::now();
    }
}

/// rumqttc does not subscribe again where the broker has forgotten the session.
#[tokio::test]
async fn every_connection_subscribes_again_with_a_session_or_without() {
    let broker = Scripted::start().await;
    let link = broker.link();
    for session_present in [false, true, false] {
        // `welcome` reads the subscription.
        drop(broker.welcome(session_present, nothing_said()).await);
    }
    link.close(Duration::ZERO).await;
}

/// rumqttc brings a second, older webpki for one of its error types, and leaves the provider open.
#[test]
fn ring_is_the_only_crypto_provider_and_certificates_are_checked_by_rustls_own_webpki() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let named = |name: &str| packages.iter().filter(|p| p["name"].as_str() == Some(name)).collect::<Vec<_>>();
    for absent in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(named(absent).is_empty(), "{absent}");
    }
    let [ring] = named("ring")[..] else { panic!("several rings") };
    let [rustls] = named("rustls")[..] else { panic!("several rustls") };
    let depends_on = |package: &toml::Value, start: &str| {
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies.iter().any(|dependency| dependency.as_str().unwrap().starts_with(start))
    };
    assert!(ring["version"].as_str().unwrap().starts_with("0.17."));
    assert!(depends_on(rustls, "ring") && depends_on(rustls, "rustls-webpki 0.103."), "{rustls}");
}

/// rumqttc acknowledges what comes in before anybody has seen it, unless told otherwise.
#[tokio::test]
async fn a_request_is_acknowledged_when_it_is_safe_and_not_before() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    let request = |packet: u16| {
        let mut request = Publish::new("d/request", WireQoS::AtLeastOnce, packet.to_string(), None);
        request.pkid = packet;
        Packet::Publish(request)
    };
    peer.write(request(5)).await;
    peer.write(request(6)).await;
    let ClientEvent::Incoming(first) = report(&mut link).await else { panic!() };
    let ClientEvent::Incoming(second) = report(&mut link).await else { panic!() };
    // The second alone is safe: its acknowledgement is the first packet that comes.
    link.asks.send(ClientCommand::Acknowledge(second.receipt)).await.unwrap();
    let Packet::PubAck(ack) = peer.read().await else { panic!() };
    assert_eq!(ack.pkid, 6);
    // One of an earlier connection acknowledges nothing on this one.
    drop(peer);
    let mut peer = broker.welcome(true, nothing_said()).await;
    link.asks.send(ClientCommand::Acknowledge(first.receipt)).await.unwrap();
    send(&link, 1).await;
    assert_eq!(peer.messages(1).await[0].0, "1");
}

/// rumqttc takes a refusal for an acknowledgement.
#[tokio::test]
async fn a_message_that_the_broker_refuses_is_not_taken_for_delivered() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    // A requester's topic that is denied to us is told, and the rest goes on.
    let foreign = to("answers/of/mine", "1");
    link.asks.send(ClientCommand::Send { message: foreign.clone(), number: Some(1) }).await.unwrap();
    let (_, packet) = peer.messages(1).await.remove(0);
    peer.acknowledge(packet, PubAckReason::NotAuthorized).await;
    let ClientEvent::Undeliverable { message, number, why } = report(&mut link).await else { panic!() };
    assert_eq!((message, number), (foreign, Some(1)));
    assert_eq!(why, Refusal::Denied("NotAuthorized".to_owned()));
    // Our own is kept, whatever the reason, and sent again until it is taken.
    for reason in [PubAckReason::NotAuthorized, PubAckReason::QuotaExceeded] {
        send(&link, 2).await;
        let (_, packet) = peer.messages(1).await.remove(0);
        peer.acknowledge(packet, reason).await;
        peer = broker.welcome(true, nothing_said()).await;
        let (payload, packet) = peer.messages(1).await.remove(0);
        assert_eq!(payload, "2");
        peer.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(delivered(&mut link).await, 2);
    }
}

#[cfg(feature = "system-tests")]
#[test]
fn a_response_topic_that_the_broker_denies_is_told_and_the_daemon_goes_on() {
    let broker = Broker::with_files("acl_file {dir}/acl\n", &[("acl", "topic readwrite denoised/#\n")]);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], ""));
    subscriber.phase("ready");
    let job = r#"{"id": "private", "steps": 3, "seed": 1}"#;
    publish(&broker, "denoised/test/request", job, &["-D", "publish", "response-topic", "private/answers"]);
    let error = subscriber.on("denoised/test/error/private").json();
    assert_eq!(error["code"], "denied");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("private/answers") && message.contains("access list"), "{message}");
    publish(&broker, "denoised/test/request", &job.replace("private", "public"), &[]);
    subscriber.on("denoised/test/result/public");
}
