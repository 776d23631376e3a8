//! What the daemon reports to systemd, received by a socket in its place; and the unit file.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::broker::{Broker, publish};
use crate::common::commands::onnxruntime;
use crate::common::daemon::{Daemon, configuration};
use crate::common::small_disk::SmallDisk;
use crate::common::subscriber::Subscriber;
use crate::common::systemd_notify::NotifySocket;
use crate::common::{golden, repository};

/// Runs systemd-analyze on the unit, with /bin/true in place of the daemon. Returns whether it succeeds, and its output.
fn analyze(arguments: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(repository().join("systemd/denoised.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/denoised run "));
    let file = directory.path().join("denoised.service");
    std::fs::write(&file, unit.replace("/usr/bin/denoised run", "/bin/true run")).unwrap();
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&file)
        .output()
        .expect("cannot run systemd-analyze; run the tests with tests/run, which installs it");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

#[test]
fn the_unit_is_valid_and_its_exposure_is_at_most_2_5() {
    assert_eq!(analyze(&["verify", "--man=no"]), (true, String::new()));
    let (within, text) = analyze(&["security", "--offline=true", "--threshold=25"]);
    assert!(within, "{text}");
}

#[test]
fn the_password_is_read_from_a_credential_and_not_logged() {
    let broker = Broker::with_files(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {dir}/users\n",
        &[("users", &hashed("board", "open sesame"))],
    );
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("mqtt-password"), "open sesame\n").unwrap();
    let text = configuration(&broker, "test", &[&golden("gaussian")], "");
    let text = text.replace("[mqtt]\n", "[mqtt]\nusername = \"board\"\n");
    let variables = [("CREDENTIALS_DIRECTORY", credentials.path().display().to_string())];
    let mut daemon = Daemon::with_variables(&text, &variables);
    daemon.wait_for("connected to the broker");
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(daemon.count("sesame"), 0);
    // Without the credential the broker refuses the connection.
    let mut daemon = Daemon::start(&text);
    daemon.wait_for("the broker refused the connection");
}

/// Returns a line of mosquitto's password file.
fn hashed(user: &str, password: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["-b", "-c", &file.path().display().to_string(), user, password];
    let status = Command::new("mosquitto_passwd").args(arguments).status();
    assert!(status.expect("cannot run mosquitto_passwd, which is part of mosquitto").success());
    std::fs::read_to_string(file.path()).unwrap()
}

#[test]
fn ready_is_reported_after_the_warm_up_and_stopping_at_the_end() {
    let (broker, systemd) = (Broker::start(), NotifySocket::new());
    let mut daemon = systemd.start_daemon(&configuration(&broker, "test", &[&golden("gaussian")], ""));
    daemon.wait_for("model gaussian runs on");
    systemd.wait_for("READY=1");
    let lines = systemd.wait_for("STATUS=ready");
    assert!(lines.contains(&"STATUS=ready; gaussian on cpu".to_owned()), "{lines:?}");
    for _ in 0..3 {
        systemd.wait_for("WATCHDOG=1");
    }
    daemon.signal("TERM");
    systemd.wait_for("STOPPING=1");
    assert_eq!(daemon.process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_daemon_without_a_broker_is_ready_and_feeds_the_watchdog() {
    let systemd = NotifySocket::new();
    let broker = Broker::start();
    let text = configuration(&broker, "test", &[&golden("gaussian")], "");
    drop(broker);
    let mut daemon = systemd.start_daemon(&text);
    systemd.wait_for("READY=1");
    let status = "STATUS=models ready, waiting for the broker; gaussian on cpu".to_owned();
    assert!(systemd.wait_for("WATCHDOG=1").contains(&status));
    // The log and the status had that requests are accepted, and the refused connection had its cause twice.
    daemon.wait_for("the models are ready; waiting for the broker at mqtt://127.0.0.1:");
    daemon.wait_for(": nothing listens on this port; start the broker, or correct mqtt.url; next try in");
    assert_eq!(daemon.count("requests are accepted"), 0);
}

#[test]
fn a_daemon_that_waits_for_disk_space_extends_its_start_timeout() {
    let (broker, systemd, disk) = (Broker::start(), NotifySocket::new(), SmallDisk::new(4));
    disk.fill();
    let _daemon = systemd
        .start_daemon_with_spool(&configuration(&broker, "test", &[&golden("gaussian")], ""), disk.path());
    systemd.wait_for("STATUS=waiting for room on the disk");
    for _ in 0..2 {
        systemd.wait_for("EXTEND_TIMEOUT_USEC=");
    }
    disk.free();
    systemd.wait_for("READY=1");
}

#[test]
fn a_stuck_worker_does_not_feed_the_watchdog() {
    let (broker, systemd) = (Broker::start(), NotifySocket::new());
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cpu\"]",
        onnxruntime().display().to_string()
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = systemd.start_daemon(&configuration(&broker, "test", &[&golden("endless")], &engine));
    subscriber.wait_for_phase("ready");
    systemd.wait_for("WATCHDOG=1");
    publish(&broker, "denoised/test/request", r#"{"id": "stuck", "steps": 3}"#, &[]);
    daemon.wait_for("job stuck:");
    // The connection to the broker and the state messages continue; only the watchdog is not fed.
    let end = Instant::now() + Duration::from_secs(6);
    let mut fed = 0;
    while Instant::now() < end {
        fed += systemd.receive(Duration::from_secs(1)).iter().filter(|line| *line == "WATCHDOG=1").count();
    }
    assert!(fed <= 2, "a stuck worker fed the watchdog {fed} times in six seconds");
    subscriber.next(|m| m.topic.ends_with("/state") && m.json()["queue"] == 1);
}
