//! Brokers that lack a feature, or that refuse a subscription: one warning, and the rest is served.

use std::time::Duration;

use crate::common::mock_broker::{
    GRANTED, MockBroker, MockConnection, OWN_TOPICS, next_deficits, next_delivered, next_event,
    no_properties, send,
};
use denoised::mqtt::client::{ClientCommand, ClientEvent, ClientSettings, MqttClient};
use denoised::mqtt::{Message, Topics};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectReturnCode, Packet, PubAckReason, PubComp, PubCompReason, PubRec, PubRel,
    Publish, SubscribeReasonCode,
};

/// Those of a daemon with a shared queue.
const WITH_CLAIM: [&str; 5] = ["d/request", "d/cancel", "d/model/load", "d/model/unload", "d/claim"];

fn with_shared_queue() -> Topics {
    Topics::new("d").with_shared_queue(Some(("$share/g/jobs", "jobs")))
}

/// Sends a request on the daemon's own topic, and a message of the daemon; both must arrive.
async fn is_served(connection: &mut MockConnection, client: &mut MqttClient) {
    let mut request = Publish::new("d/request", QoS::AtLeastOnce, "{}", None);
    request.pkid = 9;
    connection.write(Packet::Publish(request)).await;
    let ClientEvent::Incoming(incoming) = next_event(client).await else { panic!() };
    assert_eq!(&incoming.payload[..], b"{}");
    send(client, 1).await;
    let (_, packet) = connection.read_messages(1).await.remove(0);
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(client).await, 1);
}

#[tokio::test]
async fn a_broker_without_shared_subscriptions_is_not_asked_for_one() {
    let broker = MockBroker::start().await;
    let mut client = broker.client_of(with_shared_queue());
    let properties = ConnAckProperties { shared_subscription_available: Some(0), ..no_properties() };
    let (mut connection, _) = broker.accept_mqtt(false, properties).await;
    let deficits = next_deficits(&mut client).await;
    assert_eq!(deficits.len(), 1, "{deficits:#?}");
    assert!(deficits[0].starts_with("the broker has no shared subscriptions: requests on $share/g/jobs"));
    connection.answer_subscribe(&WITH_CLAIM, GRANTED).await;
    connection.answer_subscribe(&["d/state"], GRANTED).await;
    is_served(&mut connection, &mut client).await;
}

#[tokio::test]
async fn a_shared_queue_that_is_refused_or_closes_the_connection_leaves_the_own_topics_served() {
    let broker = MockBroker::start().await;
    let mut client = broker.client_of(with_shared_queue());
    for _ in 0..3 {
        let (mut connection, _) = broker.accept_mqtt(false, no_properties()).await;
        connection.answer_subscribe(&WITH_CLAIM, GRANTED).await;
        let Packet::Subscribe(subscribe) = connection.read().await else { panic!() };
        assert_eq!(subscribe.filters[0].path, "$share/g/jobs");
    }
    let closes = ["not subscribed to $share/g/jobs: the broker closes the connection on this filter"];
    assert_eq!(next_deficits(&mut client).await, closes);
    let (mut connection, _) = broker.accept_mqtt(false, no_properties()).await;
    connection.answer_subscribe(&WITH_CLAIM, GRANTED).await;
    connection.answer_subscribe(&["d/state"], GRANTED).await;
    is_served(&mut connection, &mut client).await;

    let mut client = broker.client_of(with_shared_queue());
    let (mut connection, _) = broker.accept_mqtt(false, no_properties()).await;
    connection.answer_subscribe(&WITH_CLAIM, GRANTED).await;
    let refused = SubscribeReasonCode::SharedSubscriptionsNotSupported;
    connection.answer_subscribe(&["$share/g/jobs"], refused).await;
    let [deficit] = &next_deficits(&mut client).await[..] else { panic!() };
    assert!(deficit.contains("$share/g/jobs: the broker has no shared subscriptions"), "{deficit}");
    is_served(&mut connection, &mut client).await;
}

#[tokio::test]
async fn a_topic_that_the_broker_refuses_is_named_and_the_others_are_served() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let (mut connection, _) = broker.accept_mqtt(false, no_properties()).await;
    let Packet::Subscribe(subscribe) = connection.read().await else { panic!() };
    connection
        .suback(subscribe.pkid, vec![GRANTED, SubscribeReasonCode::NotAuthorized, GRANTED, GRANTED])
        .await;
    let [deficit] = &next_deficits(&mut client).await[..] else { panic!() };
    assert!(deficit.starts_with("not subscribed to d/cancel: not authorized; allow this user"), "{deficit}");
    is_served(&mut connection, &mut client).await;
    // The next connection does not repeat the warning; it is withdrawn once the topic is granted.
    drop(connection);
    let _connection = broker.accept(false, no_properties()).await;
    assert_eq!(next_deficits(&mut client).await, [""; 0]);
}

#[tokio::test]
async fn a_broker_with_qos_0_and_without_retained_messages_gets_every_message() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let properties = ConnAckProperties { max_qos: Some(0), retain_available: Some(0), ..no_properties() };
    let mut connection = broker.accept(false, properties).await;
    let deficits = next_deficits(&mut client).await;
    assert_eq!(deficits.len(), 2, "{deficits:#?}");
    assert!(deficits[0].contains("QoS 0 only") && deficits[1].contains("no retained messages"));
    for number in 0..20 {
        let message = Message { retain: true, ..Message::new("d/image".to_owned(), number.to_string()) };
        client.commands.send(ClientCommand::Send { message, number: Some(number) }).await.unwrap();
        let publish = connection.read_publish().await;
        assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false));
        assert_eq!(next_delivered(&mut client).await, number);
    }
    // A picture by topic fails at once.
    client.commands.send(ClientCommand::FetchRetained("camera".to_owned())).await.unwrap();
    let ClientEvent::Retained { topic, payload: Err(reason) } = next_event(&mut client).await else {
        panic!()
    };
    assert_eq!(topic, "camera");
    assert!(reason.contains("no retained messages; send the image in the request"), "{reason}");
}

#[tokio::test]
async fn a_last_will_that_the_broker_does_not_accept_is_adapted() {
    let broker = MockBroker::start().await;
    let _client = broker.client();
    let expected = [
        (QoS::AtLeastOnce, true, ConnectReturnCode::QoSNotSupported),
        (QoS::AtMostOnce, true, ConnectReturnCode::RetainNotSupported),
    ];
    for (qos, retain, refusal) in expected {
        let mut connection = broker.accept_tcp().await;
        let will = connection.read_connect().await;
        assert_eq!((will.qos, will.retain), (qos, retain));
        connection.refuse(refusal).await;
    }
    let (_connection, will) = broker.accept_mqtt(false, no_properties()).await;
    assert_eq!((will.qos, will.retain), (QoS::AtMostOnce, false));
}

/// rumqttc pings without a pause at a keep-alive of 0, and the client took a longer one for a stall.
#[tokio::test]
async fn the_brokers_keep_alive_neither_stalls_the_connection_nor_floods_it_with_pings() {
    let broker = MockBroker::start().await;
    for server_keep_alive in [0, 60] {
        let stall_timeout = Duration::from_millis(100);
        let settings = ClientSettings { stall_timeout, ..broker.settings() };
        let mut client = MqttClient::open(settings, Topics::new("d")).unwrap();
        let properties = ConnAckProperties { server_keep_alive: Some(server_keep_alive), ..no_properties() };
        let (mut connection, _) = broker.accept_mqtt(false, properties).await;
        connection.answer_subscribe(&OWN_TOPICS, GRANTED).await;
        is_served(&mut connection, &mut client).await;
        assert_eq!(connection.answer_pings(2 * stall_timeout).await, 0);
        is_served(&mut connection, &mut client).await;
    }
}

/// A state that did not fit was dropped without a word.
#[tokio::test]
async fn a_state_that_the_broker_does_not_accept_is_reported_once() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let properties = ConnAckProperties { max_packet_size: Some(100), ..no_properties() };
    let mut connection = broker.accept(false, properties).await;
    for _ in 0..2 {
        let message = Message::new("d/state".to_owned(), vec![b'x'; 100]);
        client.commands.send(ClientCommand::Send { message, number: None }).await.unwrap();
    }
    let [deficit] = &next_deficits(&mut client).await[..] else { panic!() };
    assert!(
        deficit.starts_with("the broker accepts no messages on d/state: larger than the 100 bytes"),
        "{deficit}"
    );
    is_served(&mut connection, &mut client).await;
}

#[tokio::test]
async fn a_small_receive_maximum_is_kept() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let properties = ConnAckProperties { receive_max: Some(1), ..no_properties() };
    let mut connection = broker.accept(false, properties).await;
    for number in 0..5 {
        send(&client, number).await;
    }
    for number in 0..5 {
        let (payload, packet) = connection.read_messages(1).await.remove(0);
        assert_eq!(payload, number.to_string());
        connection.acknowledge(packet, PubAckReason::Success).await;
        assert_eq!(next_delivered(&mut client).await, number);
    }
}

/// Packet identifiers began at 1 on every connection, although the session of a broker keeps those at QoS 2.
#[tokio::test]
async fn packet_identifiers_of_an_earlier_process_and_connection_are_finished_before_new_messages() {
    let broker = MockBroker::start().await;
    let settings = ClientSettings { qos: denoised::mqtt::QoS::ExactlyOnce, ..broker.settings() };
    let mut client = MqttClient::open(settings, Topics::new("d")).unwrap();
    // The session is that of an earlier process, which may have used each of these identifiers.
    let mut connection = broker.accept(true, no_properties()).await;
    for packet_id in 1..=8 {
        assert_eq!(connection.read().await, Packet::PubRel(PubRel::new(packet_id, None)));
    }
    let exactly_once = async |number: u64| {
        let message = Message::new("d/image".to_owned(), number.to_string());
        let message = Message { qos: denoised::mqtt::QoS::ExactlyOnce, ..message };
        client.commands.send(ClientCommand::Send { message, number: Some(number) }).await.unwrap();
    };
    exactly_once(1).await;
    exactly_once(2).await;
    // Only these two are free now.
    for packet_id in [7, 8] {
        let reason = PubCompReason::PacketIdentifierNotFound;
        connection.write(Packet::PubComp(PubComp { pkid: packet_id, reason, properties: None })).await;
        let publish = connection.read_publish().await;
        assert_eq!((publish.pkid, publish.qos, publish.dup), (packet_id, QoS::ExactlyOnce, false));
    }
    connection.write(Packet::PubRec(PubRec::new(7, None))).await;
    assert_eq!(connection.read().await, Packet::PubRel(PubRel::new(7, None)));
    drop(connection);

    let mut connection = broker.accept(true, no_properties()).await;
    for packet_id in (1..=6).chain([7]) {
        assert_eq!(connection.read().await, Packet::PubRel(PubRel::new(packet_id, None)));
    }
    let repeated = connection.read_publish().await;
    assert_eq!((repeated.pkid, &repeated.payload[..], repeated.dup), (8, &b"2"[..], true));
    connection.write(Packet::PubComp(PubComp::new(7, None))).await;
    assert_eq!(next_delivered(&mut client).await, 1);
}
