//! A soak: many small jobs while the broker, the daemon, the network and the disk fail at random.
//!
//! Short in the tests; `just soak` sets SOAK_REQUESTS, SOAK_BROKER_KILLS and SOAK_DAEMON_KILLS to what
//! docs/reliability.md tells, prints a table, and fails if anything was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::common::broker::{Broker, publish_to};
use crate::common::daemon::Daemon;
use crate::common::fault_proxy::FaultProxy;
use crate::common::golden;
use crate::common::small_disk::SmallDisk;
use crate::common::subscriber::{Received, Subscriber};

/// mosquitto that keeps everything on disk at each change.
const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the subscriber has of every job.
#[derive(Default)]
struct CompletedJobs {
    images: BTreeMap<(String, String), Vec<u8>>,
    results: BTreeSet<String>,
    repeats: u64,
    other_bytes: u64,
    errors: u64,
    taken: usize,
}

fn image(job: u64, index: usize) -> (String, String) {
    (format!("s{job}"), index.to_string())
}

impl CompletedJobs {
    fn take(&mut self, messages: &[Received]) {
        for message in &messages[self.taken..] {
            let topic = message.topic.rsplit('/').nth(1).unwrap_or("");
            if message.topic.ends_with("/image") && !message.retained {
                let key = (message.user["id"].clone(), message.user["index"].clone());
                if let Some(before) = self.images.insert(key, message.payload.clone()) {
                    self.repeats += 1;
                    self.other_bytes += u64::from(before != message.payload);
                }
            } else if topic == "result" {
                let id = message.json()["id"].as_str().unwrap().to_owned();
                self.repeats += u64::from(!self.results.insert(id));
            } else if topic == "error" {
                self.errors += 1;
            }
        }
        self.taken = messages.len();
    }

    fn is_whole(&self, job: u64) -> bool {
        self.results.contains(&format!("s{job}"))
            && (0..COUNT).all(|index| self.images.contains_key(&image(job, index)))
    }
}

/// Images of each job.
const COUNT: usize = 2;
/// A requester waits while so many jobs are not answered, so that faults meet a daemon at work.
const UNANSWERED: usize = 40;
/// A stall and a full disk last for so many requests.
const LASTING: u64 = 10;
/// A requester who has waited for so long in vain asks again.
const IN_VAIN: Duration = Duration::from_secs(3);

/// Everything that takes part.
struct Soak {
    broker: Broker,
    proxy: FaultProxy,
    disk: SmallDisk,
    daemon: Daemon,
    configuration: String,
    subscriber: Subscriber,
    ledger: CompletedJobs,
    /// Jobs that were asked for and are not answered with all their images.
    unanswered: Vec<u64>,
    asked_again: u64,
    refused_writes: u64,
}

impl Soak {
    fn start(keeps: bool) -> Self {
        let broker = Broker::with_config(if keeps { PERSISTENT } else { "max_queued_messages 0\n" });
        let proxy = FaultProxy::new(broker.port);
        let configuration = format!(
            "node = \"soak\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[models]\npaths = [{:?}]\n\
             [limits]\nqueue = 100000\n[spool]\nmax_bytes = \"16 MiB\"\n",
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
            ledger: CompletedJobs::default(),
            unanswered: Vec::new(),
            asked_again: 0,
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

    fn ask(&mut self, job: u64) {
        while !self.request(job) {}
        self.unanswered.push(job);
        self.wait_for_all_but(UNANSWERED, Duration::from_secs(60));
    }

    fn suffer(&mut self, fault: &str) {
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
            "flow" => self.proxy.set_stalled(false),
            "full" => self.disk.fill(),
            "room" => self.disk.free(),
            _ => drop(self.publish(r#"{"id": "bad", "steps": "none"}"#)),
        }
    }

    fn count_refused_writes(&mut self) {
        self.refused_writes += self.daemon.count("cannot write to the spool");
    }

    /// What a broker that was killed had acknowledged and not kept is asked for again: a repeated
    /// id is answered from the spool, or was never taken.
    fn wait_for_all_but(&mut self, most: usize, patience: Duration) {
        let until = Instant::now() + patience;
        let mut last = (0, Instant::now());
        loop {
            self.subscriber.drain();
            self.ledger.take(&self.subscriber.seen);
            self.unanswered.retain(|job| !self.ledger.is_whole(*job));
            if self.unanswered.len() <= most || Instant::now() > until {
                return;
            }
            if self.ledger.taken != last.0 {
                last = (self.ledger.taken, Instant::now());
            } else if last.1.elapsed() > IN_VAIN {
                self.proxy.set_stalled(false);
                self.disk.free();
                let again = self.unanswered.iter().filter(|job| self.request(**job)).count();
                self.asked_again += again as u64;
                last.1 = Instant::now();
            }
            if let Some(status) = self.daemon.process.child.try_wait().unwrap() {
                panic!("the daemon ended by itself, {status}: {:#?}", self.daemon.log_so_far());
            }
            self.subscriber.wait(Duration::from_millis(100));
        }
    }
}

/// The faults by the request before which each happens.
fn faults(requests: u64, kinds: &[(&'static str, u64)]) -> BTreeMap<u64, Vec<&'static str>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut faults: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for &(fault, times) in kinds {
        for _ in 0..times {
            let begins = random.u64(0..requests);
            faults.entry(begins).or_default().push(fault);
            let end = match fault {
                "stall" => "flow",
                "full" => "room",
                _ => continue,
            };
            faults.entry((begins + LASTING).min(requests - 1)).or_default().push(end);
        }
    }
    faults
}

#[test]
fn the_proxy_holds_back_and_breaks_as_it_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = FaultProxy::new(listener.local_addr().unwrap().port());
    let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
    let mut far = listener.accept().unwrap().0;
    let mut byte = [0];
    near.write_all(b"a").unwrap();
    far.read_exact(&mut byte).unwrap();
    proxy.set_stalled(true);
    near.write_all(b"b").unwrap();
    far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(far.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.set_stalled(false);
    far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    far.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"b");
    proxy.disconnect_all();
    assert_eq!(far.read(&mut byte).unwrap(), 0);
}

#[test]
fn nothing_is_lost_while_everything_fails() {
    let requests = number("SOAK_REQUESTS", 60);
    let (brokers, daemons) = (number("SOAK_BROKER_KILLS", 3), number("SOAK_DAEMON_KILLS", 3));
    let cuts = number("SOAK_CUTS", brokers);
    let lasting = number("SOAK_STALLS", brokers.div_ceil(2));
    let keeps = number("SOAK_BROKER_KEEPS", 1) == 1;
    let began = Instant::now();
    let mut soak = Soak::start(keeps);
    let kinds = [
        ("broker", brokers),
        ("daemon", daemons),
        ("cut", cuts),
        ("stall", lasting),
        ("full", lasting),
        ("bad", cuts),
    ];
    let mut faults = faults(requests, &kinds);
    for job in 0..requests {
        for fault in faults.remove(&job).unwrap_or_default() {
            soak.suffer(fault);
        }
        soak.ask(job);
    }
    soak.wait_for_all_but(0, Duration::from_secs(number("SOAK_PATIENCE", 60)));
    soak.count_refused_writes();

    let ledger = &soak.ledger;
    let lost_requests = (0..requests).filter(|job| !ledger.results.contains(&format!("s{job}"))).count();
    let images = (0..requests).flat_map(|job| (0..COUNT).map(move |index| image(job, index)));
    let lost_images = images.filter(|key| !ledger.images.contains_key(key)).count();
    println!("| | |\n|---|---|");
    for (name, value) in [
        ("requests", requests),
        ("images", requests * COUNT as u64),
        ("broker keeps sessions on disk (1: yes)", u64::from(keeps)),
        ("broker kills (SIGKILL)", brokers),
        ("daemon kills (SIGKILL)", daemons),
        ("network cuts", cuts),
        ("network stalls", lasting),
        ("full disks", lasting),
        ("writes that a full disk refused", soak.refused_writes),
        ("bad requests in between", cuts),
        ("errors told for those, repeats included", ledger.errors),
        ("repeats at the subscriber", ledger.repeats),
        ("asked for again after a wait in vain", soak.asked_again),
        ("lost requests", lost_requests as u64),
        ("lost images", lost_images as u64),
        ("images with other bytes for the same id", ledger.other_bytes),
        ("seconds", began.elapsed().as_secs()),
    ] {
        println!("| {name} | {value} |");
    }
    assert_eq!((lost_requests, lost_images, ledger.other_bytes), (0, 0, 0));
    assert!(soak.unanswered.is_empty());
}
