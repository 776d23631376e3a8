//! A real socket in the place of systemd's.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::daemon::{Daemon, PATIENCE};

/// A service manager's end of the line.
pub struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { socket, directory }
    }

    /// A daemon under it, that must say every two seconds that it lives.
    pub fn daemon(&self, configuration: &str) -> Daemon {
        Daemon::with_variables(configuration, &self.variables())
    }

    /// The same, with its spool in this directory.
    pub fn daemon_on(&self, configuration: &str, spool: &Path) -> Daemon {
        Daemon::launch(configuration, spool, &self.variables())
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        let path = self.directory.path().join("notify");
        [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "2000000".to_owned())]
    }

    /// The next lines that come within so long.
    pub fn hear(&self, patience: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// All lines up to one that begins so.
    pub fn until(&self, start: &str) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut heard: Vec<String> = Vec::new();
        while !heard.iter().any(|line| line.starts_with(start)) {
            assert!(Instant::now() < until, "{start} was not told; what was: {heard:?}");
            heard.extend(self.hear(Duration::from_secs(1)));
        }
        heard
    }
}
