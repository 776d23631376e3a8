//! A real mosquitto, and mosquitto_pub.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::commands::{ChildGuard, TIMEOUT, free_port};

/// Debian installs mosquitto in a directory that an ordinary user's PATH does not contain.
fn mosquitto_program() -> &'static str {
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .unwrap_or("mosquitto")
}

/// A mosquitto on a free port.
pub struct Broker {
    pub port: u16,
    process: Option<ChildGuard>,
    configuration: PathBuf,
    _directory: TempDir,
}

impl Broker {
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// Starts it with further lines of configuration, in which `{dir}` is a temporary directory and `{port}` its port.
    pub fn with_config(more: &str) -> Self {
        Self::with_files(more, &[])
    }

    /// Starts it with further lines of configuration, and files in the temporary directory.
    pub fn with_files(more: &str, files: &[(&str, &str)]) -> Self {
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let configuration = directory.path().join("mosquitto.conf");
        let more = more.replace("{dir}", &directory.path().display().to_string());
        let listener = if more.contains("listener ") {
            more.replace("{port}", &port.to_string())
        } else {
            format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}")
        };
        std::fs::write(&configuration, listener).unwrap();
        // As root, mosquitto switches to another user, which writes to this directory.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let mut broker = Self { port, process: None, configuration, _directory: directory };
        broker.run();
        broker
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Starts the process and waits until it listens.
    pub fn run(&mut self) {
        let child = Command::new(mosquitto_program())
            .arg("-c")
            .arg(&self.configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot run mosquitto; run the tests with tests/run, which installs it");
        self.process = Some(ChildGuard { child });
        let deadline = Instant::now() + TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::yield_now();
        }
    }

    pub fn kill(&mut self) {
        self.process = None;
    }
}

/// Publishes with mosquitto_pub. Returns whether the broker accepted the message.
pub fn publish_to(port: u16, topic: &str, payload: &str) -> bool {
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &port.to_string(), "-q", "1", "-t", topic, "-m", payload])
        .stderr(Stdio::null())
        .status()
        .expect("cannot run mosquitto_pub; run the tests with tests/run, which installs it");
    status.success()
}

/// Publishes with mosquitto_pub and further arguments. The broker must accept the message.
pub fn publish(broker: &Broker, topic: &str, payload: &str, more: &[&str]) {
    let port = broker.port.to_string();
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &port, "-q", "1", "-t", topic, "-m", payload])
        .args(more)
        .status()
        .expect("cannot run mosquitto_pub; run the tests with tests/run, which installs it");
    assert!(status.success());
}

/// Publishes bytes with mosquitto_pub and further arguments. The broker must accept the message.
pub fn publish_bytes(broker: &Broker, topic: &str, payload: &[u8], more: &[&str]) {
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &broker.port.to_string(), "-q", "1", "-s", "-t", topic])
        .args(more)
        .stdin(Stdio::piped())
        .spawn()
        .expect("cannot run mosquitto_pub; run the tests with tests/run, which installs it");
    publisher.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(publisher.wait().unwrap().success());
}
