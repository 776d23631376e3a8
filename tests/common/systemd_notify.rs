//! Receives the notifications that the daemon sends to systemd.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::commands::TIMEOUT;
use super::daemon::Daemon;

/// A socket in the place of systemd's `NOTIFY_SOCKET`.
pub struct NotifySocket {
    socket: UnixDatagram,
    directory: TempDir,
}

impl NotifySocket {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { socket, directory }
    }

    /// Starts a daemon with a watchdog timeout of two seconds.
    pub fn start_daemon(&self, configuration: &str) -> Daemon {
        Daemon::with_variables(configuration, &self.variables())
    }

    /// Starts such a daemon with its spool in this directory.
    pub fn start_daemon_with_spool(&self, configuration: &str, spool: &Path) -> Daemon {
        Daemon::launch(configuration, spool, &self.variables())
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        let path = self.directory.path().join("notify");
        [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "2000000".to_owned())]
    }

    /// Returns the lines of the next notification, or nothing after `timeout`.
    pub fn receive(&self, timeout: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(timeout)).unwrap();
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Waits for a line that starts with `start`, and returns all lines up to then.
    pub fn wait_for(&self, start: &str) -> Vec<String> {
        let deadline = Instant::now() + TIMEOUT;
        let mut received: Vec<String> = Vec::new();
        while !received.iter().any(|line| line.starts_with(start)) {
            assert!(Instant::now() < deadline, "no {start} was received, only {received:?}");
            received.extend(self.receive(Duration::from_secs(1)));
        }
        received
    }
}
