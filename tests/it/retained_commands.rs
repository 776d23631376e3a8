//! Messages that a broker retains on the daemon's command topics.

use std::sync::Arc;

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::fault_proxy::FaultProxy;
use crate::common::golden;
use crate::common::subscriber::Subscriber;

const IGNORED: &str = "ignoring the retained message on denoised/test/";

fn config(broker: &Broker) -> String {
    configuration(broker, "test", &[&golden("gaussian")], "")
}

fn retain(broker: &Broker, command: &str, payload: &str) {
    publish(broker, &format!("denoised/test/{command}"), payload, &["-r"]);
}

/// Stops the daemon and starts it again with its spool.
fn restart(broker: &Broker, mut daemon: Daemon) -> Daemon {
    assert_eq!(daemon.terminate(), Some(0));
    let spool = Arc::clone(&daemon.spool);
    Daemon::with_spool(&config(broker), &spool)
}

/// Counts the messages seen on a topic or below it, and not those that the broker sent as retained.
fn count(subscriber: &mut Subscriber, topic: &str) -> usize {
    subscriber.drain();
    let below = format!("{topic}/");
    let is_counted = |t: &str| t == topic || t.starts_with(&below);
    subscriber.seen.iter().filter(|m| is_counted(&m.topic) && !m.retained).count()
}

#[test]
fn a_retained_request_was_drawn_again_at_every_start() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    // The daemon can't see that this message is retained, because it arrives on an existing subscription.
    retain(&broker, "request", r#"{"steps": 2}"#);
    daemon.wait_for("finished in");
    for _ in 0..2 {
        daemon = restart(&broker, daemon);
        daemon.wait_for(IGNORED);
    }
    daemon.kill();
    daemon = Daemon::with_spool(&config(&broker), &Arc::clone(&daemon.spool));
    daemon.wait_for(IGNORED);
    // A request with the same content that is not retained is a new one.
    publish(&broker, "denoised/test/request", r#"{"steps": 2}"#, &[]);
    daemon.wait_for("finished in");
    subscriber.next(|m| m.topic.starts_with("denoised/test/result/") && m.payload != b"");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    assert_eq!(count(&mut subscriber, "denoised/test/result"), 2);
    assert_eq!(count(&mut subscriber, "denoised/test/error"), 0);
}

#[test]
fn a_request_retained_before_the_first_start_is_drawn_once() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    retain(&broker, "request", r#"{"id": "early", "steps": 2, "seed": 1}"#);
    let mut daemon = Daemon::start(&config(&broker));
    let warning = daemon.wait_for("is retained; it is handled once");
    assert!(warning.contains("mosquitto_pub -V 5 -r -n -t 'denoised/test/request'"), "{warning}");
    subscriber.on("denoised/test/result/early");
    daemon = restart(&broker, daemon);
    daemon.wait_for(IGNORED);
    // Another content is another request.
    retain(&broker, "request", r#"{"id": "late", "steps": 2, "seed": 1}"#);
    subscriber.on("denoised/test/result/late");
    let mut daemon = restart(&broker, daemon);
    daemon.wait_for(IGNORED);
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    assert_eq!(count(&mut subscriber, "denoised/test/image"), 2);
    assert_eq!(count(&mut subscriber, "denoised/test/result"), 2);
}

#[test]
fn a_request_retained_while_the_daemon_is_stopped_is_drawn_once() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    assert_eq!(daemon.terminate(), Some(0));
    // The broker queues it for the daemon's session, and retains it for its next subscription.
    retain(&broker, "request", r#"{"steps": 2}"#);
    let mut daemon = Daemon::with_spool(&config(&broker), &Arc::clone(&daemon.spool));
    daemon.wait_for(IGNORED);
    daemon.wait_for("finished in");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic.starts_with("denoised/test/result/"));
    assert_eq!((daemon.count("is retained; it is handled once"), daemon.count("finished in")), (0, 1));
}

/// After a kill, the copy that the broker redelivers and the one that it retains both waited for the picture.
#[test]
fn a_retained_request_that_waits_for_its_picture_was_drawn_twice_after_a_kill() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let config = configuration(&broker, "test", &[&model("digits")], "[engine]\nkind = \"embedded\"");
    let mut daemon = Daemon::start(&config);
    daemon.wait_for("ready: requests are accepted");
    retain(&broker, "request", r#"{"image": {"topic": "camera/late"}, "steps": 2}"#);
    daemon.kill();
    daemon = Daemon::with_spool(&config, &Arc::clone(&daemon.spool));
    let ignored = daemon.wait_for(IGNORED);
    assert!(ignored.contains("which waits for its picture"), "{ignored}");
    publish(&broker, "camera/late", "no picture", &["-r"]);
    subscriber.next(|m| m.topic.starts_with("denoised/test/error/"));
    assert_eq!(daemon.terminate(), Some(0));
    daemon = Daemon::with_spool(&config, &Arc::clone(&daemon.spool));
    let ignored = daemon.wait_for(IGNORED);
    assert!(ignored.contains("which was handled before"), "{ignored}");
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(count(&mut subscriber, "denoised/test/error"), 1);
}

#[test]
fn a_retained_request_was_answered_again_after_every_lost_connection() {
    let broker = Broker::start();
    let proxy = FaultProxy::new(broker.port);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    retain(&broker, "request", r#"{"id": "kept", "steps": 2, "seed": 1}"#);
    retain(&broker, "cancel", r#"{"id": 7}"#);
    let text = config(&broker).replace(&broker.port.to_string(), &proxy.port.to_string());
    let mut daemon = Daemon::start(&text);
    subscriber.on("denoised/test/result/kept");
    for _ in 0..2 {
        proxy.disconnect_all();
        // The topics may be in either order.
        daemon.wait_for(IGNORED);
        daemon.wait_for(IGNORED);
    }
    // The broker may get a message twice, so the log is counted. The cancellation that names no job is refused once.
    for (line, expected) in [("finished in", 1), ("sending its stored results again", 0), (" rejected: ", 1)]
    {
        assert_eq!(daemon.count(line), expected, "{line}");
    }
}

#[test]
fn a_retained_cancellation_ended_the_next_job_with_its_id() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker));
    daemon.wait_for("ready: requests are accepted");
    let job = r#"{"id": "x", "steps": 1000, "sampler": "ddpm", "count": 64, "seed": 1}"#;
    publish(&broker, "denoised/test/request", job, &[]);
    subscriber.on("denoised/test/progress/x");
    retain(&broker, "cancel", r#"{"id": "x"}"#);
    assert_eq!(subscriber.on("denoised/test/error/x").json()["code"], "cancelled");
    publish(&broker, "denoised/test/request", job, &[]);
    subscriber.on("denoised/test/progress/x");
    // The job is interrupted, and resumed at the next start.
    daemon.kill();
    let mut daemon = Daemon::with_spool(&config(&broker), &Arc::clone(&daemon.spool));
    daemon.wait_for(IGNORED);
    let result = subscriber.on("denoised/test/result/x").json();
    assert_eq!(result["images"].as_array().unwrap().len(), 64);
}

#[test]
fn clearing_a_retained_command_was_answered_with_an_error() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let _daemon = Daemon::start(&config(&broker));
    subscriber.wait_for_phase("ready");
    for command in ["request", "cancel"] {
        for arguments in [&["-r"][..], &[]] {
            publish(&broker, &format!("denoised/test/{command}"), "", arguments);
        }
    }
    publish(&broker, "denoised/test/request", r#"{"id": "next", "steps": 2, "seed": 1}"#, &[]);
    subscriber.on("denoised/test/result/next");
    assert_eq!(count(&mut subscriber, "denoised/test/error"), 0);
}
