//! No message is lost if the daemon, the broker or the disk fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::broker::{Broker, publish};
use crate::common::daemon::{Daemon, configuration};
use crate::common::fault_proxy::FaultProxy;
use crate::common::golden;
use crate::common::subscriber::{Received, Subscriber};
use crate::common::thermal::{pause_config, set_temperature};
use denoised::mqtt::Message;
use denoised::spool::{AcceptedJob, Change, CompletedJobs, SpoolError, SpoolSettings, Store};
use tempfile::TempDir;

const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_interval 1\n";

fn config(broker: &Broker, more: &str) -> String {
    configuration(broker, "test", &[&golden("gaussian")], more)
}

fn request(broker: &Broker, json: &str) {
    publish(broker, "denoised/test/request", json, &[]);
}

/// Returns the images by id and index, and checks that repeats are equal.
fn images(subscriber: &Subscriber) -> BTreeMap<(String, String), Vec<u8>> {
    let mut images = BTreeMap::new();
    for image in subscriber.seen.iter().filter(|m| m.topic == "denoised/test/image" && !m.retained) {
        let key = (image.user["id"].clone(), image.user["index"].clone());
        let before = images.insert(key, image.payload.clone());
        assert!(before.is_none_or(|before| before == image.payload), "a repeated image differs");
    }
    images
}

fn is_result(message: &Received, id: &str) -> bool {
    message.topic == format!("denoised/test/result/{id}")
}

#[test]
fn a_job_interrupted_by_sigkill_finishes_after_the_next_start_with_the_same_bytes() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.wait_for_phase("ready");
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
        let image_of = |id: &str| &all[&(id.to_owned(), index.to_string())];
        assert_eq!(image_of("long"), image_of("whole"), "image {index}");
    }
}

#[test]
fn a_random_seed_is_stored_before_the_request_is_acknowledged() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // Several seconds of work, so that the job is not finished when the daemon is killed.
    let text = config(&broker, "[limits]\ncount = 1000\n");
    let mut daemon = Daemon::start(&text);
    subscriber.wait_for_phase("ready");
    request(&broker, r#"{"id": "open", "steps": 1000, "sampler": "ddpm", "count": 1000}"#);
    let line = daemon.wait_for("job open:");
    subscriber.on("denoised/test/progress/open");
    daemon.kill();
    let spool = Arc::clone(&daemon.spool);
    let mut daemon = Daemon::with_spool(&text, &spool);
    let second_line = daemon.wait_for("job open:");
    let job = |line: &str| line[line.find("job open").unwrap()..].to_owned();
    assert_eq!(job(&line), job(&second_line));
}

#[test]
fn images_sampled_while_the_broker_is_down_arrive_in_order_after_it_restarts() {
    let mut broker = Broker::with_config(PERSISTENT);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // The board is too hot to sample, so that no job starts before the broker is down.
    let board = tempfile::tempdir().unwrap();
    set_temperature(board.path(), 90);
    // The daemon reconnects only after the subscriber has.
    let proxy = FaultProxy::new(broker.port);
    let proxied_url = format!("mqtt://127.0.0.1:{}", proxy.port);
    let text = config(&broker, &pause_config(board.path())).replace(&broker.url(), &proxied_url);
    let mut daemon = Daemon::start(&text);
    subscriber.wait_for_phase("ready");
    for job in 0..20 {
        request(
            &broker,
            &format!(r#"{{"id": "j{job}", "steps": 200, "sampler": "ddpm", "count": 8, "seed": {job}}}"#),
        );
    }
    daemon.wait_for("job j19:");
    proxy.set_stalled(true);
    broker.kill();
    set_temperature(board.path(), 40);
    daemon.wait_for("job j19 finished");
    broker.run();
    let mut late = Subscriber::start(&broker, "denoised/test/#");
    proxy.set_stalled(false);
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
                let is_image =
                    m.user.get("id") == Some(&id) && m.user.get("index") == Some(&index.to_string());
                m.topic.ends_with("/image") && !m.retained && is_image
            });
            assert!(
                image.is_some_and(|image| image < result),
                "image {index} of {id} did not arrive before its result"
            );
        }
    }
}

#[test]
fn a_repeated_request_is_answered_with_the_same_bytes_and_another_request_with_its_id_is_rejected() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.wait_for_phase("ready");
    let job = r#"{"id": "once", "steps": 5, "count": 2}"#;
    request(&broker, job);
    let first = subscriber.next(|m| is_result(m, "once"));
    let first_images = images(&subscriber);
    request(&broker, job);
    let repeated = subscriber.next(|m| is_result(m, "once"));
    assert_eq!(first.payload, repeated.payload);
    assert_eq!(images(&subscriber), first_images);
    assert_eq!(daemon.wait_for("job once is finished already").matches("results again").count(), 1);

    request(&broker, r#"{"id": "once", "steps": 6, "count": 2}"#);
    let error = subscriber.on("denoised/test/error/once").json();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("conflict"), Some("id")));

    // The job is still known after a restart.
    daemon.kill();
    let spool = Arc::clone(&daemon.spool);
    let _daemon = Daemon::with_spool(&config(&broker, ""), &spool);
    subscriber.wait_for_phase("ready");
    request(&broker, job);
    assert_eq!(subscriber.next(|m| is_result(m, "once")).payload, first.payload);
    assert_eq!(images(&subscriber), first_images);
}

#[test]
fn jobs_that_a_stopping_daemon_cannot_finish_run_after_the_next_start() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // More than a second of work, so that the job is not finished when the daemon stops.
    let no_drain = "[limits]\ndrain_s = 0\ncount = 256\n";
    let mut daemon = Daemon::start(&config(&broker, no_drain));
    subscriber.wait_for_phase("ready");
    request(&broker, r#"{"id": "left", "steps": 1000, "sampler": "ddpm", "count": 256, "seed": 3}"#);
    subscriber.on("denoised/test/progress/left");
    assert_eq!(daemon.terminate(), Some(0));
    subscriber.next(|m| m.topic == "denoised/test/status" && m.payload == b"offline");
    daemon.wait_for("keeping 1 unfinished job");
    let spool = Arc::clone(&daemon.spool);
    let _daemon = Daemon::with_spool(&config(&broker, no_drain), &spool);
    subscriber.next(|m| is_result(m, "left"));
    assert_eq!(images(&subscriber).len(), 256);
}

#[test]
fn two_daemons_share_a_queue_and_each_request_runs_once() {
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
        assert!(ids.insert(parts[3].to_owned()), "{} ran twice", parts[3]);
    }
    assert_eq!(ids.len(), 20);
    assert_eq!(by_node.len(), 2, "{by_node:?}");
}

#[test]
fn sighup_applies_limits_and_logs_which_sections_need_a_restart() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&config(&broker, ""));
    subscriber.wait_for_phase("ready");
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

fn settings(directory: &TempDir, max_bytes: u64, keep_s: u64) -> SpoolSettings {
    SpoolSettings { path: directory.path().to_owned(), max_bytes, keep_s }
}

fn store(directory: &TempDir, max_bytes: u64, keep_s: u64) -> Store {
    Store::open(&settings(directory, max_bytes, keep_s), &CompletedJobs::default()).unwrap()
}

fn image(id: &str, index: usize, size: usize) -> Message {
    let user_properties = [("type", "image".to_owned()), ("id", id.to_owned()), ("index", index.to_string())];
    let user_properties = user_properties.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Message { user_properties, ..Message::new("t/image".to_owned(), vec![7; size]) }
}

fn accepted(id: &str) -> AcceptedJob {
    AcceptedJob { id: id.to_owned(), digest: "d".to_owned(), request: serde_json::json!({}), reply: None }
}

#[test]
fn a_file_that_is_not_a_spool_is_renamed_and_a_new_one_is_created() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("spool.redb"), b"not a spool").unwrap();
    let mut fresh = store(&directory, 1 << 20, 60);
    fresh.write(&[Change::Accept(accepted("a"))]).unwrap();
    assert_eq!(fresh.jobs().unwrap().len(), 1);
    let renamed = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let renamed: Vec<_> = renamed.filter(|path| path.to_string_lossy().contains("set-aside")).collect();
    assert_eq!(std::fs::read(&renamed[0]).unwrap(), b"not a spool");
    // A spool that is locked by another process is not renamed.
    let error = Store::open(&settings(&directory, 1, 1), &CompletedJobs::default()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
}

#[test]
fn answers_are_evicted_over_the_size_limit_and_pending_messages_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let completed = CompletedJobs::default();
    let mut store = Store::open(&settings(&directory, 10_000, 3600), &completed).unwrap();
    for job in 0..10 {
        let id = format!("j{job}");
        let changes = [
            Change::Accept(accepted(&id)),
            Change::Send(image(&id, 0, 2_000)),
            Change::Finish { id: id.clone() },
        ];
        store.write(&changes).unwrap();
    }
    // No message was delivered, so all are pending, although they exceed the limit.
    assert_eq!(store.pending_after(0, 100).unwrap().len(), 10);
    assert!(store.pending_bytes() > 20_000);
    for number in store.pending_after(0, 100).unwrap() {
        store.write(&[Change::Delivered(number)]).unwrap();
    }
    assert_eq!(store.pending_bytes(), 0);
    let is_kept = |job: &i32| completed.get(&format!("j{job}")).is_some_and(|job| job.has_digest("d"));
    let kept: Vec<_> = (0..10).filter(is_kept).collect();
    assert!((1..=5).contains(&kept.len()) && kept.contains(&9), "{kept:?}");
    // Redelivery makes the message pending once, although it is requested twice.
    let change = Change::Redeliver { id: "j9".to_owned(), reply: None };
    let redelivered = store.write(&[change.clone(), change]).unwrap();
    assert_eq!(redelivered.len(), 2);
    assert_eq!(store.pending_after(0, 100).unwrap().len(), 1);
}

#[test]
fn the_answers_of_a_job_that_was_interrupted_before_its_first_image_are_redelivered() {
    let directory = tempfile::tempdir().unwrap();
    store(&directory, 1 << 20, 60).write(&[Change::Accept(accepted("a"))]).unwrap();
    let mut second = store(&directory, 1 << 20, 60);
    second.write(&[Change::Send(image("a", 0, 10)), Change::Finish { id: "a".to_owned() }]).unwrap();
    let number = second.pending_after(0, 1).unwrap()[0];
    second.write(&[Change::Delivered(number)]).unwrap();
    assert!(second.pending_after(0, 1).unwrap().is_empty());
    let redelivered = second.write(&[Change::Redeliver { id: "a".to_owned(), reply: None }]).unwrap();
    assert_eq!(redelivered, [number]);
}

#[test]
fn an_image_that_is_already_stored_is_not_stored_twice() {
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
