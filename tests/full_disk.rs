//! A real disk without a free byte under the spool.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::daemon::{Broker, Daemon, Subscriber, configuration, publish};
use common::golden;
use common::small_disk::SmallDisk;

fn config(broker: &Broker) -> String {
    configuration(broker, "test", &[&golden("gaussian")], "")
}

fn request(broker: &Broker, id: &str, more: &str) {
    let json = format!(r#"{{"id": "{id}", "seed": 1, "count": 2{more}}}"#);
    publish(broker, "denoised/test/request", &json, &[]);
}

fn files(disk: &SmallDisk) -> BTreeSet<String> {
    let entries = std::fs::read_dir(disk.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn nothing_goes_on_while_the_disk_is_full_and_everything_after() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(8));
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::on_disk(&config(&broker), disk.path());
    subscriber.phase("ready");
    request(&broker, "before", r#", "steps": 3"#);
    subscriber.on("denoised/test/result/before");
    request(&broker, "amid", r#", "steps": 1000, "sampler": "ddpm""#);
    subscriber.on("denoised/test/progress/amid");
    disk.fill();
    for job in 0..20 {
        request(&broker, &format!("full{job}"), r#", "steps": 3"#);
    }
    // Twice: the file was opened again in between, and is as full as before.
    for _ in 0..2 {
        let line = daemon.wait_for("the spool can't be written, nothing goes on until it can");
        assert!(line.contains("No space left on device"), "{line}");
    }
    subscriber.drain();
    assert!(!subscriber.seen.iter().any(|m| m.topic.contains("/result/full")));
    disk.free();
    let mut missing: BTreeSet<String> = (0..20).map(|job| format!("full{job}")).collect();
    missing.insert("amid".to_owned());
    while !missing.is_empty() {
        let result = subscriber.next(|m| m.topic.contains("/result/"));
        missing.remove(result.topic.rsplit('/').next().unwrap());
    }
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(files(&disk), BTreeSet::from(["spool.redb".to_owned()]));
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_waits_for_room_and_loses_nothing() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(8));
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::on_disk(&config(&broker), disk.path());
    subscriber.phase("ready");
    request(&broker, "long", r#", "steps": 1000, "sampler": "ddpm""#);
    subscriber.on("denoised/test/progress/long");
    daemon.kill();
    disk.fill();
    let mut second = Daemon::on_disk(&config(&broker), disk.path());
    second.wait_for("the spool can't be written, nothing goes on until it can");
    disk.free();
    subscriber.on("denoised/test/result/long");
    assert_eq!(files(&disk), BTreeSet::from(["spool.redb".to_owned()]));
}

#[test]
fn a_daemon_without_room_for_a_spool_says_so_and_waits_for_it() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(4));
    disk.fill();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::on_disk(&config(&broker), disk.path());
    let line = daemon.wait_for("No space left on device");
    assert!(line.contains("spool.path") && line.contains("make room"), "{line}");
    disk.free();
    subscriber.phase("ready");
    assert_eq!(daemon.terminate(), Some(0));
    // One that is told to stop while it waits does.
    disk.fill();
    std::fs::remove_file(disk.path().join("spool.redb")).unwrap();
    disk.fill();
    let mut daemon = Daemon::on_disk(&config(&broker), disk.path());
    daemon.wait_for("No space left on device");
    assert_eq!(daemon.terminate(), Some(0));
}
