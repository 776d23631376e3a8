//! The real program, a real mosquitto, and real clients.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{golden, repository};

/// Longer than anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `denoised` with an environment in which nothing of the machine's counts.
pub fn denoised() -> Command {
    without_variables(Command::new(env!("CARGO_BIN_EXE_denoised")))
}

/// The command without the variables of this process that the program reads.
pub fn without_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("DENOISED_") || name == "ORT_DYLIB_PATH" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// The program's words on stderr, where it fails with this code.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {words}");
    assert!(!words.contains("panicked"), "{words}");
    words
}

pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output
}

/// The ONNX Runtime library that the test command brought along.
pub fn onnxruntime() -> PathBuf {
    library("DENOISED_TEST_ONNXRUNTIME")
}

/// A library that the test command brought along, by the variable that names it.
pub fn library(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("{variable} names no libonnxruntime.so; run the tests by tests/run, which brings it along")
    })
}

/// The exact Gaussian, copied so that a test may change it.
pub fn gaussian_bundle(name: &str) -> (TempDir, PathBuf) {
    copied(&golden("gaussian"), name)
}

/// A copy of a bundle under another name.
pub fn copied(bundle: &Path, name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(name);
    copy_tree(bundle, &copy);
    (directory, copy)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn model(name: &str) -> PathBuf {
    repository().join("models").join(name)
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A process that is killed when the test ends.
pub struct Running {
    pub child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian keeps mosquitto where an ordinary user's path does not lead.
fn mosquitto_program() -> &'static str {
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .unwrap_or("mosquitto")
}

/// A mosquitto on a port of its own.
pub struct Broker {
    pub port: u16,
    running: Option<Running>,
    configuration: PathBuf,
    _directory: TempDir,
}

impl Broker {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With further lines in its configuration, in which {dir} stands for a directory.
    pub fn with(more: &str) -> Self {
        Self::with_files(more, &[])
    }

    /// The same with further files in that directory.
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
        // mosquitto that was started as root goes on as another user, who writes here.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let mut broker = Self { port, running: None, configuration, _directory: directory };
        broker.run();
        broker
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Start it and wait until it listens.
    pub fn run(&mut self) {
        let child = Command::new(mosquitto_program())
            .arg("-c")
            .arg(&self.configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto can't be started; run the tests by tests/run, which installs it");
        self.running = Some(Running { child });
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < until, "mosquitto does not listen");
            std::thread::yield_now();
        }
    }

    pub fn kill(&mut self) {
        self.running = None;
    }
}

/// The daemon, with what it logs.
pub struct Daemon {
    pub running: Running,
    lines: Receiver<String>,
    pub log: Vec<String>,
    pub spool: Arc<TempDir>,
    pub configuration: PathBuf,
}

impl Daemon {
    /// Start it with a configuration's text and an empty spool.
    pub fn start(configuration: &str) -> Self {
        Self::with_spool(configuration, &Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Start it with the spool of an earlier run.
    pub fn with_spool(configuration: &str, spool: &Arc<TempDir>) -> Self {
        let mut daemon = Self::on_disk(configuration, spool.path());
        daemon.spool = Arc::clone(spool);
        daemon
    }

    /// Start it with further variables in its environment and an empty spool.
    pub fn with_variables(configuration: &str, variables: &[(&str, String)]) -> Self {
        let spool = Arc::new(tempfile::tempdir().unwrap());
        let mut daemon = Self::launch(configuration, spool.path(), variables);
        daemon.spool = spool;
        daemon
    }

    /// Start it with its spool in this directory.
    pub fn on_disk(configuration: &str, spool: &Path) -> Self {
        Self::launch(configuration, spool, &[])
    }

    /// All of it.
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
        Self { running: Running { child }, lines, log: Vec::new(), spool, configuration }
    }

    /// End it as a loss of power would.
    pub fn kill(&mut self) {
        self.running.child.kill().unwrap();
        self.running.child.wait().unwrap();
    }

    /// Send it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.running.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Read the log up to a line that holds this.
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.log.push(line.clone());
                    assert!(!line.contains("panicked"), "{line}");
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{error} before {text:?} was logged; so far: {:#?}", self.log),
            }
        }
    }

    /// What it has logged.
    pub fn log_so_far(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        assert!(!self.log.iter().any(|line| line.contains("panicked")), "{:#?}", self.log);
        &self.log
    }

    /// How many of the lines logged so far hold this.
    pub fn count(&mut self, text: &str) -> u64 {
        self.log_so_far().iter().filter(|line| line.contains(text)).count() as u64
    }

    /// Ask it to stop and wait for its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let id = self.running.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.running.child.wait().unwrap().code()
    }
}

/// A configuration for a daemon named `node`.
pub fn configuration(broker: &Broker, node: &str, models: &[&Path], more: &str) -> String {
    let paths: Vec<_> = models.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    format!(
        "node = \"{node}\"\n[mqtt]\nurl = \"{}\"\n[models]\npaths = [{}]\n{more}\n",
        broker.url(),
        paths.join(", ")
    )
}

/// mosquitto_sub as a subscriber that has nothing in common with this project.
pub struct Subscriber {
    _running: Running,
    lines: Receiver<Received>,
    pub seen: Vec<Received>,
}

/// A message as mosquitto_sub prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
    pub content_type: String,
    pub correlation: String,
    pub user: BTreeMap<String, String>,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

impl Subscriber {
    /// Subscribe and wait until the broker has confirmed it; stdbuf has each line come at once.
    pub fn start(broker: &Broker, filter: &str) -> Self {
        Self::with(broker, filter, &[])
    }

    /// The same with a session that the broker keeps while it is away.
    pub fn lasting(broker: &Broker, filter: &str, client: &str) -> Self {
        Self::with(broker, filter, &["-c", "-i", client, "-x", "86400"])
    }

    fn with(broker: &Broker, filter: &str, more: &[&str]) -> Self {
        let port = broker.port.to_string();
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-V",
                "5",
                "-p",
                &port,
                "-q",
                "1",
                "-t",
                filter,
                "-d",
                "-F",
                "MESSAGE %r|%t|%C|%D|%P|%x",
            ])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub can't be started; run the tests by tests/run, which installs it");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(10_000);
        let (ready, subscribed) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.contains("Subscribed (mid") {
                    let _ = ready.send(());
                }
                if let Some(message) = line.strip_prefix("MESSAGE ") {
                    let _ = sender.send(received(message));
                }
            }
        });
        subscribed.recv_timeout(PATIENCE).expect("mosquitto_sub did not subscribe");
        Self { _running: Running { child }, lines, seen: Vec::new() }
    }

    /// The next message that fits.
    pub fn next(&mut self, fits: impl Fn(&Received) -> bool) -> Received {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                let topics: Vec<_> = self.seen.iter().map(|m| m.topic.clone()).collect();
                panic!("{error}; what came so far: {topics:?}")
            });
            self.seen.push(message.clone());
            if fits(&message) {
                return message;
            }
        }
    }

    /// Take what has come so far.
    pub fn drain(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    /// Wait for one more message, for so long at most.
    pub fn wait(&mut self, patience: Duration) {
        self.seen.extend(self.lines.recv_timeout(patience).ok());
    }

    /// The next message on a topic.
    pub fn on(&mut self, topic: &str) -> Received {
        self.next(|message| message.topic == topic)
    }

    /// Wait for a phase of the daemon's state.
    pub fn phase(&mut self, phase: &str) -> Value {
        self.next(|m| m.topic.ends_with("/state") && m.json()["phase"] == phase).json()
    }
}

/// `retained|topic|content type|correlation data|name:value name:value …|payload in hexadecimal`
fn received(line: &str) -> Received {
    let parts: Vec<_> = line.split('|').collect();
    let &[retained, topic, content_type, correlation, user, hex] = parts.as_slice() else {
        panic!("mosquitto_sub printed {line:?}");
    };
    let bytes = hex.as_bytes().chunks(2);
    let payload = bytes.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let user = user.split(' ').filter_map(|pair| pair.split_once(':'));
    Received {
        topic: topic.to_owned(),
        payload: payload.collect(),
        retained: retained == "1",
        content_type: content_type.to_owned(),
        correlation: correlation.to_owned(),
        user: user.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// Publish with mosquitto_pub; tells whether the broker took it.
pub fn publish_to(port: u16, topic: &str, payload: &str) -> bool {
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &port.to_string(), "-q", "1", "-t", topic, "-m", payload])
        .stderr(Stdio::null())
        .status()
        .expect("mosquitto_pub can't be started; run the tests by tests/run, which installs it");
    status.success()
}

/// Publish with mosquitto_pub.
pub fn publish(broker: &Broker, topic: &str, payload: &str, more: &[&str]) {
    let port = broker.port.to_string();
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-p", &port, "-q", "1", "-t", topic, "-m", payload])
        .args(more)
        .status()
        .expect("mosquitto_pub can't be started; run the tests by tests/run, which installs it");
    assert!(status.success());
}
