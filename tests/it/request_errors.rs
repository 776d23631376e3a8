//! How the daemon answers requests that it cannot serve, and answers that the broker does not take.

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::Subscriber;
use serde_json::{Value, json};

/// Starts a broker, a subscriber to everything, and a daemon, and waits until it is ready.
fn start(broker: &str, more: &str) -> (Broker, Subscriber, Daemon) {
    let broker = Broker::with_config(broker);
    let subscriber = Subscriber::start(&broker, "#");
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], more));
    daemon.wait_for("ready: requests are accepted");
    (broker, subscriber, daemon)
}

fn request(broker: &Broker, json: &str) {
    publish(broker, "denoised/test/request", json, &[]);
}

/// Returns what a client reads whose numbers are 64-bit floats, such as a JavaScript program.
fn as_float_client(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(array) => array.iter().map(as_float_client).collect(),
        Value::Object(object) => {
            Value::Object(object.iter().map(|(key, value)| (key.clone(), as_float_client(value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn a_javascript_client_got_another_picture_when_it_asked_again_with_the_seed() {
    let (broker, mut subscriber, _daemon) = start("", "");
    let mut draw = |id: &str, seed: Value| {
        request(&broker, &json!({"id": id, "steps": 2, "count": 2, "seed": seed}).to_string());
        let image = subscriber.on("denoised/test/image");
        let result = subscriber.on(&format!("denoised/test/result/{id}")).json();
        assert_eq!(image.user["seed"], result["images"][0]["receipt"]["seed"].to_string());
        let sha256 = result["images"].as_array().unwrap().iter().map(|image| image["sha256"].clone());
        (sha256.collect::<Vec<_>>(), as_float_client(&result)["images"][0]["receipt"].clone())
    };
    for n in 0..4 {
        let (drawn, receipt) = draw(&format!("new-{n}"), Value::Null);
        assert!(receipt["seed"].as_f64().unwrap() < (1_u64 << 53) as f64, "{receipt}");
        assert_eq!(receipt.get("seed_text"), None);
        let (again, _) = draw(&format!("again-{n}"), receipt["seed"].clone());
        assert_eq!(again, drawn);
    }
    // A seed that the client's numbers can't hold comes back as a string, too.
    let (drawn, receipt) = draw("large", json!(16_872_412_031_690_390_026_u64));
    assert_eq!(receipt["seed_text"], "16872412031690390026");
    let (again, receipt) = draw("large-again", receipt["seed_text"].clone());
    assert_eq!((again, &receipt["seed_text"]), (drawn, &json!("16872412031690390026")));
}

#[test]
fn an_unusable_id_was_not_repeated_in_the_error() {
    let (broker, mut subscriber, _daemon) = start("", "");
    let long = "camera-".repeat(20);
    for (id, repeated, level) in [
        (json!("front door"), "front door", "front_door"),
        (json!("a/b+c#"), "a/b+c#", "a_b_c_"),
        (json!(""), "", "_"),
        (json!("line\nbreak\u{0}"), "line\nbreak\u{0}", "line_break_"),
        (json!("tür"), "tür", "t_r"),
        (json!(7), "7", "7"),
        (json!(true), "true", "true"),
        (json!(["a"]), "[\"a\"]", "__a__"),
        (json!(long), &format!("{}…", &long[..63]), &format!("{}_", &long[..63])),
    ] {
        for command in ["request", "cancel"] {
            publish(&broker, &format!("denoised/test/{command}"), &json!({ "id": id }).to_string(), &[]);
            let error = subscriber.on(&format!("denoised/test/error/{level}"));
            assert_eq!(
                (error.json()["id"].as_str(), error.json()["field"].as_str()),
                (Some(repeated), Some("id"))
            );
            assert_eq!(error.user["id"], level);
        }
    }
    // Other faults, too, are reported with the id, even if the request is not valid JSON.
    request(&broker, r#"{"id": "broken", "steps": NaN}"#);
    let error = subscriber.on("denoised/test/error/broken").json();
    let message = "the request is not valid JSON: no JSON value begins with `NaN` (character 27)";
    assert_eq!(error, json!({"id": "broken", "code": "bad_request", "field": null, "message": message}));
}

#[test]
fn a_response_topic_of_the_daemon_itself_is_refused() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "#");
    let text = configuration(&broker, "test", &[&golden("gaussian")], "")
        .replace("[models]", "shared_queue = \"$share/fleet/queue\"\n[models]");
    let mut daemon = Daemon::start(&text);
    daemon.wait_for("ready: requests are accepted");
    let own =
        ["request", "cancel", "status", "state", "image", "result/a", "error/a", "progress/a", "preview/a"];
    let own = own.map(|name| format!("denoised/test/{name}"));
    for (index, topic) in own.iter().map(String::as_str).chain(["queue", "$SYS/broker"]).enumerate() {
        let properties =
            ["-D", "publish", "response-topic", topic, "-D", "publish", "correlation-data", "c-42"];
        let id = format!("r{index}");
        publish(&broker, "denoised/test/request", &json!({"id": id, "steps": 2}).to_string(), &properties);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["code"], "bad_request", "{topic}");
        let expected = match topic.starts_with('$') {
            true => format!(
                "the response topic {topic:?} begins with $, which is reserved for brokers; use another one"
            ),
            false => format!("the response topic {topic:?} is a topic of the daemon itself; use another one"),
        };
        assert_eq!(error["message"], expected);
    }
    // A cancellation is refused for the same reason, and another topic below the root is allowed.
    let properties =
        ["-D", "publish", "response-topic", &own[0], "-D", "publish", "correlation-data", "c-42"];
    publish(&broker, "denoised/test/cancel", r#"{"id": "x"}"#, &properties);
    assert_eq!(subscriber.on("denoised/test/error/x").json()["code"], "bad_request");
    let properties = ["-D", "publish", "response-topic", "denoised/test/answers"];
    publish(&broker, "denoised/test/request", r#"{"id": "good", "steps": 2, "seed": 1}"#, &properties);
    subscriber.next(|m| m.topic == "denoised/test/answers" && m.user["type"] == "result");
    let copies = subscriber.seen.iter().filter(|m| m.user.contains_key("copy"));
    assert!(copies.into_iter().all(|m| m.topic == "denoised/test/answers"));
    assert_eq!(daemon.count("finished in"), 1);
}

#[test]
fn an_error_about_an_error_followed_without_end() {
    let (broker, mut subscriber, mut daemon) = start("max_packet_size 350\n", "[receipt]\nembed = false\n");
    let id = format!("camera-front-door-{:040}", 7);
    let properties =
        ["-D", "publish", "response-topic", "answers", "-D", "publish", "correlation-data", "c-42"];
    publish(&broker, "denoised/test/request", &json!({"id": id, "steps": 2}).to_string(), &properties);
    let error = subscriber.next(|m| m.topic == format!("denoised/test/error/{id}")).json();
    assert_eq!((error["id"].as_str(), error["code"].as_str()), (Some(id.as_str()), Some("out_of_range")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("(result) is larger than the 350 that the broker"), "{message}");
    let copy = subscriber.next(|m| m.topic == "answers" && m.payload.starts_with(b"{"));
    assert_eq!((copy.correlation.as_str(), &copy.json()["id"]), ("c-42", &json!(id)));
    // The text of this error is shortened.
    request(&broker, r#"{"id": "long", "stepz": 1}"#);
    let error = subscriber.on("denoised/test/error/long").json();
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("unknown field `stepz`") && message.ends_with('…'), "{message}");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    let errors = subscriber.seen.iter().filter(|m| m.topic.starts_with("denoised/test/error/")).count();
    // One for the result, and one for the request that is no valid one; the image of this model fits.
    assert_eq!(errors, 2);
    let log = daemon.log_so_far();
    assert!(log.len() < 30, "{log:#?}");
}

/// The broker states no limit in this case, and answers a large message with a reason code of its own, after which the
/// daemon connected again for ever.
#[test]
fn a_message_above_mosquittos_message_size_limit_ended_every_connection() {
    let broker = Broker::with_config("message_size_limit 3000\n");
    let mut subscriber = Subscriber::start(&broker, "#");
    let more = "[engine]\nkind = \"embedded\"";
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], more));
    daemon.wait_for("ready: requests are accepted");
    let properties =
        ["-D", "publish", "response-topic", "answers", "-D", "publish", "correlation-data", "c-42"];
    let job = r#"{"id": "large", "steps": 2, "count": 2, "format": "npy"}"#;
    publish(&broker, "denoised/test/request", job, &properties);
    subscriber.on("denoised/test/result/large");
    request(&broker, r#"{"id": "next", "steps": 2}"#);
    subscriber.on("denoised/test/result/next");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    for topic in ["denoised/test/error/large", "answers"] {
        let errors = subscriber.seen.iter().filter(|m| m.topic == topic && m.user["type"] == "error");
        let errors: Vec<_> = errors.map(crate::common::subscriber::Received::json).collect();
        let [error] = &errors[..] else { panic!("{topic}: {errors:#?}") };
        assert_eq!((&error["id"], &error["code"]), (&json!("large"), &json!("out_of_range")));
        let message = error["message"].as_str().unwrap();
        let expected = "(image) is larger than the broker accepts; raise its limit of the message size \
                        (message_size_limit of mosquitto), or request a smaller image";
        assert!(message.ends_with(expected), "{message}");
    }
    assert_eq!(daemon.count("no connection"), 0);
}

#[test]
fn a_state_above_mosquittos_message_size_limit_is_one_warning() {
    let broker = Broker::with_config("message_size_limit 100\n");
    let mut subscriber = Subscriber::start(&broker, "#");
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&model("swissroll")], ""));
    daemon.wait_for("the broker accepts no messages on denoised/test/state: the message is too large; raise");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    assert_eq!((daemon.count("denoised/test/state"), daemon.count("no connection")), (1, 0));
}

#[test]
fn previews_that_the_broker_does_not_take_are_reported_once() {
    let broker = Broker::with_config("max_packet_size 1000\n");
    let mut subscriber = Subscriber::start(&broker, "#");
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&model("swissroll")], ""));
    daemon.wait_for("ready: requests are accepted");
    request(&broker, r#"{"id": "p", "steps": 20, "seed": 1, "preview_every": 1}"#);
    daemon.wait_for("finished in");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    let errors = subscriber.seen.iter().filter(|m| m.topic == "denoised/test/error/p");
    let errors: Vec<_> = errors.map(|m| m.json()["message"].as_str().unwrap().to_owned()).collect();
    let kinds: Vec<_> = ["(preview)", "(image)", "(result)"]
        .map(|kind| errors.iter().filter(|error| error.contains(kind)).count())
        .into();
    assert!(kinds.iter().all(|count| *count <= 1) && kinds[0] == 1, "{errors:#?}");
}

#[test]
fn a_repeat_of_an_unfinished_job_got_no_answer_on_its_response_topic() {
    let (broker, mut subscriber, mut daemon) = start("", "");
    let job = |id: &str, count: u64| {
        json!({"id": id, "steps": 1000, "sampler": "ddpm", "count": count, "seed": 1}).to_string()
    };
    let send = |job: &str, topic: &str| {
        let properties =
            ["-D", "publish", "response-topic", topic, "-D", "publish", "correlation-data", topic];
        publish(&broker, "denoised/test/request", job, &properties);
    };
    send(&job("long", 32), "first");
    subscriber.on("denoised/test/progress/long");
    send(&job("long", 32), "second");
    daemon.wait_for("its repeated request is answered afterwards");
    send(&job("long", 32), "second");
    daemon.wait_for("ignoring its repeated request");
    subscriber.next(|m| m.topic == "second" && m.user["type"] == "result");
    assert!(subscriber.seen.iter().filter(|m| m.topic == "second").all(|m| m.correlation == "second"));
    let payloads = |topic: &str| {
        let mut payloads: Vec<_> =
            subscriber.seen.iter().filter(|m| m.topic == topic).map(|m| m.payload.clone()).collect();
        payloads.sort();
        payloads
    };
    assert_eq!(payloads("second").len(), 33);
    assert_eq!(payloads("second"), payloads("first"));
    // An error is answered in the same way.
    send(&job("cancelled", 64), "first");
    subscriber.on("denoised/test/progress/cancelled");
    send(&job("cancelled", 64), "third");
    daemon.wait_for("its repeated request is answered afterwards");
    publish(&broker, "denoised/test/cancel", r#"{"id": "cancelled"}"#, &[]);
    assert_eq!(
        subscriber.next(|m| m.topic == "third" && m.user["type"] == "error").json()["code"],
        "cancelled"
    );
}

#[test]
fn messages_speak_of_json() {
    let (broker, mut subscriber, _daemon) = start("", "");
    for (json, field, expected) in [
        ("{", Value::Null, "the request is not valid JSON: it ends before an object is closed by `}`"),
        ("[]", Value::Null, "the request is an array, but must be an object"),
        ("\u{feff}{\"steps\": 3.5}", json!("steps"), "steps is 3.5, but must be an integer, 0 or more"),
        (
            r#"{"seed": 18446744073709552000}"#,
            json!("seed"),
            "seed is 18446744073709552000, but must be an integer from 0 to 18446744073709551615, as a number or as a string of all of its digits",
        ),
        (r#"{"steps": 2, "steps": 3}"#, json!("steps"), "steps occurs twice; remove one of them"),
        (
            r#"{"steps": 1e400}"#,
            Value::Null,
            "the request is not valid JSON: `1e400` is too large for a number (character 11)",
        ),
        (
            r#"{"conditions": {"mood": 1}}"#,
            json!("conditions.mood"),
            "gaussian has no condition \"mood\"; it has none; remove conditions",
        ),
        (
            &"[".repeat(500),
            Value::Null,
            "the request is not valid JSON: its arrays and objects are nested more than 127 deep",
        ),
    ] {
        request(&broker, json);
        let error = subscriber.next(|m| m.topic.starts_with("denoised/test/error/")).json();
        assert_eq!((&error["field"], error["message"].as_str()), (&field, Some(expected)), "{json}");
    }
    request(&broker, "{\"id\": \"whole\", \"steps\": 3.0, \"seed\": 7e0, \"count\": 1.0}");
    let result = subscriber.on("denoised/test/result/whole").json();
    let receipt = &result["images"][0]["receipt"];
    assert_eq!((&receipt["steps"], &receipt["seed"]), (&json!(3), &json!(7)));
    request(&broker, r#"{"id": "late", "steps": 1000, "sampler": "ddpm", "deadline_ms": 0}"#);
    let error = subscriber.on("denoised/test/error/late").json();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("deadline"), Some("deadline_ms")));
}

#[test]
fn a_topic_on_which_the_broker_hung_up_stopped_all_answers() {
    let (broker, mut subscriber, mut daemon) = start("", "");
    let deep = vec!["z"; 261].join("/");
    publish(
        &broker,
        "denoised/test/request",
        r#"{"id": "answer", "steps": 2}"#,
        &["-D", "publish", "response-topic", &deep],
    );
    let error = subscriber.on("denoised/test/error/answer").json();
    assert_eq!(error["code"], "bad_request");
    let fault = "it has more than 200 levels, on which brokers close the connection";
    assert!(
        error["message"].as_str().unwrap().ends_with(&format!("is not a valid topic name: {fault}")),
        "{error}"
    );
    for (id, topic) in
        [("deep", deep.as_str()), ("control", "a\u{1}b"), ("null", "a\u{0}b"), ("none", "a\u{ffff}b")]
    {
        request(&broker, &json!({"id": id, "steps": 2, "image": {"topic": topic}}).to_string());
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!((&error["code"], &error["field"]), (&json!("out_of_range"), &json!("image")), "{id}");
        assert!(
            error["message"].as_str().unwrap().contains("on which brokers close the connection"),
            "{error}"
        );
    }
    request(&broker, r#"{"id": "next", "steps": 2}"#);
    subscriber.on("denoised/test/result/next");
    assert_eq!(daemon.count("no connection"), 0);
}

#[test]
fn a_response_topic_fed_pictures_to_another_daemon() {
    let (broker, mut subscriber, _daemon) = start("", "");
    for (id, command) in [("request", "request"), ("cancel", "cancel"), ("load", "model/load")] {
        let topic = format!("denoised/other/{command}");
        let properties = ["-D", "publish", "response-topic", &topic];
        publish(&broker, "denoised/test/request", &json!({"id": id, "steps": 2}).to_string(), &properties);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        let message = format!(
            "the response topic {topic:?} is a topic on which another daemon takes messages; use another one"
        );
        assert_eq!((&error["code"], &error["message"]), (&json!("bad_request"), &json!(message)));
    }
}

#[test]
fn a_cancellation_that_is_not_valid_looked_like_the_end_of_its_job() {
    let (broker, mut subscriber, _daemon) = start("", "");
    request(&broker, r#"{"id": "run", "steps": 200, "seed": 1, "sampler": "ddpm"}"#);
    for (json, field, message) in [
        (
            r#"{"id": "run", "reason": "x"}"#,
            "reason",
            "the cancellation of run is not valid: unknown field `reason` (the fields are: id)",
        ),
        ("{}", "id", "the cancellation is not valid: the field `id` is missing; it names the job to cancel"),
    ] {
        publish(&broker, "denoised/test/cancel", json, &[]);
        let error = subscriber.next(|m| m.topic.starts_with("denoised/test/error/")).json();
        assert_eq!((&error["field"], &error["message"]), (&json!(field), &json!(message)));
    }
    if !subscriber.seen.iter().any(|m| m.topic == "denoised/test/result/run") {
        subscriber.on("denoised/test/result/run");
    }
}
