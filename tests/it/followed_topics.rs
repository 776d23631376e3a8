//! Topics whose newest message the client keeps, packet by packet.

use denoised::mqtt::client::{ClientCommand, ClientEvent};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Packet, PubAckReason, Publish, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};

use crate::common::commands::TIMEOUT;
use crate::common::mock_broker::{MockBroker, next_delivered, next_event, no_properties, send};

fn picture(payload: &str, retain: bool) -> Packet {
    let publish = Publish::new("camera", QoS::AtMostOnce, payload.to_owned(), None);
    Packet::Publish(Publish { retain, ..publish })
}

#[tokio::test]
async fn only_the_newest_message_of_a_followed_topic_is_kept() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    client.commands.send(ClientCommand::Follow("camera".to_owned())).await.unwrap();
    let Packet::Subscribe(subscribe) = connection.read().await else { panic!("no SUBSCRIBE packet") };
    assert_eq!((subscribe.filters[0].path.as_str(), subscribe.filters[0].qos), ("camera", QoS::AtMostOnce));
    connection.suback(subscribe.pkid, vec![SubscribeReasonCode::Success(QoS::AtMostOnce)]).await;
    for (payload, retain) in [("one", true), ("two", false), ("", true), ("three", false), ("three", true)] {
        connection.write(picture(payload, retain)).await;
    }
    // More than any queue of the client holds.
    for _ in 0..500 {
        connection.write(picture("four", false)).await;
    }
    let newest =
        client.newest.wait_for(|newest| newest.get("camera").is_some_and(|camera| camera.received == 503));
    let newest = tokio::time::timeout(TIMEOUT, newest).await.expect("no picture in time").unwrap();
    assert_eq!(newest.get("camera").unwrap().payload, "four");
    drop(newest);

    client.commands.send(ClientCommand::Unfollow("camera".to_owned())).await.unwrap();
    let Packet::Unsubscribe(unsubscribe) = connection.read().await else { panic!("no UNSUBSCRIBE packet") };
    assert_eq!(unsubscribe.filters, ["camera"]);
    // What the broker sent before it read UNSUBSCRIBE is not unexpected.
    connection.write(picture("late", false)).await;
    let (pkid, reasons) = (unsubscribe.pkid, vec![UnsubAckReason::Success]);
    connection.write(Packet::UnsubAck(UnsubAck { pkid, reasons, properties: None })).await;
    send(&client, 1).await;
    let (_, packet) = connection.read_messages(1).await.remove(0);
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 1);
    assert_eq!(client.newest.borrow().get("camera"), None);
}

#[tokio::test]
async fn a_followed_topic_that_the_broker_denies_is_reported() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    client.commands.send(ClientCommand::Follow("secret".to_owned())).await.unwrap();
    let Packet::Subscribe(subscribe) = connection.read().await else { panic!("no SUBSCRIBE packet") };
    connection.suback(subscribe.pkid, vec![SubscribeReasonCode::NotAuthorized]).await;
    let ClientEvent::FollowRefused { topic, reason } = next_event(&mut client).await else {
        panic!("the refusal is not reported")
    };
    assert_eq!(topic, "secret");
    assert!(reason.starts_with("the broker does not let the daemon read this topic ("), "{reason}");
}
