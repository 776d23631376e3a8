//! Images that a request references by the topic of a retained message.

use crate::common::broker::{Broker, publish, publish_bytes};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::mock_broker::{MockBroker, next_delivered, next_event, no_properties, send};
use crate::common::subscriber::Subscriber;
use crate::live::live;
use base64::Engine as _;
use denoised::mqtt::client::{ClientCommand, ClientEvent};
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubAck, SubscribeReasonCode};
use serde_json::{Value, json};

/// Publishes a retained message.
fn retain(broker: &Broker, topic: &str, payload: &[u8]) {
    publish_bytes(broker, topic, payload, &["-r"]);
}

fn request(broker: &Broker, request: &Value) {
    publish(broker, "denoised/test/request", &request.to_string(), &[]);
}

/// Returns a PNG of a white square on black.
fn square() -> Vec<u8> {
    let image = image::GrayImage::from_fn(28, 28, |x, y| {
        image::Luma([if (9..19).contains(&x) && (9..19).contains(&y) { 255 } else { 0 }])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn a_job_starts_from_an_image_that_the_broker_retains() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let more = "[engine]\nkind = \"embedded\"";
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], more));
    subscriber.wait_for_phase("ready");
    retain(&broker, "camera/front", &square());
    retain(&broker, "camera/broken", b"not an image");
    retain(&broker, "camera/large", &vec![0; (1 << 20) + 1]);

    let job = |id: &str, image: Value| json!({"id": id, "image": image, "strength": 0.5, "steps": 6, "seed": 3, "sampler": "ddim", "exact": true});
    let whole = base64::engine::general_purpose::STANDARD.encode(square());
    request(&broker, &job("whole", json!(whole)));
    let given = subscriber.on("denoised/test/image").payload;
    request(&broker, &job("retained", json!({"topic": "camera/front"})));
    assert_eq!(subscriber.on("denoised/test/image").payload, given);
    // The image and the mask may reference the same topic.
    let mut both = job("both", json!({"topic": "camera/front"}));
    both["mask"] = json!({"topic": "camera/front"});
    request(&broker, &both);
    assert_ne!(subscriber.on("denoised/test/image").payload, given);

    for (id, image, expected) in [
        ("broken", json!({"topic": "camera/broken"}), "image: "),
        ("large", json!({"topic": "camera/large"}), "at most 1048576 are taken (limits.payload)"),
        ("none", json!({"topic": "camera/none"}), "camera/none: no retained message arrived within 5s"),
        ("own", json!({"topic": "denoised/test/request"}), "carries requests"),
        ("all", json!({"topic": "camera/+"}), "it has a wildcard, + or #"),
        ("other", json!({"subject": "camera/front"}), "an image is a string"),
        ("number", json!(3), "an image is a string"),
    ] {
        request(&broker, &job(id, image));
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["field"], "image", "{id}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{id}: {message}");
    }
}

#[test]
fn a_control_takes_its_picture_from_a_retained_message() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let more = "[engine]\nkind = \"embedded\"";
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&live("sd_live")], more));
    subscriber.wait_for_phase("ready");
    let picture = std::fs::read(live("reference/control_a.png")).unwrap();
    retain(&broker, "camera/front", &picture);
    let job = |id: &str, image: Value| {
        let control = json!({"net": "controlnet", "image": image});
        json!({"id": id, "prompt": "a fox", "steps": 2, "seed": 3, "exact": true, "controls": [control]})
    };
    request(&broker, &job("whole", json!(base64::engine::general_purpose::STANDARD.encode(&picture))));
    let given = subscriber.on("denoised/test/image").payload;
    let whole = subscriber.on("denoised/test/result/whole").json();
    request(&broker, &job("retained", json!({"topic": "camera/front"})));
    assert_eq!(subscriber.on("denoised/test/image").payload, given);
    let retained = subscriber.on("denoised/test/result/retained").json();
    let controls = |result: &Value| result["images"][0]["receipt"]["controls"].clone();
    assert_eq!(controls(&retained), controls(&whole));

    retain(&broker, "camera/small", &square());
    for (id, topic, expected) in [
        ("none", "camera/none", "controls[0].image: camera/none: no retained message arrived within 5s"),
        ("small", "camera/small", "controls[0].image: the picture has 28×28 pixels, but 64×64 are needed"),
    ] {
        request(&broker, &job(id, json!({"topic": topic})));
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["field"], "controls[0].image", "{error}");
        assert!(error["message"].as_str().unwrap().starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_topic_that_the_broker_denies_is_reported_and_the_connection_stays_open() {
    let broker = MockBroker::start().await;
    let mut client = broker.client();
    let mut connection = broker.accept(false, no_properties()).await;
    client.commands.send(ClientCommand::FetchRetained("secret".to_owned())).await.unwrap();
    let Packet::Subscribe(subscribe) = connection.read().await else { panic!("no SUBSCRIBE packet") };
    assert_eq!(subscribe.filters[0].path, "secret");
    let return_codes = vec![SubscribeReasonCode::NotAuthorized];
    connection.write(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
    let ClientEvent::Retained { topic, payload } = next_event(&mut client).await else {
        panic!("expected the result of the fetch")
    };
    assert_eq!(topic, "secret");
    assert!(payload.unwrap_err().contains("not authorized"));
    send(&client, 1).await;
    let (_, packet) = connection.read_messages(1).await.remove(0);
    connection.acknowledge(packet, PubAckReason::Success).await;
    assert_eq!(next_delivered(&mut client).await, 1);
}
