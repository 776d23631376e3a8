//! A child process that runs a task for each line on its stdin, and prints the seconds that the task took.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The process, which is stopped when this value is dropped.
pub struct TimedProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl TimedProcess {
    /// Starts the schedulers of diffusers, if `benches/run` found a Python with diffusers.
    pub fn diffusers_schedulers() -> Option<Self> {
        let mut command = Command::new(std::env::var_os("DENOISED_BENCH_PYTHON")?);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/schedulers.py"));
        Some(Self::from_command(command))
    }

    /// Starts a process, and waits for the line that it prints when it is ready.
    pub fn from_command(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, stdout };
        process.read_line();
        process
    }

    /// Runs a task, and returns its seconds.
    pub fn run(&mut self, task: &str) -> f64 {
        writeln!(self.child.stdin.as_mut().unwrap(), "{task}").unwrap();
        self.read_line().trim().parse().unwrap()
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for TimedProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Returns a value of /proc/PID/status in MiB, or 0 if it is missing.
pub fn memory_mib(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
