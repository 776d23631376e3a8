//! mosquitto_sub: a subscriber that shares no code with this project.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::broker::Broker;
use super::commands::{ChildGuard, TIMEOUT};

/// A running mosquitto_sub and the messages that it printed.
pub struct Subscriber {
    _process: ChildGuard,
    lines: Receiver<Received>,
    /// The messages that were read so far.
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
    /// Subscribes, and waits for the SUBACK.
    pub fn start(broker: &Broker, filter: &str) -> Self {
        Self::with_arguments(broker, filter, &[])
    }

    /// Subscribes with a session that the broker keeps while this client is disconnected.
    pub fn with_persistent_session(broker: &Broker, filter: &str, client: &str) -> Self {
        Self::with_arguments(broker, filter, &["-c", "-i", client, "-x", "86400"])
    }

    fn with_arguments(broker: &Broker, filter: &str, more: &[&str]) -> Self {
        let port = broker.port.to_string();
        // stdbuf makes mosquitto_sub write each line at once.
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
            .expect("cannot run mosquitto_sub; run the tests with tests/run, which installs it");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(10_000);
        let (ready, subscribed) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.contains("Subscribed (mid") {
                    let _ = ready.send(());
                }
                if let Some(message) = line.strip_prefix("MESSAGE ") {
                    let _ = sender.send(parse(message));
                }
            }
        });
        subscribed.recv_timeout(TIMEOUT).expect("mosquitto_sub did not subscribe");
        Self { _process: ChildGuard { child }, lines, seen: Vec::new() }
    }

    /// Returns the next message that `matches`.
    pub fn next(&mut self, matches: impl Fn(&Received) -> bool) -> Received {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let message = self.lines.recv_timeout(remaining).unwrap_or_else(|error| {
                let topics: Vec<_> = self.seen.iter().map(|m| m.topic.clone()).collect();
                panic!("{error}; the topics so far: {topics:?}")
            });
            self.seen.push(message.clone());
            if matches(&message) {
                return message;
            }
        }
    }

    /// Reads the messages that have arrived, without waiting.
    pub fn drain(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    /// Waits for one more message, up to `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        self.seen.extend(self.lines.recv_timeout(timeout).ok());
    }

    /// Returns the next message on a topic.
    pub fn on(&mut self, topic: &str) -> Received {
        self.next(|message| message.topic == topic)
    }

    /// Waits for a state message with this phase, and returns it.
    pub fn wait_for_phase(&mut self, phase: &str) -> Value {
        self.next(|m| m.topic.ends_with("/state") && m.json()["phase"] == phase).json()
    }
}

/// Parses `retained|topic|content type|correlation data|name:value name:value …|payload in hexadecimal`
fn parse(line: &str) -> Received {
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
