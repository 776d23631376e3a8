//! The MQTT client against a mock broker that provokes each known fault of rumqttc: lost messages,
//! stalls and endless reconnects.

use std::time::{Duration, Instant};

use crate::common::broker::{Broker, publish};
use crate::common::daemon::{Daemon, configuration};
use crate::common::mock_broker::{MockBroker, next_delivered, next_event, no_properties, send};
use crate::common::subscriber::Subscriber;
use crate::common::{golden, repository};
use denoised::mqtt::client::{ClientCommand, ClientEvent, UndeliverableReason};
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

/// rumqttc requeues a packet over the limit, and reconnects in an endless loop.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_message_over_the_brokers_limit_is_undeliverable_and_the_next_one_is_sent() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let limit = ConnAckProperties { max_packet_size: Some(1000), ..no_properties() };
    let mut connection = broker.accept(false, limit).await;
    let large = to("d/image", vec![b'x'; 1000]);
    client.commands.send(ClientCommand::Send { message: large.clone(), number: Some(1) }).await.unwrap();
    send(&client, 2).await;
    let ClientEvent::Undeliverable { message, number, reason } = next_event(&mut client).await else {
        panic!()
    };
    assert_eq!((message, number, reason), (large, Some(1), UndeliverableReason::TooLarge(1000)));
    let (payload, packet) = connection.read_messages(1).await.remove(0);
    assert_eq!(payload, "2");
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 2);
}

/// rumqttc drops all pending messages if the broker has no session on reconnect.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_reconnection_without_a_session_loses_nothing() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    for number in 0..5 {
        send(&client, number).await;
    }
    let first = connection.read_messages(5).await;
    connection.acknowledge(first[0].1, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 0);
    drop(connection);
    let mut connection = broker.accept(false, no_properties()).await;
    let redelivered = connection.read_messages(4).await;
    assert_eq!(payloads(&redelivered), names(1..5));
    for (payload, packet) in redelivered {
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await.to_string(), payload);
    }
}

/// rumqttc reports `Outgoing(Publish)` before the packet is sent.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_message_is_delivered_once_the_broker_acknowledges_it_and_not_before() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut connection = broker.accept(true, no_properties()).await;
        let message = Message { qos, ..to("d/image", "7") };
        client.commands.send(ClientCommand::Send { message, number: Some(7) }).await.unwrap();
        let publish = connection.read_publish().await;
        if qos == QoS::ExactlyOnce {
            // PUBREC does not complete the delivery.
            let received = rumqttc::v5::mqttbytes::v5::PubRec::new(publish.pkid, None);
            connection.write(Packet::PubRec(received)).await;
            assert!(matches!(connection.read().await, Packet::PubRel(_)));
        }
        drop(connection);
        let mut connection = broker.accept(true, no_properties()).await;
        if qos == QoS::ExactlyOnce {
            // The broker has the message, and the session has its packet identifier.
            let Packet::PubRel(released) = connection.read().await else { panic!() };
            assert_eq!(released.pkid, publish.pkid);
            let complete = rumqttc::v5::mqttbytes::v5::PubComp::new(released.pkid, None);
            connection.write(Packet::PubComp(complete)).await;
        } else {
            let redelivered = connection.read_publish().await;
            assert_eq!((&redelivered.payload, redelivered.qos), (&publish.payload, publish.qos));
            assert_eq!((redelivered.pkid, redelivered.dup), (publish.pkid, true));
            connection.acknowledge(redelivered.pkid, PubAckReason::Success).await;
        }
        // This is the first event, so the delivery was not reported before.
        assert_eq!(next_delivered(&mut client).await, 7);
    }
}

/// rumqttc's `poll` never returns if the broker stops reading.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_stalled_connection_is_replaced() {
    let broker = MockBroker::start().await;
    let client = broker.client();
    let stalled = broker.accept(false, no_properties()).await;
    // More than the socket buffers hold, so that the client's writes block.
    for number in 0..8 {
        let message = to("d/image", vec![b'0' + number; 4 << 20]);
        client.commands.send(ClientCommand::Send { message, number: Some(u64::from(number)) }).await.unwrap();
    }
    let mut connection = broker.accept(true, no_properties()).await;
    for number in 0..8 {
        let message = connection.read_publish().await;
        assert_eq!((message.payload.len(), message.payload[0]), (4 << 20, b'0' + number));
        connection.acknowledge(message.pkid, PubAckReason::Success).await;
    }
    drop(stalled);
}

/// rumqttc never resolves a collision of packet identifiers, and stalls.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_packet_identifier_that_is_in_use_does_not_stall_the_client() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    // Only two messages may be in flight, and the first is never acknowledged.
    let two = ConnAckProperties { receive_max: Some(2), ..no_properties() };
    let mut connection = broker.accept(false, two).await;
    for number in 0..300 {
        send(&client, number).await;
    }
    let first = connection.read_messages(1).await.remove(0);
    assert_eq!(first.0, "0");
    for number in 1..300_u64 {
        let (payload, packet) = connection.read_messages(1).await.remove(0);
        assert_eq!(payload, number.to_string());
        assert_ne!(packet, first.1);
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await, number);
    }
    drop(connection);
    let mut connection = broker.accept(true, no_properties()).await;
    let (payload, packet) = connection.read_messages(1).await.remove(0);
    assert_eq!(payload, "0");
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 0);
}

/// rumqttc reports packet identifiers, not which message was acknowledged.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn acknowledgements_out_of_order_are_matched_to_their_messages() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    for number in 0..8 {
        send(&client, number).await;
    }
    let mut messages = connection.read_messages(8).await;
    messages.swap(0, 5);
    messages.swap(3, 7);
    for (payload, packet) in messages {
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await.to_string(), payload);
    }
}

/// rumqttc's `publish().await` deadlocks in the task that polls.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn requests_are_received_while_many_messages_wait_for_the_broker() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    for number in 0..2000 {
        send(&client, number).await;
    }
    let mut request = Publish::new("d/request", WireQoS::AtLeastOnce, "{}", None);
    request.pkid = 9;
    connection.write(Packet::Publish(request)).await;
    let ClientEvent::Incoming(incoming) = next_event(&mut client).await else { panic!() };
    assert_eq!(&incoming.payload[..], b"{}");
    for number in 0..2000_u64 {
        let (payload, packet) = connection.read_messages(1).await.remove(0);
        assert_eq!(payload, number.to_string());
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await, number);
    }
}

/// rumqttc reconnects at once and without end.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn reconnect_delays_grow_while_the_broker_closes_every_connection() {
    let broker = MockBroker::start().await;
    let _client = broker.client();
    let mut started = Instant::now();
    // The broker accepts each connection and its subscriptions before it closes it.
    drop(broker.accept(false, no_properties()).await);
    for min_delay_ms in [125, 250, 500] {
        drop(broker.accept(false, no_properties()).await);
        // Jitter leaves at least half of the nominal delay.
        assert!(
            started.elapsed() >= Duration::from_millis(min_delay_ms),
            "{:?} of {min_delay_ms} ms",
            started.elapsed()
        );
        started = Instant::now();
    }
}

/// rumqttc does not resubscribe if the broker lost the session.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn every_connection_subscribes_whether_the_session_exists_or_not() {
    let broker = MockBroker::start().await;
    let client = broker.client();
    for session_present in [false, true, false] {
        // `accept` requires the SUBSCRIBE packet.
        drop(broker.accept(session_present, no_properties()).await);
    }
    client.close(Duration::ZERO).await;
}

/// rumqttc depends on a second, older webpki for one of its error types, and selects no crypto
/// provider.
#[test]
fn ring_is_the_only_crypto_provider_and_rustls_uses_its_own_webpki() {
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

/// rumqttc's default is to acknowledge a message before the application has handled it.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_request_is_acknowledged_on_command_and_not_before() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    let request = |packet: u16| {
        let mut request = Publish::new("d/request", WireQoS::AtLeastOnce, packet.to_string(), None);
        request.pkid = packet;
        Packet::Publish(request)
    };
    connection.write(request(5)).await;
    connection.write(request(6)).await;
    let ClientEvent::Incoming(first) = next_event(&mut client).await else { panic!() };
    let ClientEvent::Incoming(second) = next_event(&mut client).await else { panic!() };
    // Only the second request is acknowledged, so that its PUBACK is the next packet.
    client.commands.send(ClientCommand::Ack(second.ack)).await.unwrap();
    let Packet::PubAck(puback) = connection.read().await else { panic!() };
    assert_eq!(puback.pkid, 6);
    // A token of an earlier connection acknowledges nothing on this one.
    drop(connection);
    let mut connection = broker.accept(true, no_properties()).await;
    client.commands.send(ClientCommand::Ack(first.ack)).await.unwrap();
    send(&client, 1).await;
    assert_eq!(connection.read_messages(1).await[0].0, "1");
}

/// rumqttc treats a rejection as an acknowledgement.
#[cfg(feature = "system-tests")]
#[tokio::test]
async fn a_message_that_the_broker_rejects_is_not_reported_as_delivered() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    // A rejection on a requester's topic is reported, and delivery continues.
    let foreign = to("answers/of/mine", "1");
    client.commands.send(ClientCommand::Send { message: foreign.clone(), number: Some(1) }).await.unwrap();
    let (_, packet) = connection.read_messages(1).await.remove(0);
    connection.acknowledge(packet, PubAckReason::NotAuthorized).await;
    let ClientEvent::Undeliverable { message, number, reason } = next_event(&mut client).await else {
        panic!()
    };
    assert_eq!((message, number), (foreign, Some(1)));
    assert_eq!(reason, UndeliverableReason::Rejected("not authorized".to_owned()));
    // A message on the daemon's own topic is sent again until the broker accepts it.
    for reason in [PubAckReason::NotAuthorized, PubAckReason::QuotaExceeded] {
        send(&client, 2).await;
        let (_, packet) = connection.read_messages(1).await.remove(0);
        connection.acknowledge(packet, reason).await;
        connection = broker.accept(true, no_properties()).await;
        let (payload, packet) = connection.read_messages(1).await.remove(0);
        assert_eq!(payload, "2");
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await, 2);
    }
}

#[cfg(feature = "system-tests")]
#[tokio::test]
async fn one_answer_on_which_the_broker_hung_up_stopped_all_answers() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    let poison = to("answers/poison", "1");
    client.commands.send(ClientCommand::Send { message: poison.clone(), number: Some(1) }).await.unwrap();
    send(&client, 2).await;
    assert_eq!(payloads(&connection.read_messages(2).await), ["1", "2"]);
    drop(connection);
    connection = broker.accept(true, no_properties()).await;
    assert_eq!(payloads(&connection.read_messages(2).await), ["1", "2"]);
    for _ in 0..3 {
        drop(connection);
        connection = broker.accept(true, no_properties()).await;
        assert_eq!(payloads(&connection.read_messages(1).await), ["1"]);
    }
    drop(connection);
    let ClientEvent::Undeliverable { message, number, reason } = next_event(&mut client).await else {
        panic!()
    };
    assert_eq!((message, number), (poison, Some(1)));
    let expected = "it has closed the connection three times after this message";
    assert_eq!(reason, UndeliverableReason::Rejected(expected.to_owned()));
    connection = broker.accept(true, no_properties()).await;
    let (payload, packet) = connection.read_messages(1).await.remove(0);
    assert_eq!(payload, "2");
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 2);
}

#[cfg(feature = "system-tests")]
#[tokio::test]
async fn one_picture_topic_on_which_the_broker_hung_up_stopped_all_requests() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let fetch = || ClientCommand::FetchRetained("camera".to_owned());
    for _ in 0..2 {
        let mut connection = broker.accept(true, no_properties()).await;
        client.commands.send(fetch()).await.unwrap();
        let Packet::Subscribe(subscribe) = connection.read().await else { panic!() };
        assert_eq!(subscribe.filters[0].path, "camera");
    }
    let refusal =
        "the broker closes the connection when the daemon subscribes to this topic; use another one";
    let mut connection = broker.accept(true, no_properties()).await;
    // The request that waited, and the next one.
    for _ in 0..2 {
        let ClientEvent::Retained { topic, payload } = next_event(&mut client).await else { panic!() };
        assert_eq!((topic.as_str(), payload), ("camera", Err(refusal.to_owned())));
        client.commands.send(fetch()).await.unwrap();
    }
    send(&client, 1).await;
    assert_eq!(payloads(&connection.read_messages(1).await), ["1"]);
}

#[cfg(feature = "system-tests")]
#[test]
fn a_response_topic_that_the_broker_denies_is_reported_and_the_daemon_continues() {
    let broker = Broker::with_files("acl_file {dir}/acl\n", &[("acl", "topic readwrite denoised/#\n")]);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], ""));
    subscriber.wait_for_phase("ready");
    let job = r#"{"id": "private", "steps": 3, "seed": 1}"#;
    publish(&broker, "denoised/test/request", job, &["-D", "publish", "response-topic", "private/answers"]);
    let error = subscriber.on("denoised/test/error/private").json();
    assert_eq!(error["code"], "denied");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("private/answers") && message.contains("access list"), "{message}");
    publish(&broker, "denoised/test/request", &job.replace("private", "public"), &[]);
    subscriber.on("denoised/test/result/public");
}
