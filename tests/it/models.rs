//! Models that come and go while the daemon runs, with a real broker and real ONNX files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::broker::{Broker, publish};
use crate::common::bundles::{copy_bundle, model};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::subscriber::{Received, Subscriber};

/// A job that takes longer than a model takes to load.
const LONG: &str =
    r#"{"id": "long", "model": "gaussian", "steps": 1000, "sampler": "ddpm", "count": 8, "seed": 1}"#;

/// The names in a list of the state.
fn names(state: &Value, list: &str) -> Vec<String> {
    let name = |entry: &Value| entry["name"].as_str().or(entry.as_str()).unwrap().to_owned();
    state[list].as_array().unwrap().iter().map(name).collect()
}

struct Running {
    broker: Broker,
    subscriber: Subscriber,
    daemon: Daemon,
}

impl Running {
    /// Starts a daemon with these models and further lines of configuration, and waits until it is ready.
    fn start(models: &[&Path], more: &str) -> Self {
        let broker = Broker::start();
        let mut subscriber = Subscriber::start(&broker, "#");
        let daemon = Daemon::start(&configuration(&broker, "test", models, more));
        subscriber.wait_for_phase("ready");
        Self { broker, subscriber, daemon }
    }

    /// Reloads the configuration with these models.
    fn reload(&mut self, models: &[&Path], more: &str) {
        let text = configuration(&self.broker, "test", models, more);
        std::fs::write(&self.daemon.configuration, text).unwrap();
        self.daemon.signal("HUP");
    }

    fn send(&self, topic: &str, message: &Value) {
        publish(&self.broker, &format!("denoised/test/{topic}"), &message.to_string(), &[]);
    }

    /// Sends a request whose answers go to a response topic too, and returns the copy there.
    fn ask(&mut self, topic: &str, message: &Value) -> Received {
        let properties =
            ["-D", "publish", "response-topic", "answers/me", "-D", "publish", "correlation-data", "c-7"];
        publish(&self.broker, &format!("denoised/test/{topic}"), &message.to_string(), &properties);
        let answer = self.subscriber.on("answers/me");
        assert_eq!((answer.correlation.as_str(), answer.user["copy"].as_str()), ("c-7", "reply"));
        answer
    }

    /// Returns the latest state if it `matches`, or else waits for one that does.
    fn state(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        let latest = self.subscriber.seen.iter().rfind(|m| m.topic == "denoised/test/state");
        if let Some(latest) = latest.map(Received::json).filter(&matches) {
            return latest;
        }
        self.subscriber.next(|m| m.topic == "denoised/test/state" && matches(&m.json())).json()
    }

    /// Waits until these models are served, and no other one is in memory.
    fn settled(&mut self, served: &[&str]) -> Value {
        self.state(|state| {
            names(state, "models") == served
                && names(state, "loading").is_empty()
                && names(state, "unloading").is_empty()
        })
    }

    fn error(&mut self, id: &str) -> Value {
        self.subscriber.on(&format!("denoised/test/error/{id}")).json()
    }

    fn draws(&mut self, id: &str, model: &str) {
        self.send("request", &json!({"id": id, "model": model, "steps": 2, "seed": 1}));
        self.subscriber.on(&format!("denoised/test/result/{id}"));
    }
}

#[test]
fn a_reload_changed_the_models_only_after_a_restart() {
    let gaussian = golden("gaussian");
    let mut running = Running::start(&[&gaussian], "");
    running.send("request", &serde_json::from_str(LONG).unwrap());
    running.subscriber.on("denoised/test/progress/long");
    running.reload(&[&model("swissroll"), &model("digits")], "");
    let log = running.daemon.wait_for("configuration reloaded");
    assert!(log.ends_with("[limits] and [models] apply now"), "{log}");
    // The former model serves until another one is loaded, and finishes its jobs.
    running
        .state(|state| names(state, "models") == ["swissroll"] && names(state, "unloading") == ["gaussian"]);
    running.send("request", &json!({"id": "late", "model": "gaussian"}));
    let error = running.error("late");
    let message = error["message"].as_str().unwrap();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("unknown_model"), Some("model")));
    assert!(message.starts_with("there is no model \"gaussian\"; there are: swissroll"), "{message}");
    running.subscriber.on("denoised/test/result/long");
    running.daemon.wait_for("model gaussian has left memory");
    let state = running.settled(&["swissroll", "digits"]);
    assert_eq!(state["models"][1]["status"], "loaded");
    // The first model is the default.
    running.send("request", &json!({"id": "default", "steps": 2}));
    let result = running.subscriber.on("denoised/test/result/default").json();
    assert_eq!(result["images"][0]["receipt"]["model"], "swissroll");
    running.draws("digit", "digits");
}

#[test]
fn a_model_is_opened_again_from_another_directory_and_with_other_settings() {
    let (_first, a) = copy_bundle(&golden("gaussian"), "net");
    let (_second, b) = copy_bundle(&model("swissroll"), "net");
    let mut running = Running::start(&[&a], "");
    let first = running.settled(&["net"])["models"][0]["sha256"].clone();
    running.reload(&[&b], "");
    let second = running.state(|state| {
        names(state, "unloading").is_empty()
            && names(state, "models") == ["net"]
            && state["models"][0]["sha256"] != first
    });
    running.draws("one", "net");
    running.reload(&[&b], "[models.engine.net]\nbatch = 2");
    running.daemon.wait_for("model net has left memory");
    running.daemon.wait_for("model net has left memory");
    running.draws("two", "net");
    let last = running.settled(&["net"]);
    assert_eq!(last["models"][0]["sha256"], second["models"][0]["sha256"]);
}

#[test]
fn a_model_that_cannot_be_loaded_leaves_the_others_served() {
    let gaussian = golden("gaussian");
    let mut running = Running::start(&[&gaussian], "");
    running.reload(&[&PathBuf::from("/nonexistent/model")], "");
    let log = running.daemon.wait_for("models.paths: model model in /nonexistent/model is not loaded: ");
    assert!(log.ends_with("correct it, and reload the configuration (SIGHUP)"), "{log}");
    running.draws("one", "gaussian");
    running.reload(&[&gaussian, &model("swissroll")], "");
    running.settled(&["gaussian", "swissroll"]);
    running.draws("two", "swissroll");
}

#[test]
fn requests_load_and_unload_models() {
    let (gaussian, swissroll) = (golden("gaussian"), model("swissroll"));
    let allowed = format!("directories = [{:?}]", model("").display().to_string());
    let mut running = Running::start(&[&gaussian], &allowed);
    let path = swissroll.display().to_string();
    let wrong = "ab".repeat(32);
    let refused = running.ask("model/load", &json!({"id": "1", "path": path, "sha256": wrong}));
    assert_eq!(refused.user["type"], "error");
    let error = refused.json();
    assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("out_of_range"), Some("sha256")));
    let message = error["message"].as_str().unwrap();
    let (_, digest) = message.split_once("has the digest ").unwrap();
    let digest = &digest[..64];
    assert_eq!(
        message,
        format!(
            "sha256: model swissroll in {path} has the digest {digest}, and not {wrong}; copy its files again, or correct \
             the request"
        )
    );
    let loaded = running.ask("model/load", &json!({"id": "2", "path": path, "sha256": digest}));
    assert_eq!(loaded.user["type"], "model");
    let mut answer = loaded.json();
    assert!(answer.as_object_mut().unwrap().remove("elapsed_ms").unwrap().is_u64());
    let expected = json!({
        "id": "2", "model": "swissroll", "path": path, "status": "loaded", "sha256": digest,
        "engine": answer["engine"], "provider": "cpu"
    });
    assert_eq!(answer, expected);
    assert!(running.subscriber.seen.iter().any(|m| m.topic == "denoised/test/model/result/2"));
    let state = running.settled(&["gaussian", "swissroll"]);
    assert_eq!(state["models"][1]["sha256"], digest);
    running.draws("one", "swissroll");

    let unloaded = running.ask("model/unload", &json!({"id": "3", "model": "swissroll"})).json();
    assert_eq!((unloaded["status"].as_str(), unloaded["path"].as_str()), (Some("unloaded"), Some(&*path)));
    running.settled(&["gaussian"]);
    running.send("request", &json!({"id": "late", "model": "swissroll"}));
    assert_eq!(running.error("late")["code"], "unknown_model");

    for (id, topic, message, code, field, text) in [
        ("4", "model/load", json!({"id": "4", "path": "/etc"}), "out_of_range", "path", "models.directories"),
        ("5", "model/load", json!({"id": "5"}), "bad_request", "path", "the field `path` is missing"),
        (
            "6",
            "model/unload",
            json!({"id": "6", "model": "x"}),
            "unknown_model",
            "model",
            "there is no model",
        ),
        (
            "7",
            "model/unload",
            json!({"id": "7", "model": "gaussian"}),
            "out_of_range",
            "model",
            "gaussian is the only model",
        ),
        (
            "8",
            "model/load",
            json!({"id": "8", "path": model("train").display().to_string()}),
            "unknown_model",
            "path",
            "model train in ",
        ),
    ] {
        running.send(topic, &message);
        let error = running.error(id);
        assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some(code), Some(field)));
        assert!(error["message"].as_str().unwrap().contains(text), "{error}");
    }

    // A reload makes the models those of the configuration.
    running.ask("model/load", &json!({"path": path}));
    running.settled(&["gaussian", "swissroll"]);
    running.reload(&[&gaussian], &allowed);
    running.settled(&["gaussian"]);
}

#[test]
fn a_request_to_load_a_model_is_done_after_a_lost_connection_and_a_restart() {
    let (gaussian, swissroll) = (golden("gaussian"), model("swissroll"));
    let allowed = format!("directories = [{:?}]", model("").display().to_string());
    let mut running = Running::start(&[&gaussian], &allowed);
    assert_eq!(running.daemon.terminate(), Some(0));
    // The broker keeps it for the daemon's session.
    running.send("model/load", &json!({"id": "kept", "path": swissroll}));
    let text = configuration(&running.broker, "test", &[&gaussian], &allowed);
    let spool = std::sync::Arc::clone(&running.daemon.spool);
    running.daemon = Daemon::with_spool(&text, &spool);
    running.subscriber.on("denoised/test/model/result/kept");
    // A restart ends it.
    assert_eq!(running.daemon.terminate(), Some(0));
    running.daemon = Daemon::with_spool(&text, &spool);
    running.settled(&["gaussian"]);
}

#[test]
fn a_model_without_jobs_leaves_memory_and_its_next_job_opens_it() {
    let (gaussian, swissroll) = (golden("gaussian"), model("swissroll"));
    let mut running = Running::start(&[&gaussian, &swissroll], "idle_unload_s = 1");
    let statuses = |state: &Value| {
        let models = state["models"].as_array().unwrap();
        models.iter().map(|model| model["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    running.state(|state| statuses(state) == ["on_disk", "on_disk"]);
    running.daemon.wait_for("had no jobs and left memory; the next job opens it");
    running.draws("one", "swissroll");
    running.state(|state| statuses(state) == ["on_disk", "loaded"]);
    running.state(|state| statuses(state) == ["on_disk", "on_disk"]);
    // The limit can be changed while the daemon runs.
    running.reload(&[&gaussian, &swissroll], "");
    running.daemon.wait_for("configuration reloaded");
    running.draws("two", "gaussian");
    running.state(|state| statuses(state) == ["loaded", "on_disk"]);
}
