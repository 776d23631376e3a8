//! A soak: many small jobs while the broker, the daemon and the network fail at random.
//!
//! Short in the tests; `just soak` sets SOAK_REQUESTS, SOAK_BROKER_KILLS and SOAK_DAEMON_KILLS to what
//! docs/reliability.md tells, prints a table, and fails if anything was lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::golden;
use common::program::{Broker, Daemon, Received, Subscriber, free_port, publish_to};

/// mosquitto that keeps everything on disk at each change.
const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A proxy between the daemon and the broker that can cut every connection.
struct Cable {
    port: u16,
    cuts: Arc<AtomicU64>,
}

impl Cable {
    fn to(broker: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let cuts = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&cuts);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)) else { continue };
                let born = seen.load(Ordering::Relaxed);
                for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let seen = Arc::clone(&seen);
                    std::thread::spawn(move || pump(from, to, &seen, born));
                }
            }
        });
        Self { port, cuts }
    }

    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, cuts: &AtomicU64, born: u64) {
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while cuts.load(Ordering::Relaxed) == born {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => break,
            Err(error)
                if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                break;
            }
            _ => {}
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// What the subscriber has of every job.
#[derive(Default)]
struct Ledger {
    images: BTreeMap<(String, String), Vec<u8>>,
    results: BTreeMap<String, Vec<String>>,
    repeats: u64,
    other_bytes: u64,
    errors: u64,
    taken: usize,
}

impl Ledger {
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
                let json = message.json();
                let images = json["images"].as_array().unwrap();
                let digests =
                    images.iter().map(|image| image["sha256"].as_str().unwrap().to_owned()).collect();
                let id = json["id"].as_str().unwrap().to_owned();
                self.repeats += u64::from(self.results.insert(id, digests).is_some());
            } else if topic == "error" {
                self.errors += 1;
            }
        }
        self.taken = messages.len();
    }

    fn is_whole(&self, id: &str, count: usize) -> bool {
        let image = |index: usize| self.images.contains_key(&(id.to_owned(), index.to_string()));
        self.results.contains_key(id) && (0..count).all(image)
    }
}

#[test]
fn nothing_is_lost_while_everything_fails() {
    let requests = number("SOAK_REQUESTS", 60);
    let (broker_kills, daemon_kills) = (number("SOAK_BROKER_KILLS", 3), number("SOAK_DAEMON_KILLS", 3));
    let cuts = number("SOAK_CUTS", broker_kills);
    let began = Instant::now();
    let keeps = number("SOAK_BROKER_KEEPS", 1) == 1;
    let mut broker = Broker::with(if keeps { PERSISTENT } else { "max_queued_messages 0\n" });
    let cable = Cable::to(broker.port);
    let configuration = format!(
        "node = \"soak\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[models]\npaths = [{:?}]\n[limits]\nqueue = 100000\n",
        cable.port,
        golden("gaussian").display().to_string()
    );
    let mut daemon = Daemon::start(&configuration);
    let spool = Arc::clone(&daemon.spool);
    let mut subscriber = Subscriber::lasting(&broker, "denoised/soak/#", "soak-subscriber");
    let mut random = fastrand::Rng::with_seed(1);
    let mut ledger = Ledger::default();
    let count = 2;
    let request = |job: u64| {
        format!(r#"{{"id": "s{job}", "steps": 20, "sampler": "ddpm", "count": {count}, "seed": {job}}}"#)
    };

    // The faults, each before a request of its own.
    let mut faults: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (fault, times) in [("broker", broker_kills), ("daemon", daemon_kills), ("cut", cuts), ("bad", cuts)] {
        for _ in 0..times {
            faults.entry(random.u64(0..requests)).or_default().push(fault);
        }
    }
    for job in 0..requests {
        for fault in faults.remove(&job).unwrap_or_default() {
            match fault {
                "broker" => {
                    broker.kill();
                    broker.run();
                }
                "daemon" => {
                    daemon.kill();
                    daemon = Daemon::with_spool(&configuration, &spool);
                }
                "cut" => cable.cut(),
                _ => drop(publish_to(
                    broker.port,
                    "denoised/soak/request",
                    r#"{"id": "bad", "steps": "none"}"#,
                )),
            }
        }
        while !publish_to(broker.port, "denoised/soak/request", &request(job)) {}
        subscriber.drain();
        ledger.take(&subscriber.seen);
    }

    // What a broker that was killed had acknowledged and not kept is asked for again: a repeated id is
    // answered from the spool, or was never taken.
    let mut asked_again = 0;
    let until = Instant::now() + Duration::from_secs(number("SOAK_PATIENCE", 60));
    let mut last = (0, Instant::now());
    loop {
        subscriber.drain();
        ledger.take(&subscriber.seen);
        let missing: BTreeSet<u64> =
            (0..requests).filter(|job| !ledger.is_whole(&format!("s{job}"), count)).collect();
        if missing.is_empty() || Instant::now() > until {
            break;
        }
        if ledger.taken != last.0 {
            last = (ledger.taken, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(5) {
            for job in missing {
                asked_again += u64::from(publish_to(broker.port, "denoised/soak/request", &request(job)));
            }
            last.1 = Instant::now();
        }
        subscriber.wait(Duration::from_millis(100));
    }

    let lost_requests = (0..requests).filter(|job| !ledger.results.contains_key(&format!("s{job}"))).count();
    let whole = (0..requests).filter(|job| ledger.is_whole(&format!("s{job}"), count)).count() as u64;
    let lost_images = requests * count as u64
        - (0..requests)
            .flat_map(|job| (0..count).map(move |index| (format!("s{job}"), index.to_string())))
            .filter(|key| ledger.images.contains_key(key))
            .count() as u64;
    println!("| | |\n|---|---|");
    for (name, value) in [
        ("requests", requests),
        ("images", requests * count as u64),
        ("broker keeps sessions on disk (1: yes)", u64::from(keeps)),
        ("broker kills (SIGKILL)", broker_kills),
        ("daemon kills (SIGKILL)", daemon_kills),
        ("network cuts", cuts),
        ("bad requests in between", cuts),
        ("errors told for those", ledger.errors),
        ("repeats at the subscriber", ledger.repeats),
        ("asked for again after a broker forgot", asked_again),
        ("lost requests", lost_requests as u64),
        ("lost images", lost_images),
        ("images with other bytes for the same id", ledger.other_bytes),
        ("seconds", began.elapsed().as_secs()),
    ] {
        println!("| {name} | {value} |");
    }
    assert_eq!((lost_requests, lost_images, ledger.other_bytes, whole), (0, 0, 0, requests));
}
