//! Nothing lost: the daemon, the broker and the disk fail, and everything arrives all the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::daemon::{Broker, Daemon, Received, Subscriber, configuration, publish};
use common::fault_proxy::Cable;
use common::golden;
use common::thermal::{cautious, heat};
use denoised::mqtt::Message;
use denoised::spool::{AcceptedJob, Change, CompletedJobs, SpoolError, Store};
use tempfile::TempDir;

const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_interval 1\n";

fn config(broker: &Broker, more: &str) -> String {
    configuration(broker, "test", &[&golden("gaussian")], more)
}

fn request(broker: &Broker, json: &str) {
    publish(broker, "denoised/test/request", json, &[]);
}

/// Images by id and index, checked for repeats that differ.
fn images(subscriber: &Subscriber) -> BTreeMap<(String, String), Vec<u8>> {
    let mut images = BTreeMap::new();
    for image in subscriber.seen.iter().filter(|m| m.topic == "denoised/test/image" && !m.retained) {
        let key = (image.user["id"].clone(), image.user["index"].clone());
        let before = images.insert(key, image.payload.clone());
        assert!(before.is_none_or(|before| before == image.payload), "a repeat has other bytes");
    }
    images
}

fn is_result(message: &Received, id: &str) -> bool {
    message.topic == format!("denoised/test/result/{id}")
}

#[test]
fn a_job_interrupted_by_sigkill_is_done_after_the_next_start_to_the_same_bytes() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.phase("ready");
    let job = r#"{"id": "long", "steps": 1000, "sampler": "ddpm", "count": 64, "seed": 3}"#;
    request(&broker, job);
    subscriber.on("denoised/test/progress/long");
    daemon.kill();
    let spool = Arc::clone(&daemon.spool);
    let _daemon = Daemon::with_spool(&config(&broker, ""), &spool);
    subscriber.next(|m| is_result(m, "long"));
    let interrupted = images(&subscriber);
    assert_eq!(interrupted.len(), 64);

    request(&broker, &job.replace("long", "whole"));
    subscriber.next(|m| is_result(m, "whole"));
    let all = images(&subscriber);
    for index in 0..64 {
        let of = |id: &str| &all[&(id.to_owned(), index.to_string())];
        assert_eq!(of("long"), of("whole"), "image {index}");
    }
}

#[test]
fn a_seed_that_was_left_open_is_decided_before_the_request_is_acknowledged() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.phase("ready");
    request(&broker, r#"{"id": "open", "steps": 1000, "sampler": "ddpm", "count": 64}"#);
    let line = daemon.wait_for("job open:");
    subscriber.on("denoised/test/progress/open");
    daemon.kill();
    let spool = Arc::clone(&daemon.spool);
    let mut daemon = Daemon::with_spool(&config(&broker, ""), &spool);
    let again = daemon.wait_for("job open:");
    let job = |line: &str| line[line.find("job open").unwrap()..].to_owned();
    assert_eq!(job(&line), job(&again));
}

#[test]
fn what_is_drawn_while_the_broker_is_away_arrives_in_order_after_its_return() {
    let mut broker = Broker::with(PERSISTENT);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // Too warm to begin: no job is drawn before the broker is away.
    let board = tempfile::tempdir().unwrap();
    heat(board.path(), 90);
    // It comes back only after those who watch do.
    let cable = Cable::to(broker.port);
    let through = format!("mqtt://127.0.0.1:{}", cable.port);
    let text = config(&broker, &cautious(board.path())).replace(&broker.url(), &through);
    let mut daemon = Daemon::start(&text);
    subscriber.phase("ready");
    for job in 0..20 {
        request(
            &broker,
            &format!(r#"{{"id": "j{job}", "steps": 200, "sampler": "ddpm", "count": 8, "seed": {job}}}"#),
        );
    }
    daemon.wait_for("job j19:");
    cable.stall(true);
    broker.kill();
    heat(board.path(), 40);
    daemon.wait_for("job j19 finished");
    broker.run();
    let mut late = Subscriber::start(&broker, "denoised/test/#");
    cable.stall(false);
    let mut missing: std::collections::BTreeSet<_> = (0..20).map(|job| format!("j{job}")).collect();
    while !missing.is_empty() {
        let result = late.next(|m| m.topic.contains("/result/"));
        missing.remove(result.topic.rsplit('/').next().unwrap());
    }
    for job in 0..20 {
        let id = format!("j{job}");
        let result = late.seen.iter().position(|m| is_result(m, &id)).unwrap();
        for index in 0..8 {
            let image = late.seen.iter().position(|m| {
                let own = m.user.get("id") == Some(&id) && m.user.get("index") == Some(&index.to_string());
                m.topic.ends_with("/image") && !m.retained && own
            });
            assert!(
                image.is_some_and(|image| image < result),
                "image {index} of {id} is not before its result"
            );
        }
    }
}

#[test]
fn a_repeated_id_is_answered_with_the_same_bytes_and_another_request_is_refused() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.phase("ready");
    let job = r#"{"id": "once", "steps": 5, "count": 2}"#;
    request(&broker, job);
    let first = subscriber.next(|m| is_result(m, "once"));
    let drawn = images(&subscriber);
    request(&broker, job);
    let again = subscriber.next(|m| is_result(m, "once"));
    assert_eq!(first.payload, again.payload);
    assert_eq!(images(&subscriber), drawn);
    assert_eq!(daemon.wait_for("job once was done before").matches("answered again").count(), 1);

    request(&broker, r#"{"id": "once", "steps": 6, "count": 2}"#);
    let error = subscriber.on("denoised/test/error/once").json();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("conflict"), Some("id")));

    // After a restart it is still known.
    daemon.kill();
    let spool = Arc::clone(&daemon.spool);
    let _daemon = Daemon::with_spool(&config(&broker, ""), &spool);
    subscriber.phase("ready");
    request(&broker, job);
    assert_eq!(subscriber.next(|m| is_result(m, "once")).payload, first.payload);
    assert_eq!(images(&subscriber), drawn);
}

#[test]
fn a_stopping_daemon_leaves_what_it_cannot_finish_for_the_next_start() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let hasty = "[limits]\ndrain_s = 0\n";
    let mut daemon = Daemon::start(&config(&broker, hasty));
    subscriber.phase("ready");
    request(&broker, r#"{"id": "left", "steps": 1000, "sampler": "ddpm", "count": 64, "seed": 3}"#);
    subscriber.on("denoised/test/progress/left");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    daemon.wait_for("1 jobs are left for the next start");
    let spool = Arc::clone(&daemon.spool);
    let _daemon = Daemon::with_spool(&config(&broker, ""), &spool);
    subscriber.next(|m| is_result(m, "left"));
    assert_eq!(images(&subscriber).len(), 64);
}

#[test]
fn two_daemons_share_a_queue_and_each_request_is_done_once() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/#");
    let queue = "[limits]\nqueue = 1000\n";
    let shared = |node: &str| {
        let text = configuration(&broker, node, &[&golden("gaussian")], queue);
        text.replace("[mqtt]\n", "[mqtt]\nshared_queue = \"$share/denoised/denoised/request\"\n")
    };
    let _a = Daemon::start(&shared("a"));
    let _b = Daemon::start(&shared("b"));
    for node in ["a", "b"] {
        let topic = format!("denoised/{node}/state");
        if !subscriber.seen.iter().any(|m| m.topic == topic && m.json()["phase"] == "ready") {
            subscriber.next(|m| m.topic == topic && m.json()["phase"] == "ready");
        }
    }
    for job in 0..20 {
        publish(&broker, "denoised/request", &format!(r#"{{"id": "s{job}", "steps": 3, "seed": 1}}"#), &[]);
    }
    let is_done = |m: &Received| m.topic.contains("/result/");
    while subscriber.seen.iter().filter(|m| is_done(m)).count() < 20 {
        subscriber.next(is_done);
    }
    let mut by_node: BTreeMap<String, usize> = BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    for result in subscriber.seen.iter().filter(|m| is_done(m)) {
        let parts: Vec<_> = result.topic.split('/').collect();
        *by_node.entry(parts[1].to_owned()).or_default() += 1;
        assert!(ids.insert(parts[3].to_owned()), "{} was done twice", parts[3]);
    }
    assert_eq!(ids.len(), 20);
    assert_eq!(by_node.len(), 2, "{by_node:?}");
}

#[test]
fn sighup_changes_limits_and_names_what_needs_a_restart() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.phase("ready");
    let path = daemon.configuration.clone();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}\n[limits]\nsteps = 7\n[spool]\nkeep_s = 5\n")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for("but [spool] only after a restart");
    request(&broker, r#"{"id": "many", "steps": 8}"#);
    let error = subscriber.on("denoised/test/error/many").json();
    assert!(error["message"].as_str().unwrap().contains("between 1 and 7"), "{error}");

    std::fs::write(&path, "[limits]\nsteps = \"many\"\n").unwrap();
    daemon.signal("HUP");
    let line = daemon.wait_for("keeping the present configuration");
    assert!(line.contains("limits.steps"), "{line}");
}

fn store(directory: &TempDir, max_bytes: u64, keep_s: u64) -> Store {
    Store::open(directory.path(), max_bytes, keep_s, &CompletedJobs::default()).unwrap()
}

fn image(id: &str, index: usize, size: usize) -> Message {
    let user = [("type", "image".to_owned()), ("id", id.to_owned()), ("index", index.to_string())];
    let user = user.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Message { user, ..Message::new("t/image".to_owned(), vec![7; size]) }
}

fn accepted(id: &str) -> AcceptedJob {
    AcceptedJob { id: id.to_owned(), digest: "d".to_owned(), request: serde_json::json!({}), reply: None }
}

#[test]
fn a_file_that_is_no_spool_is_set_aside_and_the_daemon_starts() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("spool.redb"), b"precious notes of somebody else").unwrap();
    let mut fresh = store(&directory, 1 << 20, 60);
    fresh.write(&[Change::Accept(accepted("a"))]).unwrap();
    assert_eq!(fresh.jobs().unwrap().len(), 1);
    let aside = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains("set-aside")).collect();
    assert_eq!(std::fs::read(&aside[0]).unwrap(), b"precious notes of somebody else");
    // Somebody else's hold on the file is no reason to set it aside.
    let error = Store::open(directory.path(), 1, 1, &CompletedJobs::default()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
}

#[test]
fn answers_are_kept_within_the_bound_and_what_is_owed_is_never_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = CompletedJobs::default();
    let mut kept = Store::open(directory.path(), 10_000, 3600, &ledger).unwrap();
    for job in 0..10 {
        let id = format!("j{job}");
        let changes = [
            Change::Accept(accepted(&id)),
            Change::Send(image(&id, 0, 2_000)),
            Change::Finish { id: id.clone() },
        ];
        kept.write(&changes).unwrap();
        ledger.insert(&id, "d");
    }
    // Nothing was delivered: all of it is owed, beyond the bound too.
    assert_eq!(kept.pending_after(0, 100).unwrap().len(), 10);
    assert!(kept.pending_bytes() > 20_000);
    for number in kept.pending_after(0, 100).unwrap() {
        kept.write(&[Change::Delivered(number)]).unwrap();
    }
    assert_eq!(kept.pending_bytes(), 0);
    let known: Vec<_> =
        (0..10).filter(|job| ledger.was_done(&format!("j{job}"), "d") == Some(true)).collect();
    assert!((1..=5).contains(&known.len()) && known.contains(&9), "{known:?}");
    // A repeat makes them pending again, once.
    let change = Change::Repeat { id: "j9".to_owned(), reply: None };
    let again = kept.write(&[change.clone(), change]).unwrap();
    assert_eq!(again.len(), 2);
    assert_eq!(kept.pending_after(0, 100).unwrap().len(), 1);
}

#[test]
fn a_job_that_was_interrupted_before_its_first_image_is_answered_again_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    store(&directory, 1 << 20, 60).write(&[Change::Accept(accepted("a"))]).unwrap();
    let mut second = store(&directory, 1 << 20, 60);
    second.write(&[Change::Send(image("a", 0, 10)), Change::Finish { id: "a".to_owned() }]).unwrap();
    let number = second.pending_after(0, 1).unwrap()[0];
    second.write(&[Change::Delivered(number)]).unwrap();
    assert!(second.pending_after(0, 1).unwrap().is_empty());
    let again = second.write(&[Change::Repeat { id: "a".to_owned(), reply: None }]).unwrap();
    assert_eq!(again, [number]);
}

#[test]
fn an_image_that_is_spooled_already_is_not_spooled_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = store(&directory, 1 << 20, 60);
    first.write(&[Change::Accept(accepted("a")), Change::Send(image("a", 0, 10))]).unwrap();
    drop(first);
    let mut second = store(&directory, 1 << 20, 60);
    assert_eq!(second.jobs().unwrap()[0].id, "a");
    second.write(&[Change::Send(image("a", 0, 10)), Change::Send(image("a", 1, 10))]).unwrap();
    assert_eq!(second.pending_after(0, 100).unwrap().len(), 2);
    second.write(&[Change::Forget("a".to_owned())]).unwrap();
    assert_eq!((second.jobs().unwrap().len(), second.pending_after(0, 100).unwrap().len()), (0, 2));
}
