//! Cancellations at moments at which they got lost.

use std::sync::Arc;

use serde_json::json;

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;

fn config(broker: &Broker) -> String {
    configuration(broker, "test", &[&model("digits")], "[engine]\nkind = \"embedded\"")
}

/// The daemon acknowledged a cancellation before its effect was stored.
#[test]
fn a_cancellation_was_lost_when_the_daemon_was_killed_after_it() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    for number in 0..4 {
        let id = format!("long{number}");
        let job = json!({"id": id, "steps": 900, "count": 30}).to_string();
        publish(&broker, "denoised/test/request", &job, &[]);
        subscriber.on(&format!("denoised/test/progress/{id}"));
        publish(&broker, "denoised/test/cancel", &json!({"id": id}).to_string(), &[]);
        daemon.kill();
        let spool = Arc::clone(&daemon.spool);
        daemon = Daemon::with_spool(&config(&broker), &spool);
        let error = subscriber.on(&format!("denoised/test/error/{id}")).json();
        assert_eq!(error["code"], "cancelled", "{error}");
    }
}

/// The answer was "there is no such job", and then the job was drawn.
#[test]
fn a_cancellation_of_a_request_that_waits_for_its_picture_was_dropped() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    let job = json!({"id": "wait", "image": {"topic": "camera/late"}, "steps": 3}).to_string();
    let answers = ["-D", "publish", "response-topic", "answers"];
    publish(&broker, "denoised/test/request", &job, &answers);
    publish(&broker, "denoised/test/request", &job, &answers);
    publish(&broker, "denoised/test/cancel", r#"{"id": "wait"}"#, &[]);
    for topic in ["denoised/test/error/wait", "answers"] {
        let error = subscriber.on(topic).json();
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("cancelled"), &json!("the job was cancelled"))
        );
    }
    publish(&broker, "camera/late", "no picture", &["-r"]);
    publish(&broker, "denoised/test/request", r#"{"id": "next", "steps": 2}"#, &[]);
    subscriber.on("denoised/test/result/next");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    let errors = subscriber.seen.iter().filter(|m| m.topic.contains("error/") || m.topic == "answers");
    assert_eq!(errors.count(), 2);
}
