//! Pictures that a request names by the topic of a retained message.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use common::daemon::{Broker, Daemon, Subscriber, configuration, model, publish};
use common::mock_broker::{Scripted, delivered, nothing_said, report, send};
use denoised::mqtt::client::{ClientCommand, ClientEvent};
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubAck, SubscribeReasonCode};
use serde_json::{Value, json};

/// Let the broker keep a message.
fn retain(broker: &Broker, topic: &str, payload: &[u8]) {
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &broker.port.to_string(), "-q", "1", "-r", "-s", "-t", topic])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub can't be started; run the tests by tests/run, which installs it");
    publisher.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(publisher.wait().unwrap().success());
}

fn request(broker: &Broker, request: &Value) {
    publish(broker, "denoised/test/request", &request.to_string(), &[]);
}

/// A square, white on black.
fn square() -> Vec<u8> {
    let picture = image::GrayImage::from_fn(28, 28, |x, y| {
        image::Luma([if (9..19).contains(&x) && (9..19).contains(&y) { 255 } else { 0 }])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn a_job_begins_at_a_picture_that_the_broker_keeps() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let more = "[engine]\nkind = \"embedded\"";
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], more));
    subscriber.phase("ready");
    retain(&broker, "camera/front", &square());
    retain(&broker, "camera/broken", b"no picture");
    retain(&broker, "camera/large", &vec![0; (1 << 20) + 1]);

    let job = |id: &str, image: Value| json!({"id": id, "image": image, "strength": 0.5, "steps": 6, "seed": 3, "sampler": "ddim", "exact": true});
    let whole = base64::engine::general_purpose::STANDARD.encode(square());
    request(&broker, &job("whole", json!(whole)));
    let given = subscriber.on("denoised/test/image").payload;
    request(&broker, &job("kept", json!({"topic": "camera/front"})));
    assert_eq!(subscriber.on("denoised/test/image").payload, given);
    // One topic may serve for image and mask.
    let mut both = job("both", json!({"topic": "camera/front"}));
    both["mask"] = json!({"topic": "camera/front"});
    request(&broker, &both);
    assert_ne!(subscriber.on("denoised/test/image").payload, given);

    for (id, image, words) in [
        ("broken", json!({"topic": "camera/broken"}), "image: "),
        ("large", json!({"topic": "camera/large"}), "at most 1048576 are taken (limits.payload)"),
        ("none", json!({"topic": "camera/none"}), "camera/none: no retained message came within 5s"),
        ("own", json!({"topic": "denoised/test/request"}), "requests arrive there"),
        ("all", json!({"topic": "camera/+"}), "wildcards can't be fetched"),
        ("other", json!({"subject": "camera/front"}), "an image is a string"),
        ("number", json!(3), "an image is a string"),
    ] {
        request(&broker, &job(id, image));
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["field"], "image", "{id}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{id}: {message}");
    }
}

#[tokio::test]
async fn a_topic_that_may_not_be_read_is_told_and_the_connection_stays() {
    let broker = Scripted::start().await;
    let mut link = broker.link();
    let mut peer = broker.welcome(false, nothing_said()).await;
    link.asks.send(ClientCommand::Fetch("secret".to_owned())).await.unwrap();
    let Packet::Subscribe(subscribe) = peer.read().await else { panic!("no subscription") };
    assert_eq!(subscribe.filters[0].path, "secret");
    let return_codes = vec![SubscribeReasonCode::NotAuthorized];
    peer.write(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
    let ClientEvent::Retained { topic, found } = report(&mut link).await else { panic!("another report") };
    assert_eq!(topic, "secret");
    assert!(found.unwrap_err().contains("NotAuthorized"));
    send(&link, 1).await;
    let (_, packet) = peer.messages(1).await.remove(0);
    peer.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(delivered(&mut link).await, 1);
}
