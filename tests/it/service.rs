//! The daemon with mosquitto and mosquitto's clients.

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::Subscriber;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Starts a broker, a subscriber to all topics of a daemon, and the daemon, and waits until it is ready.
fn start(more: &str) -> (Broker, Subscriber, Daemon) {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let bundle = golden("gaussian");
    let daemon = Daemon::start(&configuration(&broker, "test", &[&bundle], more));
    subscriber.wait_for_phase("ready");
    (broker, subscriber, daemon)
}

fn request(broker: &Broker, json: &str) {
    publish(broker, "denoised/test/request", json, &[]);
}

#[test]
fn a_request_returns_a_receipt_and_the_same_image_as_the_command_line() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let digits = model("digits");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&digits], "[engine]\nkind = \"embedded\""));
    assert_eq!(subscriber.on("denoised/test/status").payload, b"online");
    let state = subscriber.wait_for_phase("ready");
    assert_eq!(
        (state["engine"].as_str(), state["models"][0]["name"].as_str()),
        (Some("embedded"), Some("digits"))
    );

    request(
        &broker,
        r#"{"id": "three", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "exact": true}"#,
    );
    let image = subscriber.on("denoised/test/image");
    assert_eq!(image.content_type, "image/png");
    for (name, value) in [
        ("id", "three"),
        ("index", "0"),
        ("seed", "7"),
        ("model", "digits"),
        ("sampler", "ddim"),
        ("steps", "6"),
    ] {
        assert_eq!(image.user[name], value, "{name}");
    }
    let result = subscriber.on("denoised/test/result/three").json();
    let delivered = &result["images"][0];
    let sha256: String = Sha256::digest(&image.payload).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(delivered["sha256"], sha256);
    assert_eq!(delivered["bytes"], image.payload.len());
    let receipt = &delivered["receipt"];
    for (key, value) in [("seed", 7), ("class", 3), ("steps", 6), ("evaluations", 6), ("index", 0)] {
        assert_eq!(receipt[key], value, "{key}");
    }
    assert_eq!((receipt["engine"].as_str(), receipt["provider"].as_str()), (Some("embedded"), Some("cpu")));
    assert_eq!(receipt["scheduler"]["_class_name"], "DDPMScheduler");

    // The command line gives the same bytes.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("three.png");
    let mut command = denoised();
    command.arg("sample").arg(&digits).args([
        "--class",
        "3",
        "--seed",
        "7",
        "--steps",
        "6",
        "--sampler",
        "ddim",
        "--exact",
    ]);
    succeeds(command.args(["--engine", "embedded", "--output"]).arg(&path));
    assert_eq!(std::fs::read(&path).unwrap(), image.payload);
}

#[test]
fn status_turns_offline_when_the_daemon_is_killed() {
    let (broker, mut subscriber, mut daemon) = start("");
    daemon.process.child.kill().unwrap();
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    let mut late = Subscriber::start(&broker, "denoised/test/status");
    let retained = late.on("denoised/test/status");
    assert!(retained.retained && retained.payload == b"offline");
}

#[test]
fn a_stopping_daemon_finishes_its_jobs_publishes_offline_and_exits_with_0() {
    let (broker, mut subscriber, mut daemon) = start("[limits]\ndrain_s = 60\n");
    request(&broker, r#"{"id": "last", "steps": 1000, "sampler": "ddpm", "count": 24, "seed": 1}"#);
    subscriber.next(|m| m.topic == "denoised/test/progress/last");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.wait_for_phase("draining");
    assert_eq!(subscriber.on("denoised/test/result/last").json()["images"].as_array().unwrap().len(), 24);
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
}

#[test]
fn invalid_requests_get_an_error_that_names_the_field_and_the_daemon_continues() {
    let (broker, mut subscriber, _daemon) = start("[limits]\npayload = \"4 KiB\"\n");
    let long = format!("{{\"model\": \"{}\"}}", "x".repeat(5000));
    for (id, json, code, field, expected) in [
        ("", "draw me a three", "bad_request", Value::Null, "not valid JSON"),
        (
            "",
            r#"{"id": "a"} {}"#,
            "bad_request",
            Value::Null,
            "nothing may follow the JSON value, but `{` does",
        ),
        ("", "[]", "bad_request", Value::Null, "the request is an array, but must be an object"),
        ("", long.as_str(), "out_of_range", Value::Null, "at most 4096 are accepted"),
        (
            "u",
            r#"{"id": "u", "stepz": 5}"#,
            "bad_request",
            "stepz".into(),
            "unknown field `stepz`; did you mean `steps`?",
        ),
        (
            "t",
            r#"{"id": "t", "steps": "ten"}"#,
            "bad_request",
            "steps".into(),
            "steps is the string \"ten\", but must be an integer, 0 or more",
        ),
        ("n", r#"{"id": "n", "steps": -1}"#, "out_of_range", "steps".into(), "-1"),
        (
            "z",
            r#"{"id": "z", "steps": 0}"#,
            "out_of_range",
            "steps".into(),
            "steps is 0, but must lie between 1 and 1000",
        ),
        ("b", r#"{"id": "b", "steps": 1000000000}"#, "out_of_range", "steps".into(), "between 1 and 1000"),
        ("c", r#"{"id": "c", "class": 3}"#, "out_of_range", "class".into(), "gaussian has no classes"),
        ("m", r#"{"id": "m", "model": "mona-lisa"}"#, "unknown_model", "model".into(), "there are: gaussian"),
        (
            "s",
            r#"{"id": "s", "sampler": "magic"}"#,
            "unknown_sampler",
            "sampler".into(),
            "use one of: ddpm, ddim, ddim_inverse, pndm",
        ),
        ("k", r#"{"id": "k", "count": 65}"#, "out_of_range", "count".into(), "between 1 and 64"),
        ("p", r#"{"id": "p", "preview_every": 0}"#, "out_of_range", "preview_every".into(), "at least 1"),
        (
            "f",
            r#"{"id": "f", "format": "gif"}"#,
            "bad_request",
            "format".into(),
            "format is the string \"gif\", but must be one of: png, jpeg, webp, npy",
        ),
        (
            "w",
            r#"{"id": "w", "conditions": {"mood": 1}}"#,
            "out_of_range",
            "conditions.mood".into(),
            "no condition \"mood\"",
        ),
    ] {
        request(&broker, json);
        let error = subscriber.next(|m| m.topic.starts_with("denoised/test/error/"));
        let body = error.json();
        assert_eq!(body["code"], code, "{json}: {body}");
        assert_eq!(body["field"], field, "{json}: {body}");
        assert!(body["message"].as_str().unwrap().contains(expected), "{json}: {body}");
        let reported_id = body["id"].as_str().unwrap();
        assert_eq!(error.topic, format!("denoised/test/error/{reported_id}"));
        if !id.is_empty() {
            assert_eq!(reported_id, id);
        }
    }
    request(&broker, r#"{"id": "no spaces"}"#);
    let error = subscriber.on("denoised/test/error/no_spaces").json();
    assert_eq!((error["id"].as_str(), error["field"].as_str()), (Some("no spaces"), Some("id")));
    request(&broker, r#"{"id": "good", "steps": 3, "seed": 1}"#);
    subscriber.on("denoised/test/result/good");
}

#[test]
fn the_response_topic_gets_the_answers_with_the_correlation_data() {
    let (broker, _all, _daemon) = start("");
    let mut own = Subscriber::start(&broker, "answers/me");
    let properties =
        ["-D", "publish", "response-topic", "answers/me", "-D", "publish", "correlation-data", "c-42"];
    publish(&broker, "denoised/test/request", r#"{"id": "r", "steps": 3, "seed": 1}"#, &properties);
    let image = own.on("answers/me");
    assert_eq!((image.content_type.as_str(), image.user["type"].as_str()), ("image/png", "image"));
    let result = own.on("answers/me");
    assert_eq!((result.user["type"].as_str(), result.json()["id"].as_str()), ("result", Some("r")));
    publish(&broker, "denoised/test/request", r#"{"id": "q", "steps": 0}"#, &properties);
    let error = own.on("answers/me");
    assert_eq!((error.user["type"].as_str(), error.json()["field"].as_str()), ("error", Some("steps")));
    for message in [image, result, error] {
        assert_eq!(message.correlation, "c-42");
    }
}

#[test]
fn progress_and_previews_are_published_and_cancel_ends_a_job() {
    let (broker, mut subscriber, _daemon) = start("[limits]\nsteps = 100000\n");
    request(
        &broker,
        r#"{"id": "long", "steps": 1000, "sampler": "ddpm", "count": 64, "seed": 1, "preview_every": 5}"#,
    );
    let progress = subscriber.on("denoised/test/progress/long").json();
    assert_eq!(progress["of"], 1000);
    assert!(progress["step"].as_u64().unwrap() >= 1 && progress["eta_ms"].is_u64());
    let preview = subscriber.on("denoised/test/preview/long");
    let picture = image::load_from_memory(&preview.payload).unwrap();
    assert_eq!((picture.width(), picture.height()), (5, 4));
    publish(&broker, "denoised/test/cancel", r#"{"id": "long"}"#, &[]);
    let error = subscriber.on("denoised/test/error/long").json();
    assert_eq!(error["code"], "cancelled");
    // An unknown id and an invalid message on the cancel topic have no effect.
    publish(&broker, "denoised/test/cancel", r#"{"id": "nobody"}"#, &[]);
    publish(&broker, "denoised/test/cancel", "stop!", &[]);
    request(&broker, r#"{"id": "next", "steps": 2, "seed": 1}"#);
    subscriber.on("denoised/test/result/next");
}

#[test]
fn a_full_queue_rejects_a_request_with_an_error() {
    let (broker, mut subscriber, _daemon) = start("[limits]\nqueue = 1\n");
    request(&broker, r#"{"id": "first", "steps": 1000, "sampler": "ddpm", "count": 24, "seed": 1}"#);
    request(&broker, r#"{"id": "second", "steps": 2}"#);
    let error = subscriber.on("denoised/test/error/second").json();
    assert_eq!(error["code"], "queue_full");
    assert!(error["message"].as_str().unwrap().contains("limits.queue"), "{error}");
}

#[test]
fn the_daemon_serves_again_after_the_broker_restarts() {
    let (mut broker, subscriber, mut daemon) = start("");
    drop(subscriber);
    broker.kill();
    daemon.wait_for("next try in");
    broker.run();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    daemon.wait_for("connected to the broker");
    assert_eq!(subscriber.on("denoised/test/status").payload, b"online");
    request(&broker, r#"{"id": "again", "steps": 3, "seed": 1}"#);
    subscriber.on("denoised/test/image");
    subscriber.on("denoised/test/result/again");
}

#[test]
fn an_image_over_the_brokers_packet_limit_is_reported_to_the_requester() {
    let broker = Broker::with_config("max_packet_size 3000\n");
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let roll = model("swissroll");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&roll], ""));
    subscriber.wait_for_phase("ready");
    request(&broker, r#"{"id": "big", "steps": 2, "seed": 1, "format": "npy"}"#);
    let error = subscriber.on("denoised/test/error/big").json();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("larger than the 3000 that the broker"), "{message}");
    assert!(message.contains("a message of 8"), "{message}");
}

#[test]
fn qos_2_delivers_each_image_once() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/twice/#");
    let bundle = golden("gaussian");
    let text = configuration(&broker, "twice", &[&bundle], "").replace("[models]", "qos = 2\n[models]");
    let _daemon = Daemon::start(&text);
    subscriber.wait_for_phase("ready");
    publish(&broker, "denoised/twice/request", r#"{"id": "x", "steps": 2, "seed": 1, "count": 3}"#, &[]);
    let images: Vec<_> =
        (0..3).map(|_| subscriber.on("denoised/twice/image").user["index"].clone()).collect();
    assert_eq!(images, ["0", "1", "2"]);
    subscriber.on("denoised/twice/result/x");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_daemon_with_the_reason() {
    let broker = Broker::start();
    let missing = golden("nowhere");
    let text = configuration(&broker, "test", &[&missing], "");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let stderr = fails(denoised().arg("run").arg("--config").arg(file.path()), 1);
    assert!(stderr.contains("nowhere is not a directory"), "{stderr}");
}

#[test]
fn under_journald_every_line_has_a_priority() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n[models]\npaths = [\"/nowhere\"]\n")
        .unwrap();
    let mut command = denoised();
    command.env("JOURNAL_STREAM", "8:1").arg("run").arg("--config").arg(file.path());
    let stderr = fails(&mut command, 1);
    assert!(stderr.contains("<6>loading /nowhere"), "{stderr}");
}

#[test]
fn a_configuration_with_an_unknown_key_exits_with_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[mqtt]\nhost = \"x\"\n").unwrap();
    let stderr = fails(denoised().arg("run").arg("--config").arg(file.path()), 2);
    assert!(stderr.contains(":2: mqtt.host: unknown field `host`"), "{stderr}");
}
