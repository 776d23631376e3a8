//! Daemons that leave a shared queue, or change their name, and must take no request with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::broker::{Broker, publish};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::Subscriber;

const QUEUE: &str = "shared_queue = \"$share/denoised/denoised/request\"\n";
const READY: &str = "ready: requests are accepted";

/// The configuration of a daemon, with further lines in `[mqtt]`.
fn member(broker: &Broker, node: &str, more: &str) -> String {
    configuration(broker, node, &[&golden("gaussian")], "").replace("[mqtt]\n", &format!("[mqtt]\n{more}"))
}

fn start(text: &str) -> Daemon {
    let mut daemon = Daemon::start(text);
    daemon.wait_for(READY);
    daemon
}

/// Stops a daemon, and starts it again with its spool.
fn restart(daemon: &mut Daemon, text: &str) -> Daemon {
    assert_eq!(daemon.terminate(), Some(0));
    let spool = Arc::clone(&daemon.spool);
    let mut daemon = Daemon::with_spool(text, &spool);
    daemon.wait_for(READY);
    daemon
}

fn request(broker: &Broker, prefix: &str, count: usize) {
    for job in 0..count {
        let text = format!(r#"{{"id": "{prefix}{job}", "steps": 2, "seed": 1}}"#);
        publish(broker, "denoised/request", &text, &[]);
    }
}

/// Waits until so many jobs have a result.
fn wait_for_results(subscriber: &mut Subscriber, count: usize) {
    let results = |subscriber: &Subscriber| {
        let topics = subscriber.seen.iter().map(|m| m.topic.clone());
        topics.filter(|topic| topic.contains("/result/")).collect::<BTreeSet<_>>().len()
    };
    while results(subscriber) < count {
        subscriber.next(|m| m.topic.contains("/result/"));
    }
    assert_eq!(results(subscriber), count);
}

#[test]
fn a_daemon_that_left_the_shared_queue_ate_half_of_the_requests() {
    for more in ["", "shared_queue = \"$share/denoised/other/request\"\n"] {
        let broker = Broker::start();
        let mut subscriber = Subscriber::start(&broker, "denoised/#");
        let mut a = start(&member(&broker, "a", QUEUE));
        let _b = start(&member(&broker, "b", QUEUE));
        assert_eq!(a.terminate(), Some(0));
        // The broker keeps some of these for the session of `a`.
        request(&broker, "before", 6);
        let spool = Arc::clone(&a.spool);
        let mut a = Daemon::with_spool(&member(&broker, "a", more), &spool);
        a.wait_for("left the shared queue $share/denoised/denoised/request, which is no longer configured");
        request(&broker, "after", 10);
        wait_for_results(&mut subscriber, 16);
        let after_of_a = subscriber.seen.iter().filter(|m| m.topic.starts_with("denoised/a/result/after"));
        assert_eq!(after_of_a.count(), 0);
        // The queue is left once.
        let mut a = restart(&mut a, &member(&broker, "a", more));
        request(&broker, "again", 4);
        wait_for_results(&mut subscriber, 20);
        assert_eq!(a.count("left the shared queue") + a.count("dropped a message"), 0);
    }
}

#[test]
fn an_unknown_shared_queue_of_the_session_ate_half_of_the_requests() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/#");
    let mut a = start(&member(&broker, "a", QUEUE));
    let _b = start(&member(&broker, "b", QUEUE));
    std::fs::remove_file(a.spool.path().join("shared-queues")).unwrap();
    let mut a = restart(&mut a, &member(&broker, "a", ""));
    request(&broker, "first", 2);
    a.wait_for("the broker's session has an unknown subscription, which draws messages on denoised/request");
    a.wait_for("connected to the broker");
    request(&broker, "after", 10);
    subscriber.next(|m| m.topic == "denoised/b/result/after9");
    let after = subscriber.seen.iter().filter(|m| m.topic.contains("/result/after")).count();
    assert_eq!(after, 10);
    assert_eq!(a.count("dropped a message"), 0);
}

#[test]
fn a_renamed_node_left_its_session_in_the_shared_queue() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/#");
    let mut a = start(&member(&broker, "a", QUEUE));
    let _b = start(&member(&broker, "b", QUEUE));
    assert_eq!(a.terminate(), Some(0));
    let spool = Arc::clone(&a.spool);
    let mut a = Daemon::with_spool(&member(&broker, "renamed", QUEUE), &spool);
    a.wait_for("ended the session of the former client id denoised-a-");
    request(&broker, "after", 12);
    wait_for_results(&mut subscriber, 12);
    let mut a = restart(&mut a, &member(&broker, "renamed", QUEUE));
    assert_eq!(a.count("former client id"), 0);
}

/// The configuration of a daemon with a client id.
fn with_client_id(broker: &Broker, node: &str, id: &str) -> String {
    member(broker, node, &format!("client_id = \"{id}\"\n"))
}

/// Sends a request to the node `a` while no daemon is connected, and returns once a daemon with the id `shared` does it.
fn send_to_shared_session(broker: &Broker, mut renamed: impl FnMut(), spool: &Arc<tempfile::TempDir>) {
    let mut subscriber = Subscriber::start(broker, "denoised/#");
    publish(broker, "denoised/a/request", r#"{"id": "kept", "steps": 2, "seed": 1}"#, &[]);
    renamed();
    let _other = Daemon::with_spool(&with_client_id(broker, "a", "shared"), spool);
    subscriber.next(|m| m.topic.starts_with("denoised/a/result/kept"));
}

/// The request that the broker kept for the other daemon was lost.
#[test]
fn a_renamed_daemon_ended_the_session_that_another_one_had_begun() {
    let broker = Broker::start();
    let mut a = start(&with_client_id(&broker, "a", "shared"));
    assert_eq!(a.terminate(), Some(0));
    let mut b = start(&with_client_id(&broker, "a", "shared"));
    assert_eq!(b.terminate(), Some(0));
    let renamed = || {
        let mut b = Daemon::with_spool(&with_client_id(&broker, "b", "own"), &b.spool);
        b.wait_for(READY);
        assert_eq!((b.terminate(), b.count("former client id")), (Some(0), 0));
    };
    send_to_shared_session(&broker, renamed, &a.spool);
}

/// The first of two daemons with one client id is renamed after they have taken over from each other.
#[test]
fn a_renamed_daemon_ended_the_session_that_another_one_had_taken_over() {
    let broker = Broker::start();
    let mut a = start(&with_client_id(&broker, "a", "shared"));
    let mut b = Daemon::start(&with_client_id(&broker, "a", "shared"));
    a.wait_for("another client has the client id shared, so a change of the id will not end its session");
    assert_eq!((a.terminate(), b.terminate()), (Some(0), Some(0)));
    let renamed = || {
        let mut a = Daemon::with_spool(&with_client_id(&broker, "b", "own"), &a.spool);
        a.wait_for(READY);
        assert_eq!((a.terminate(), a.count("former client id")), (Some(0), 0));
    };
    send_to_shared_session(&broker, renamed, &b.spool);
}
