//! What a service manager sees: a real socket takes its place.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::golden;
use common::program::{Broker, Daemon, PATIENCE, Subscriber, configuration, onnxruntime, publish};
use tempfile::TempDir;

/// A service manager's end of the line.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { socket, directory }
    }

    /// A daemon under it, that must say every two seconds that it lives.
    fn daemon(&self, configuration: &str) -> Daemon {
        let path = self.directory.path().join("notify");
        let variables =
            [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "2000000".to_owned())];
        Daemon::with_variables(configuration, &variables)
    }

    /// The next lines that come within so long.
    fn hear(&self, patience: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// All lines up to one that begins so.
    fn until(&self, start: &str) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut heard: Vec<String> = Vec::new();
        while !heard.iter().any(|line| line.starts_with(start)) {
            assert!(Instant::now() < until, "{start} was not told; what was: {heard:?}");
            heard.extend(self.hear(Duration::from_secs(1)));
        }
        heard
    }
}

#[test]
fn ready_is_told_after_the_models_are_warm_and_stopping_at_the_end() {
    let (broker, manager) = (Broker::start(), Manager::start());
    let mut daemon = manager.daemon(&configuration(&broker, "test", &[&golden("gaussian")], ""));
    manager.until("READY=1");
    assert!(daemon.count("model gaussian runs on") == 1, "ready before the model was warm");
    let heard = manager.until("STATUS=ready");
    assert!(heard.contains(&"STATUS=ready; gaussian on cpu".to_owned()), "{heard:?}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    daemon.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(daemon.running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_daemon_without_a_broker_is_ready_and_alive_all_the_same() {
    let manager = Manager::start();
    let broker = Broker::start();
    let text = configuration(&broker, "test", &[&golden("gaussian")], "");
    drop(broker);
    let _daemon = manager.daemon(&text);
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
}

#[test]
fn a_worker_that_is_stuck_no_longer_feeds_the_watchdog() {
    let (broker, manager) = (Broker::start(), Manager::start());
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cpu\"]",
        onnxruntime().display().to_string()
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = manager.daemon(&configuration(&broker, "test", &[&golden("endless")], &engine));
    subscriber.phase("ready");
    manager.until("WATCHDOG=1");
    publish(&broker, "denoised/test/request", r#"{"id": "stuck", "steps": 3}"#, &[]);
    daemon.wait_for("job stuck:");
    // The broker's connection and the state go on; the watchdog starves.
    let until = Instant::now() + Duration::from_secs(6);
    let mut fed = 0;
    while Instant::now() < until {
        fed += manager.hear(Duration::from_secs(1)).iter().filter(|line| *line == "WATCHDOG=1").count();
    }
    assert!(fed <= 2, "a stuck worker fed the watchdog {fed} times in six seconds");
    subscriber.next(|m| m.topic.ends_with("/state") && m.json()["queue"] == 1);
}
