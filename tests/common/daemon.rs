//! The daemon as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use tempfile::TempDir;

use super::broker::Broker;
use super::commands::{ChildGuard, TIMEOUT, denoised};

/// A running daemon and its log.
pub struct Daemon {
    pub process: ChildGuard,
    lines: Receiver<String>,
    /// The lines that were read so far.
    pub log: Vec<String>,
    pub spool: Arc<TempDir>,
    pub configuration: PathBuf,
}

impl Daemon {
    /// Starts it with the text of a configuration and an empty spool.
    pub fn start(configuration: &str) -> Self {
        Self::with_spool(configuration, &Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Starts it with the spool of an earlier run.
    pub fn with_spool(configuration: &str, spool: &Arc<TempDir>) -> Self {
        let mut daemon = Self::with_spool_path(configuration, spool.path());
        daemon.spool = Arc::clone(spool);
        daemon
    }

    /// Starts it with further environment variables and an empty spool.
    pub fn with_variables(configuration: &str, variables: &[(&str, String)]) -> Self {
        let spool = Arc::new(tempfile::tempdir().unwrap());
        let mut daemon = Self::launch(configuration, spool.path(), variables);
        daemon.spool = spool;
        daemon
    }

    /// Starts it with its spool in this directory.
    pub fn with_spool_path(configuration: &str, spool: &Path) -> Self {
        Self::launch(configuration, spool, &[])
    }

    /// Starts it with its spool in this directory and further environment variables.
    pub fn launch(configuration: &str, spool: &Path, variables: &[(&str, String)]) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, configuration.as_bytes()).unwrap();
        let (_, path) = file.keep().unwrap();
        let mut command = denoised();
        command.arg("run").arg("--config").arg(&path).env("RUST_LOG", "info");
        command.env("DENOISED_SPOOL__PATH", spool).envs(variables.iter().cloned());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = sync_channel(10_000);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let configuration = path.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
            let _ = std::fs::remove_file(path);
        });
        let spool = Arc::new(tempfile::tempdir().unwrap());
        Self { process: ChildGuard { child }, lines, log: Vec::new(), spool, configuration }
    }

    /// Kills it with SIGKILL, so that it cannot clean up.
    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Reads the log until a line contains this text. Returns the line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(remaining) {
                Ok(line) => {
                    self.log.push(line.clone());
                    assert!(!line.contains("panicked"), "{line}");
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{error} before {text:?} was logged; the log so far: {:#?}", self.log),
            }
        }
    }

    /// Returns all lines that were logged so far.
    pub fn log_so_far(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        assert!(!self.log.iter().any(|line| line.contains("panicked")), "{:#?}", self.log);
        &self.log
    }

    /// Returns how many of the lines logged so far contain this text.
    pub fn count(&mut self, text: &str) -> u64 {
        self.log_so_far().iter().filter(|line| line.contains(text)).count() as u64
    }

    /// Sends SIGTERM, and returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let id = self.process.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.process.child.wait().unwrap().code()
    }
}

/// Returns the configuration of a daemon named `node`, with further lines.
pub fn configuration(broker: &Broker, node: &str, models: &[&Path], more: &str) -> String {
    let paths: Vec<_> = models.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    format!(
        "node = \"{node}\"\n[mqtt]\nurl = \"{}\"\n[models]\npaths = [{}]\n{more}\n",
        broker.url(),
        paths.join(", ")
    )
}
