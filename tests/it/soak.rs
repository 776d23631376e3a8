//! The soak test: many small jobs under random faults of the broker, the daemon, the network and the disk.
//!
//! By default it is short. `just soak` sets SOAK_REQUESTS, SOAK_BROKER_KILLS and SOAK_DAEMON_KILLS to the numbers in
//! docs/reliability.md, and prints the table of that page. The test fails if a request or an image is lost.

mod http_requester;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use http_requester::HttpRequester;

use crate::common::broker::{Broker, publish_to};
use crate::common::commands::free_port;
use crate::common::daemon::Daemon;
use crate::common::fault_proxy::FaultProxy;
use crate::common::golden;
use crate::common::small_disk::SmallDisk;
use crate::common::subscriber::{Received, Subscriber};

/// Makes mosquitto save its sessions to disk after each change.
const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n";

/// Reads a number from an environment variable.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The answers that the subscriber has received.
#[derive(Default)]
struct Answers {
    images: BTreeMap<(String, String), Vec<u8>>,
    /// The images of jobs over HTTP, by their id.
    over_http: BTreeMap<String, Vec<u8>>,
    results: BTreeSet<String>,
    repeats: u64,
    differing_images: u64,
    errors: u64,
    /// The number of messages that are recorded here.
    recorded: usize,
    /// The number of those that answer requests over MQTT.
    over_mqtt: usize,
}

fn image(job: u64, index: usize) -> (String, String) {
    (format!("s{job}"), index.to_string())
}

impl Answers {
    fn record(&mut self, messages: &[Received]) {
        for message in &messages[self.recorded..] {
            let topic = message.topic.rsplit('/').nth(1).unwrap_or("");
            if let Some(id) = message.user.get("id").filter(|id| id.starts_with("http-")) {
                if message.topic.ends_with("/image") {
                    self.over_http.insert(id.clone(), message.payload.clone());
                }
                continue;
            }
            // The state, which has no id, changes with the jobs over HTTP.
            self.over_mqtt += usize::from(message.user.contains_key("id"));
            if message.topic.ends_with("/image") && !message.retained {
                let key = (message.user["id"].clone(), message.user["index"].clone());
                if let Some(earlier) = self.images.insert(key, message.payload.clone()) {
                    self.repeats += 1;
                    self.differing_images += u64::from(earlier != message.payload);
                }
            } else if topic == "result" {
                let id = message.json()["id"].as_str().unwrap().to_owned();
                self.repeats += u64::from(!self.results.insert(id));
            } else if topic == "error" {
                self.errors += 1;
            }
        }
        self.recorded = messages.len();
    }

    fn is_complete(&self, job: u64) -> bool {
        self.results.contains(&format!("s{job}"))
            && (0..COUNT).all(|index| self.images.contains_key(&image(job, index)))
    }
}

/// Images of each job.
const COUNT: usize = 2;
/// The number of unanswered jobs at which the requester waits. It keeps the daemon busy while faults occur.
const MAX_UNANSWERED: usize = 40;
/// The length of a stall and of a full disk, in requests.
const FAULT_REQUESTS: u64 = 10;
/// The requester repeats its requests after this time without an answer.
const REPEAT_AFTER: Duration = Duration::from_secs(3);

struct Soak {
    broker: Broker,
    proxy: FaultProxy,
    disk: SmallDisk,
    daemon: Daemon,
    configuration: String,
    subscriber: Subscriber,
    http: HttpRequester,
    answers: Answers,
    /// Requested jobs whose result or images are missing.
    unanswered: Vec<u64>,
    repeated_requests: u64,
    refused_writes: u64,
}

impl Soak {
    fn start(persistent: bool) -> Self {
        let broker = Broker::with_config(if persistent { PERSISTENT } else { "max_queued_messages 0\n" });
        let proxy = FaultProxy::new(broker.port);
        let http_port = free_port();
        let configuration = format!(
            "node = \"soak\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[models]\npaths = [{:?}]\n\
             [limits]\nqueue = 100000\n[spool]\nmax_bytes = \"16 MiB\"\n[http]\nlisten = \"127.0.0.1:{http_port}\"\n",
            proxy.port,
            golden("gaussian").display().to_string()
        );
        let disk = SmallDisk::new(32);
        let daemon = Daemon::with_spool_path(&configuration, disk.path());
        let subscriber = Subscriber::with_persistent_session(&broker, "denoised/soak/#", "soak-subscriber");
        Self {
            broker,
            proxy,
            disk,
            daemon,
            configuration,
            subscriber,
            http: HttpRequester::start(http_port),
            answers: Answers::default(),
            unanswered: Vec::new(),
            repeated_requests: 0,
            refused_writes: 0,
        }
    }

    fn publish(&self, payload: &str) -> bool {
        publish_to(self.broker.port, "denoised/soak/request", payload)
    }

    fn request(&self, job: u64) -> bool {
        self.publish(&format!(
            r#"{{"id": "s{job}", "steps": 20, "sampler": "ddpm", "count": {COUNT}, "seed": {job}}}"#
        ))
    }

    fn submit(&mut self, job: u64) {
        while !self.request(job) {}
        self.unanswered.push(job);
        self.wait_for_answers(MAX_UNANSWERED, Duration::from_secs(60));
    }

    fn inject(&mut self, fault: &str) {
        match fault {
            "broker" => {
                self.broker.kill();
                self.broker.run();
            }
            "daemon" => {
                self.daemon.kill();
                self.count_refused_writes();
                self.daemon = Daemon::with_spool_path(&self.configuration, self.disk.path());
            }
            "cut" => self.proxy.disconnect_all(),
            "stall" => self.proxy.set_stalled(true),
            "stall end" => self.proxy.set_stalled(false),
            "full" => self.disk.fill(),
            "full end" => self.disk.free(),
            _ => drop(self.publish(r#"{"id": "bad", "steps": "none"}"#)),
        }
    }

    fn count_refused_writes(&mut self) {
        self.refused_writes += self.daemon.count("cannot write to the spool");
    }

    /// Waits until at most `max` jobs are unanswered, or `timeout` has passed. Repeats requests, because a killed broker
    /// forgets messages that it had acknowledged but not saved. The daemon answers a known id from the spool.
    fn wait_for_answers(&mut self, max: usize, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut last = (0, Instant::now());
        loop {
            self.subscriber.drain();
            self.answers.record(&self.subscriber.seen);
            self.unanswered.retain(|job| !self.answers.is_complete(*job));
            if self.unanswered.len() <= max || Instant::now() > deadline {
                return;
            }
            if self.answers.over_mqtt != last.0 {
                last = (self.answers.over_mqtt, Instant::now());
            } else if last.1.elapsed() > REPEAT_AFTER {
                self.proxy.set_stalled(false);
                self.disk.free();
                let repeated = self.unanswered.iter().filter(|job| self.request(**job)).count();
                self.repeated_requests += repeated as u64;
                last.1 = Instant::now();
            }
            if let Some(status) = self.daemon.process.child.try_wait().unwrap() {
                panic!("the daemon exited, {status}: {:#?}", self.daemon.log_so_far());
            }
            self.subscriber.wait(Duration::from_millis(100));
        }
    }
}

/// Returns random faults, by the number of the request before which each starts or ends.
fn faults(requests: u64, kinds: &[(&'static str, u64)]) -> BTreeMap<u64, Vec<&'static str>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut faults: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for &(fault, times) in kinds {
        for _ in 0..times {
            let start = random.u64(0..requests);
            faults.entry(start).or_default().push(fault);
            let end = match fault {
                "stall" => "stall end",
                "full" => "full end",
                _ => continue,
            };
            faults.entry((start + FAULT_REQUESTS).min(requests - 1)).or_default().push(end);
        }
    }
    faults
}

#[test]
fn the_fault_proxy_stalls_and_cuts_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = FaultProxy::new(listener.local_addr().unwrap().port());
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
    let mut server = listener.accept().unwrap().0;
    let mut byte = [0];
    client.write_all(b"a").unwrap();
    server.read_exact(&mut byte).unwrap();
    proxy.set_stalled(true);
    client.write_all(b"b").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(server.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.set_stalled(false);
    server.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    server.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"b");
    proxy.disconnect_all();
    assert_eq!(server.read(&mut byte).unwrap(), 0);
}

#[test]
fn no_request_and_no_image_is_lost_under_faults() {
    let requests = number("SOAK_REQUESTS", 60);
    let (brokers, daemons) = (number("SOAK_BROKER_KILLS", 3), number("SOAK_DAEMON_KILLS", 3));
    let cuts = number("SOAK_CUTS", brokers);
    let stalls = number("SOAK_STALLS", brokers.div_ceil(2));
    let persistent = number("SOAK_BROKER_KEEPS", 1) == 1;
    let start = Instant::now();
    let mut soak = Soak::start(persistent);
    let kinds = [
        ("broker", brokers),
        ("daemon", daemons),
        ("cut", cuts),
        ("stall", stalls),
        ("full", stalls),
        ("bad", cuts),
    ];
    let mut faults = faults(requests, &kinds);
    for job in 0..requests {
        for fault in faults.remove(&job).unwrap_or_default() {
            soak.inject(fault);
        }
        soak.submit(job);
    }
    soak.wait_for_answers(0, Duration::from_secs(number("SOAK_PATIENCE", 60)));
    soak.count_refused_writes();
    let over_http = soak.http.stop();
    // A daemon that was killed may have answered before it published.
    let published = |id: &String| soak.answers.over_http.get(id);
    let differing_over_http = over_http
        .images
        .iter()
        .filter(|(id, file)| published(id).is_some_and(|other| other != *file))
        .count();

    let answers = &soak.answers;
    let lost_requests = (0..requests).filter(|job| !answers.results.contains(&format!("s{job}"))).count();
    let images = (0..requests).flat_map(|job| (0..COUNT).map(move |index| image(job, index)));
    let lost_images = images.filter(|key| !answers.images.contains_key(key)).count();
    let broker = if persistent { "broker saves sessions to disk" } else { "broker does not" };
    println!("| | {broker} |\n|---|---|");
    for (name, value) in [
        ("requests", requests),
        ("images", requests * COUNT as u64),
        ("broker kills (SIGKILL)", brokers),
        ("daemon kills (SIGKILL)", daemons),
        ("network cuts", cuts),
        ("network stalls", stalls),
        ("full disks", stalls),
        ("writes refused by a full disk", soak.refused_writes),
        ("invalid requests", cuts),
        ("errors reported for them, with repeats", answers.errors),
        ("repeated messages at the subscriber", answers.repeats),
        ("requests repeated after a timeout", soak.repeated_requests),
        ("lost requests", lost_requests as u64),
        ("lost images", lost_images as u64),
        ("images with other bytes for the same id", answers.differing_images),
        ("images over HTTP", over_http.images.len() as u64),
        ("HTTP requests without an image", over_http.failures),
        ("images with other bytes over HTTP than over MQTT", differing_over_http as u64),
        ("seconds", start.elapsed().as_secs()),
    ] {
        println!("| {name} | {value} |");
    }
    assert_eq!((lost_requests, lost_images, answers.differing_images, differing_over_http), (0, 0, 0, 0));
    assert!(!over_http.images.is_empty());
    assert!(soak.unanswered.is_empty());
}
