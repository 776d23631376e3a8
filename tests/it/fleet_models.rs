//! A fleet whose daemons have memory for one of two models: requests go to those that have the model in memory.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::common::broker::{Broker, publish};
use crate::common::bundles::{copy_bundle, model};
use crate::common::daemon::{Daemon, configuration};
use crate::common::subscriber::Subscriber;

const QUEUE: &str = "shared_queue = \"$share/denoised/denoised/request\"\n";
/// The line of a job that is accepted while its model is not in memory.
const WAITS: &str = " waits until ";
/// The line of a model that makes room for the other one.
const EVICTED: &str = "evicted session ";

/// Two models of 1.3 MiB each, and a machine on which nothing is measured.
struct Models {
    _directories: [TempDir; 2],
    paths: [std::path::PathBuf; 2],
    machine: TempDir,
}

impl Models {
    fn new() -> Self {
        let [(first, a), (second, b)] = ["a", "b"].map(|name| copy_bundle(&model("swissroll"), name));
        Self { _directories: [first, second], paths: [a, b], machine: tempfile::tempdir().unwrap() }
    }

    /// Starts a daemon of the fleet with these models and memory for one of them, the last one.
    fn start(&self, broker: &Broker, node: &str, models: &[&Path]) -> Daemon {
        let root = self.machine.path();
        let engine = format!(
            "[board]\nroot = {root:?}\n[engine]\nkind = \"embedded\"\nmemory = \"2 MiB\"\ncache = \"{}\"",
            root.join(node).display()
        );
        let text =
            configuration(broker, node, models, &engine).replace("[mqtt]\n", &format!("[mqtt]\n{QUEUE}"));
        let mut daemon = Daemon::start(&text);
        daemon.wait_for("ready: requests are accepted");
        daemon
    }
}

fn request(broker: &Broker, id: &str, model: &str) {
    let text = json!({"id": id, "model": model, "steps": 2, "seed": 1}).to_string();
    publish(
        broker,
        "denoised/request",
        &text,
        &["-D", "publish", "response-topic", &format!("answers/{id}")],
    );
}

/// Every second job closed one model and opened the other.
#[test]
fn a_fleet_opened_a_model_for_almost_every_job() {
    const JOBS: usize = 200;
    let broker = Broker::start();
    let models = Models::new();
    let paths = models.paths.each_ref().map(|path| path.as_path());
    let mut daemons = ["n1", "n2", "n3", "n4"].map(|node| models.start(&broker, node, &paths));
    let count = |daemons: &mut [Daemon; 4], line: &str| -> u64 {
        daemons.iter_mut().map(|daemon| daemon.count(line)).sum()
    };
    let evicted_before = count(&mut daemons, EVICTED);
    let mut subscriber = Subscriber::start(&broker, "answers/#");
    // Four requesters, each of which sends its next request when the last one is answered.
    let mut random = fastrand::Rng::with_seed(1);
    let mut sent = 0;
    let mut send_next = || {
        if sent < JOBS {
            request(&broker, &format!("job{sent}"), if random.bool() { "a" } else { "b" });
            sent += 1;
        }
    };
    (0..4).for_each(|_| send_next());
    let mut results = BTreeMap::new();
    while results.len() < JOBS {
        let answer = subscriber.next(|m| m.user["type"] != "image");
        assert_eq!(answer.user["type"], "result", "{answer:?}");
        *results.entry(answer.topic).or_insert(0) += 1;
        send_next();
    }
    assert!(results.values().all(|count| *count == 1), "{results:?}");
    let waits = count(&mut daemons, WAITS);
    let evicted = count(&mut daemons, EVICTED) - evicted_before;
    let done: Vec<_> = daemons.iter_mut().map(|daemon| daemon.count(" finished in ")).collect();
    println!(
        "{waits} of {JOBS} jobs waited for a model, {evicted} models were evicted; the daemons did {done:?}"
    );
    assert_eq!(done.iter().sum::<u64>(), JOBS as u64);
    assert!(waits * 20 < JOBS as u64, "{waits} jobs waited for a model");
    assert!(evicted * 20 < JOBS as u64, "{evicted} models were evicted");
}

/// A client that reads all topics looks like a daemon to the broker.
#[test]
fn a_request_that_no_daemon_claims_was_lost_to_a_monitor() {
    let broker = Broker::start();
    let models = Models::new();
    let paths = models.paths.each_ref().map(|path| path.as_path());
    let mut daemon = models.start(&broker, "n1", &paths);
    let mut monitor = Subscriber::start(&broker, "#");
    request(&broker, "alone", "a");
    let offer = monitor.on("denoised/request/a");
    assert_eq!((offer.user["claim"].as_str(), offer.user["type"].as_str()), ("denoised/n1/claim", "request"));
    daemon.wait_for("job alone is done here: no other daemon has a in memory and time for it");
    monitor.next(|m| m.topic == "answers/alone" && m.user["type"] == "result");
    // Then the model is in memory.
    request(&broker, "next", "a");
    monitor.next(|m| m.topic == "answers/next" && m.user["type"] == "result");
    let offers = monitor.seen.iter().filter(|m| m.topic.starts_with("denoised/request/"));
    assert_eq!((offers.count(), daemon.count(WAITS)), (1, 1));
}

#[test]
fn daemons_with_different_models_answer_each_others_requests() {
    let broker = Broker::start();
    let models = Models::new();
    let [a, b] = models.paths.each_ref().map(|path| path.as_path());
    let mut daemons = [models.start(&broker, "n1", &[a]), models.start(&broker, "n2", &[b])];
    let mut subscriber = Subscriber::start(&broker, "answers/#");
    for job in 0..12 {
        request(&broker, &format!("job{job}"), if job % 3 == 0 { "a" } else { "b" });
    }
    for _ in 0..12 {
        let answer = subscriber.next(|m| m.user["type"] != "image");
        assert_eq!(answer.user["type"], "result", "{answer:?}");
    }
    assert_eq!(daemons.each_mut().map(|daemon| daemon.count(" finished in ")), [4, 8]);
    // A model that nobody has is an error once.
    request(&broker, "unknown", "c");
    let error = subscriber.on("answers/unknown").json();
    assert_eq!(error["code"], "unknown_model");
    assert_eq!(daemons.iter_mut().map(|daemon| daemon.count(" rejected: ")).sum::<u64>(), 1);
}
