//! The spool on a full disk.

use std::collections::BTreeSet;

use crate::common::broker::{Broker, publish};
use crate::common::commands::denoised;
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::small_disk::SmallDisk;
use crate::common::subscriber::Subscriber;
use crate::doctor::{about, findings};

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
fn nothing_is_acknowledged_while_the_disk_is_full_and_all_jobs_finish_afterwards() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(8));
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::with_spool_path(&config(&broker), disk.path());
    subscriber.wait_for_phase("ready");
    request(&broker, "before", r#", "steps": 3"#);
    subscriber.on("denoised/test/result/before");
    request(&broker, "running", r#", "steps": 1000, "sampler": "ddpm""#);
    subscriber.on("denoised/test/progress/running");
    disk.fill();
    for job in 0..20 {
        request(&broker, &format!("full{job}"), r#", "steps": 3"#);
    }
    // Twice, because the file is opened again after the first error.
    for _ in 0..2 {
        let line = daemon.wait_for("cannot write to the spool, retrying until it succeeds");
        assert!(line.contains("No space left on device"), "{line}");
    }
    subscriber.drain();
    assert!(!subscriber.seen.iter().any(|m| m.topic.contains("/result/full")));
    disk.free();
    let mut missing: BTreeSet<String> = (0..20).map(|job| format!("full{job}")).collect();
    missing.insert("running".to_owned());
    while !missing.is_empty() {
        let result = subscriber.next(|m| m.topic.contains("/result/"));
        missing.remove(result.topic.rsplit('/').next().unwrap());
    }
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(files(&disk), BTreeSet::from(["client-ids", "spool.redb", "topic-root"].map(str::to_owned)));
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_waits_for_space_and_loses_nothing() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(8));
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::with_spool_path(&config(&broker), disk.path());
    subscriber.wait_for_phase("ready");
    request(&broker, "long", r#", "steps": 1000, "sampler": "ddpm""#);
    subscriber.on("denoised/test/progress/long");
    daemon.kill();
    disk.fill();
    let mut second = Daemon::with_spool_path(&config(&broker), disk.path());
    second.wait_for("cannot write to the spool, retrying until it succeeds");
    disk.free();
    subscriber.on("denoised/test/result/long");
    assert_eq!(files(&disk), BTreeSet::from(["client-ids", "spool.redb", "topic-root"].map(str::to_owned)));
}

#[test]
fn a_daemon_without_space_for_a_new_spool_reports_it_and_waits() {
    let (broker, disk) = (Broker::start(), SmallDisk::new(4));
    disk.fill();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::with_spool_path(&config(&broker), disk.path());
    let line = daemon.wait_for("No space left on device");
    assert!(line.contains("spool.path") && line.contains("free space"), "{line}");
    disk.free();
    subscriber.wait_for_phase("ready");
    assert_eq!(daemon.terminate(), Some(0));
    // A daemon that is stopped while it waits ends.
    disk.fill();
    std::fs::remove_file(disk.path().join("spool.redb")).unwrap();
    disk.fill();
    let mut daemon = Daemon::with_spool_path(&config(&broker), disk.path());
    daemon.wait_for("No space left on device");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn doctor_called_a_full_disk_good() {
    let disk = SmallDisk::new(4);
    disk.fill();
    let doctor = || {
        let mut command = denoised();
        command.env("DENOISED_ENGINE__KIND", "embedded").env("DENOISED_SPOOL__PATH", disk.path());
        about(&findings(&mut command).0, "spool.path").clone()
    };
    let found = doctor();
    let text = format!("{} has no room", disk.path().display());
    assert_eq!(found["found"], text);
    assert_eq!(found["next"], "free space on this disk, or set spool.path to another directory");
    disk.free();
    assert_eq!(doctor()["state"], "good");
}
