//! Jobs that draw from each new picture on a topic.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::broker::{Broker, publish, publish_bytes};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;
use crate::live::live;

const CAMERA: &str = "camera/front";

fn config(broker: &Broker) -> String {
    configuration(broker, "test", &[&model("digits")], "[engine]\nkind = \"embedded\"")
}

/// A broker, a subscriber to the daemon's topics, and a daemon that is ready.
fn ready() -> (Broker, Subscriber, Daemon) {
    let broker = Broker::start();
    let subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    (broker, subscriber, daemon)
}

/// A PNG of 28×28 pixels with a white column of this number.
fn picture(column: u32) -> Vec<u8> {
    let image = image::GrayImage::from_fn(28, 28, |x, _| image::Luma([if x == column { 255 } else { 0 }]));
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

fn sha256(file: &[u8]) -> String {
    format!("{:x}", Sha256::digest(file))
}

fn request(broker: &Broker, request: &Value, more: &[&str]) {
    publish(broker, "denoised/test/request", &request.to_string(), more);
}

fn cancel(broker: &Broker, id: &str) {
    publish(broker, "denoised/test/cancel", &json!({"id": id}).to_string(), &[]);
}

/// A job that draws from the camera, with further fields of `stream`.
fn job(id: &str, stream: Value) -> Value {
    let mut job = json!({"id": id, "stream": {"topic": CAMERA}, "strength": 0.5, "steps": 4, "seed": 3, "sampler": "ddim"});
    job["stream"].as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
    job["exact"] = json!(true);
    job
}

/// The same job on one picture, with the values of its receipt.
fn replayed(id: &str, job: &Value, receipt: &Value, file: &[u8]) -> Value {
    assert_eq!(receipt["image_sha256"], sha256(file));
    let mut replayed = job.clone();
    replayed.as_object_mut().unwrap().remove("stream");
    for key in ["seed", "steps", "strength", "sampler"] {
        replayed[key] = receipt[key].clone();
    }
    replayed["id"] = json!(id);
    replayed["image"] = json!(BASE64.encode(file));
    replayed
}

#[test]
fn each_new_picture_is_drawn_until_the_job_is_cancelled() {
    let (broker, mut subscriber, _daemon) = ready();
    let mut answers = Subscriber::start(&broker, "answers");
    let live = job("live", json!({}));
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    request(&broker, &live, &["-D", "publish", "response-topic", "answers"]);
    let mut images = Vec::new();
    for number in 0..3_u64 {
        if number > 0 {
            publish_bytes(&broker, CAMERA, &picture(number as u32), &[]);
        }
        let image = subscriber.on("denoised/test/image");
        let of_stream = ["type", "index", "seed", "stream"].map(|name| image.user[name].clone());
        assert_eq!(of_stream, ["image".to_owned(), number.to_string(), "3".to_owned(), CAMERA.to_owned()]);
        let result = subscriber.on("denoised/test/result/live").json();
        let (stream, drawn) = (&result["stream"], &result["images"][0]);
        assert_eq!(
            [&stream["drawn"], &stream["dropped"], &stream["refused"]],
            [number + 1, 0, 0],
            "{result}"
        );
        assert_eq!(stream["topic"], CAMERA);
        assert_eq!(
            (stream["per_second"].is_number(), &stream["ended"]),
            (number > 0, &Value::Null),
            "{result}"
        );
        assert_eq!(
            (&drawn["sha256"], &drawn["receipt"]["index"]),
            (&json!(sha256(&image.payload)), &json!(number))
        );
        images.push((image.payload, drawn["receipt"].clone()));
    }
    let progress =
        subscriber.seen.iter().find(|message| message.topic == "denoised/test/progress/live").unwrap();
    assert_eq!(progress.json()["stream"]["topic"], CAMERA);
    cancel(&broker, "live");
    let end = subscriber.on("denoised/test/result/live").json();
    assert_eq!(
        (&end["stream"]["ended"], &end["stream"]["drawn"], &end["images"]),
        (&json!("cancelled"), &json!(3), &json!([]))
    );
    let end_of_answers =
        answers.next(|message| message.user["type"] == "result" && !message.user.contains_key("stream"));
    assert_eq!(end_of_answers.json(), end);
    let drawn = answers.seen.iter().filter(|message| message.user["type"] == "image");
    assert_eq!(
        drawn.map(|message| message.payload.clone()).collect::<Vec<_>>(),
        images.iter().map(|(image, _)| image.clone()).collect::<Vec<_>>()
    );

    // A repeat of the request is answered with the end, and draws nothing.
    request(&broker, &live, &[]);
    assert_eq!(subscriber.on("denoised/test/result/live").json(), end);
    for (number, (image, receipt)) in images.iter().enumerate() {
        let id = format!("replayed{number}");
        request(&broker, &replayed(&id, &live, receipt, &picture(number as u32)), &[]);
        let replayed = subscriber.on("denoised/test/image");
        assert_eq!((&replayed.user["id"], &replayed.payload), (&id, image));
    }
}

#[test]
fn the_newest_picture_is_drawn_and_the_others_are_dropped() {
    let (broker, mut subscriber, _daemon) = ready();
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    let mut slow = job("live", json!({}));
    (slow["steps"], slow["strength"]) = (json!(900), json!(1.0));
    request(&broker, &slow, &[]);
    subscriber.on("denoised/test/progress/live");
    // Another job is drawn meanwhile.
    request(&broker, &json!({"id": "other", "steps": 2}), &[]);
    subscriber.on("denoised/test/result/other");
    (1..4).for_each(|number| publish_bytes(&broker, CAMERA, &picture(number), &[]));
    subscriber.on("denoised/test/result/live");
    let next = subscriber.on("denoised/test/progress/live").json();
    assert_eq!((&next["stream"]["drawn"], &next["stream"]["dropped"]), (&json!(1), &json!(2)), "{next}");
    // The picture that is drawn now counts as dropped.
    cancel(&broker, "live");
    let end = subscriber.on("denoised/test/result/live").json();
    assert_eq!((&end["stream"]["drawn"], &end["stream"]["dropped"]), (&json!(1), &json!(3)), "{end}");

    // Between two pictures, too, only the newest one waits.
    request(&broker, &job("rare", json!({"every_ms": 3_600_000})), &[]);
    subscriber.on("denoised/test/result/rare");
    (1..4).for_each(|number| publish_bytes(&broker, CAMERA, &picture(number), &[]));
    cancel(&broker, "rare");
    let end = subscriber.on("denoised/test/result/rare").json();
    assert_eq!((&end["stream"]["drawn"], &end["stream"]["dropped"]), (&json!(1), &json!(3)), "{end}");
}

#[test]
fn a_camera_that_stops_and_a_missing_topic_are_errors_by_name_and_the_daemon_goes_on() {
    let (broker, mut subscriber, mut daemon) = ready();
    for (id, topic, drawn) in
        [("stops", CAMERA, "1 picture was drawn"), ("none", "camera/none", "0 pictures were drawn")]
    {
        publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
        request(&broker, &job(id, json!({"topic": topic, "silence_ms": 300})), &[]);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(
            (&error["code"], &error["field"]),
            (&json!("no_picture"), &json!("stream.topic")),
            "{error}"
        );
        let expected =
            format!("no picture arrived on {topic} for 300 ms (stream.silence_ms), after {drawn}; check");
        assert!(error["message"].as_str().unwrap().starts_with(&expected), "{error}");
    }
    request(&broker, &json!({"id": "next", "steps": 2}), &[]);
    subscriber.on("denoised/test/result/next");
    assert_eq!(daemon.count("the daemon is not subscribed"), 0);
}

#[test]
fn a_stream_ends_at_its_deadline() {
    let (broker, mut subscriber, _daemon) = ready();
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    let mut live = job("live", json!({}));
    live["deadline_ms"] = json!(1500);
    request(&broker, &live, &[]);
    let picture = subscriber.on("denoised/test/result/live").json();
    // The deadline does not shorten a picture.
    assert_eq!(
        (&picture["images"][0]["receipt"]["steps"], &picture["stream"]["ended"]),
        (&json!(4), &Value::Null)
    );
    let end = subscriber.on("denoised/test/result/live").json();
    assert_eq!((&end["stream"]["ended"], &end["stream"]["drawn"]), (&json!("deadline"), &json!(1)), "{end}");
    assert!(end["elapsed_ms"].as_u64().unwrap() >= 1400, "{end}");
}

#[test]
fn a_picture_that_cannot_be_drawn_is_left_out_unless_it_is_the_first() {
    let (broker, mut subscriber, _daemon) = ready();
    publish_bytes(&broker, CAMERA, b"no picture", &["-r"]);
    request(&broker, &job("first", json!({})), &[]);
    let error = subscriber.on("denoised/test/error/first").json();
    assert_eq!(error["field"], "image");
    assert_eq!(
        error["message"],
        "a picture on camera/front cannot be drawn: image: the file is not PNG, JPEG or WebP; send one of these, or a .npy file"
    );
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    request(&broker, &job("later", json!({"silence_ms": 1000})), &[]);
    subscriber.on("denoised/test/result/later");
    publish_bytes(&broker, CAMERA, b"no picture", &[]);
    // Clears the retained message.
    publish(&broker, CAMERA, "", &["-r"]);
    publish_bytes(&broker, CAMERA, &vec![0; (1 << 20) + 1], &[]);
    publish_bytes(&broker, CAMERA, &picture(1), &[]);
    let second = subscriber.on("denoised/test/result/later").json();
    let [drawn, dropped, refused] =
        ["drawn", "dropped", "refused"].map(|key| second["stream"][key].as_u64().unwrap());
    assert_eq!((drawn, dropped + refused), (2, 2), "{second}");
    publish_bytes(&broker, CAMERA, b"no picture either", &[]);
    let error = subscriber.on("denoised/test/error/later").json();
    assert!(
        error["message"].as_str().unwrap().starts_with("a picture on camera/front cannot be drawn: image: "),
        "{error}"
    );
}

#[test]
fn a_faulty_stream_is_refused_by_its_field() {
    let (broker, mut subscriber, _daemon) = ready();
    for (fields, field, expected) in [
        (json!({"stream": {"topic": "camera/+"}}), "stream.topic", "it has a wildcard, + or #"),
        (json!({"stream": {"topic": ""}}), "stream.topic", "it is empty"),
        (json!({"stream": {}}), "stream", "the field `topic` is missing"),
        (json!({"stream": CAMERA}), "stream", "must be an object"),
        (
            json!({"stream": {"topic": "denoised/test/image"}}),
            "stream.topic",
            "is a topic of the daemon itself",
        ),
        (
            json!({"stream": {"topic": "denoised/other/request"}}),
            "stream.topic",
            "another daemon takes messages",
        ),
        (json!({"stream": {"topic": "answers"}}), "stream.topic", "is the response topic of the request"),
        (
            json!({"stream": {"topic": CAMERA, "every_ms": 3_600_001}}),
            "stream.every_ms",
            "between 0 and 3600000",
        ),
        (json!({"stream": {"topic": CAMERA, "every_ms": -1}}), "stream.every_ms", "between 0 and 3600000"),
        (
            json!({"stream": {"topic": CAMERA, "silence_ms": 0}}),
            "stream.silence_ms",
            "between 1 and 86400000",
        ),
        (json!({"stream": {"topic": CAMERA}, "count": 2}), "count", "one image of each picture"),
        (
            json!({"stream": {"topic": CAMERA}, "image": "QQ"}),
            "stream.topic",
            "no picture of the job comes from",
        ),
        (json!({"stream": {"topic": CAMERA}, "strength": 2}), "strength", "must lie between 0 and 1"),
        (
            json!({"stream": {"topic": CAMERA}, "controls": [{"image": {"topic": CAMERA}}]}),
            "controls",
            "digits",
        ),
    ] {
        let mut job = json!({"id": "faulty", "steps": 2});
        job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request(&broker, &job, &["-D", "publish", "response-topic", "answers"]);
        let error = subscriber.on("denoised/test/error/faulty").json();
        assert_eq!(error["field"], field, "{error}");
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
    }
}

#[test]
fn a_stream_goes_on_after_a_restart_and_says_so() {
    let (broker, mut subscriber, mut daemon) = ready();
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    request(&broker, &job("live", json!({})), &[]);
    let first = subscriber.on("denoised/test/result/live").json();
    assert_eq!(first["stream"].get("resumed"), None);
    // It does not wait for a stream to end.
    for is_killed in [false, true] {
        match is_killed {
            true => daemon.kill(),
            false => assert_eq!(daemon.terminate(), Some(0)),
        }
        let spool = Arc::clone(&daemon.spool);
        daemon = Daemon::with_spool(&config(&broker), &spool);
        let resumed = subscriber.on("denoised/test/result/live").json();
        assert_eq!((&resumed["stream"]["resumed"], &resumed["stream"]["drawn"]), (&json!(true), &json!(1)));
        assert_eq!(resumed["images"][0]["sha256"], first["images"][0]["sha256"]);
    }
    cancel(&broker, "live");
    let end = subscriber.on("denoised/test/result/live").json();
    assert_eq!(
        (&end["stream"]["ended"], &end["stream"]["resumed"]),
        (&json!("cancelled"), &json!(true)),
        "{end}"
    );
}

#[test]
fn a_stream_goes_on_after_the_broker_restarts() {
    let (mut broker, mut subscriber, mut daemon) = ready();
    publish_bytes(&broker, CAMERA, &picture(0), &["-r"]);
    request(&broker, &job("live", json!({"silence_ms": 60_000})), &[]);
    subscriber.on("denoised/test/result/live");
    broker.kill();
    daemon.wait_for("no connection to the broker");
    broker.run();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    publish_bytes(&broker, CAMERA, &picture(1), &["-r"]);
    let second = subscriber.on("denoised/test/result/live").json();
    assert_eq!(
        (&second["stream"]["drawn"], &second["stream"]["dropped"]),
        (&json!(2), &json!(0)),
        "{second}"
    );
}

/// The picture steers the job, and a mask or another picture may be fetched once.
#[test]
fn a_control_takes_its_pictures_from_a_stream() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let more = "[engine]\nkind = \"embedded\"";
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&live("sd_live")], more));
    subscriber.wait_for_phase("ready");
    let edges = std::fs::read(live("reference/control_a.png")).unwrap();
    publish_bytes(&broker, CAMERA, &edges, &["-r"]);
    publish_bytes(&broker, "camera/still", &edges, &["-r"]);
    let job = |id: &str, image: Value, still: Value| {
        let controls = [image, still].map(|image| json!({"net": "controlnet", "image": image, "scale": 0.5}));
        json!({"id": id, "prompt": "a fox", "steps": 2, "seed": 3, "exact": true, "controls": controls})
    };
    let mut live = job("live", json!({"topic": CAMERA}), json!({"topic": "camera/still"}));
    live["stream"] = json!({"topic": CAMERA});
    request(&broker, &live, &[]);
    let image = subscriber.on("denoised/test/image").payload;
    let receipt = subscriber.on("denoised/test/result/live").json()["images"][0]["receipt"].clone();
    for control in receipt["controls"].as_array().unwrap() {
        assert_eq!(control["sha256"], sha256(&edges), "{receipt}");
    }
    assert_eq!(receipt.get("image_sha256"), None);
    cancel(&broker, "live");
    subscriber.on("denoised/test/result/live");
    let file = json!(BASE64.encode(&edges));
    request(&broker, &job("replayed", file.clone(), file), &[]);
    assert_eq!(subscriber.on("denoised/test/image").payload, image);
}
