//! What is opened and evaluated before a picture, counted by the lines of the debug log, and what proves the provider.

use std::path::Path;
use std::sync::Arc;

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::commands::{fails, onnxruntime, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::pipelines::{PROMPT, bundle, sample};
use crate::common::subscriber::Subscriber;
use denoised::inference::{EngineKind, EngineOptions, Provider, SessionPool};
use denoised::model::Model;

/// The sessions that were opened and the graphs that were evaluated, in order, without the times.
fn activity<'a>(log: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let events = log.filter_map(|line| {
        let start = line.find("opened ").or_else(|| line.find("evaluated "))?;
        line[start..].split_once(" in ").map(|(event, _)| event)
    });
    events.filter(|event| !event.contains(": ")).collect()
}

/// The events of one sort, in order.
fn of<'a>(activity: &[&'a str], sort: &str) -> Vec<&'a str> {
    activity.iter().copied().filter(|event| event.starts_with(sort)).collect()
}

/// Samples with two steps of DDIM. Returns what was opened and evaluated.
fn sample_log(engine: &str, model: &Path, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample(engine, model, &folder.path().join("x.npy"));
    command.args(["--steps", "2", "--sampler", "ddim", "--seed", "1"]).args(more);
    // A cache of its own: without embeddings of an earlier start.
    command.env("DENOISED_ENGINE__CACHE", folder.path().join("cache"));
    let output = succeeds(command.env("RUST_LOG", "denoised=debug"));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn sample_opens_and_evaluates_only_what_its_job_needs() {
    for engine in ["onnxruntime", "embedded"] {
        let log = sample_log(engine, &bundle("sd"), &["--prompt", PROMPT, "--width", "16", "--height", "16"]);
        let activity = activity(log.lines());
        // The network is opened while prompts are encoded, and the decoder after that, so that their order is open.
        let mut opened = of(&activity, "opened");
        opened.sort_unstable();
        let expected =
            ["opened sd on cpu", "opened sd-text_encoder_1 on cpu", "opened sd-vae_decoder on cpu"];
        assert_eq!(opened, expected, "{log}");
        // The prompt and the empty one are encoded before the first step.
        let network = activity.iter().position(|event| event.starts_with("evaluated sd")).unwrap();
        assert_eq!(of(&activity[..network], "evaluated"), ["evaluated text_encoder"; 2], "{log}");
        let expected =
            ["evaluated sd with a batch of 2", "evaluated sd with a batch of 2", "evaluated vae_decoder"];
        assert_eq!(of(&activity[network..], "evaluated"), expected, "{log}");
    }
}

#[test]
fn a_large_decoder_is_evaluated_on_a_small_square_only_where_memory_is_not_ample() {
    let evaluations = |memory: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = sample("onnxruntime", &bundle("sd"), &folder.path().join("x.npy"));
        command.args(["--prompt", PROMPT, "--steps", "1", "--width", "64", "--height", "64"]);
        // A cache of its own: without a measurement of an earlier start.
        command.env("DENOISED_ENGINE__CACHE", folder.path().join("cache"));
        command.env("DENOISED_ENGINE__MEMORY", memory).env("RUST_LOG", "denoised=debug");
        let log = String::from_utf8(succeeds(&mut command).stderr).unwrap();
        activity(log.lines()).into_iter().filter(|event| *event == "evaluated vae_decoder").count()
    };
    assert_eq!(["none", "1 GiB", "64 MiB"].map(evaluations), [1, 1, 2]);
}

#[test]
fn sample_without_guidance_encodes_one_prompt() {
    let log = sample_log("onnxruntime", &bundle("sd"), &["--prompt", PROMPT, "--guidance", "1"]);
    let evaluated = of(&activity(log.lines()), "evaluated");
    let step = "evaluated sd with a batch of 1";
    assert_eq!(evaluated, ["evaluated text_encoder", step, step, "evaluated vae_decoder"], "{log}");
}

#[test]
fn a_network_whose_output_declares_no_channels_is_evaluated_once_more() {
    let log = sample_log("onnxruntime", &golden("gaussian"), &[]);
    let activity = activity(log.lines());
    assert_eq!(of(&activity, "opened"), ["opened gaussian on cpu"], "{log}");
    assert_eq!(of(&activity, "evaluated"), ["evaluated gaussian with a batch of 1"; 3], "{log}");
}

#[test]
fn the_daemon_evaluates_a_default_job_s_batch_once_before_it_is_ready() {
    let broker = Broker::start();
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nproviders = [\"cpu\"]\nlibrary = {:?}\n",
        onnxruntime().display().to_string()
    );
    let text = configuration(&broker, "test", &[&bundle("sd"), &model("digits")], &engine);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    // A cache of its own: without embeddings of an earlier start.
    let cache = tempfile::tempdir().unwrap();
    let variables = [
        ("RUST_LOG", "denoised=debug".to_owned()),
        ("DENOISED_ENGINE__CACHE", cache.path().display().to_string()),
    ];
    let mut daemon = Daemon::with_variables(&text, &variables);
    let state = subscriber.wait_for_phase("ready");
    for index in 0..2 {
        assert_eq!(state["models"][index]["provider_shares"][0]["provider"], "cpu", "{state}");
    }
    daemon.wait_for("ready: requests are accepted");
    let log = daemon.log.clone();
    let before = activity(log.iter().map(String::as_str));
    let expected = [
        "opened sd on cpu",
        "evaluated sd with a batch of 2",
        "opened digits on cpu",
        "evaluated digits with a batch of 2",
    ];
    assert_eq!(before, expected, "{log:#?}");
    let request =
        r#"{"id": "a", "model": "sd", "prompt": "a fox", "steps": 2, "sampler": "ddim", "seed": 1}"#;
    publish(&broker, "denoised/test/request", request, &[]);
    let result = subscriber.on("denoised/test/result/a").json();
    let receipt = &result["images"][0]["receipt"];
    assert_eq!(receipt["provider_shares"], state["models"][0]["provider_shares"]);
    daemon.wait_for("evaluated vae_decoder");
    let log = daemon.log.clone();
    let after = &activity(log.iter().map(String::as_str))[before.len()..];
    // The text encoder and the decoder: the network is not opened again.
    assert_eq!(of(after, "opened").len(), 2, "{log:#?}");
    assert_eq!(of(after, "evaluated sd").len(), 2, "{log:#?}");
}

#[test]
fn the_first_evaluation_proves_the_provider() {
    let options = EngineOptions {
        kind: EngineKind::OnnxRuntime,
        library: Some(onnxruntime()),
        providers: vec![Provider::Cuda, Provider::Cpu],
        ..EngineOptions::default()
    };
    let silent = Arc::new(|_| {});
    let mut model = Model::open(&SessionPool::default(), &model("digits"), &options, silent).unwrap();
    // The library has no CUDA, which is known without a session.
    let planned = model.predictor.backend().clone();
    assert_eq!((planned.provider.as_str(), planned.provider_shares.len()), ("cpu", 0));
    assert!(!model.predictor.is_open());
    model.predictor.open().unwrap();
    assert!(model.predictor.is_open() && model.predictor.backend().provider_shares.is_empty());
    model.warm_up(1).unwrap();
    let proven = model.predictor.backend().clone();
    assert_eq!(proven.provider_shares[0].percent, 100.0);
    assert_eq!(proven.rejected_providers[0].provider, "cuda");
    model.warm_up(2).unwrap();
    assert_eq!(*model.predictor.backend(), proven);
}

#[test]
fn sample_refuses_a_required_provider_that_does_not_work() {
    let folder = tempfile::tempdir().unwrap();
    for policy in ["required", "preferred"] {
        let mut command = sample("onnxruntime", &bundle("sd"), &folder.path().join("x.npy"));
        command.env("DENOISED_ENGINE__PROVIDERS", "cuda,cpu").env("DENOISED_ENGINE__POLICY", policy);
        command.args(["--prompt", PROMPT, "--steps", "1"]);
        let reason = "the library of ONNX Runtime 1.23.2 was built without it";
        if policy == "required" {
            let stderr = fails(&mut command, 1);
            assert!(stderr.contains("the execution provider cuda is required"), "{stderr}");
            assert_eq!(stderr.matches(reason).count(), 1, "{stderr}");
        } else {
            // The text encoder, opened before the network, reports nothing of its own.
            let output = succeeds(&mut command);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(stderr.matches(reason).count(), 1, "{stderr}");
            assert!(stderr.contains("(cpu)"), "{stderr}");
        }
    }
}
