//! Another process that does as each line on its stdin says and answers with the seconds that it took.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The process.
pub struct Peer {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// diffusers' schedulers, where `benches/run` found a Python that has them.
    pub fn start() -> Option<Self> {
        let mut command = Command::new(std::env::var_os("DENOISED_BENCH_PYTHON")?);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/schedulers.py"));
        Some(Self::of(command))
    }

    /// A process that says a line when it is ready.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, answers };
        peer.line();
        peer
    }

    /// Have something done.
    pub fn seconds(&mut self, what: &str) -> f64 {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.line().trim().parse().unwrap()
    }

    /// The process's number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A line of /proc/PID/status, in MiB.
pub fn figure(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
