//! Execution providers of ONNX Runtime: OpenVINO, which works on any x86-64 CPU, and CUDA and TensorRT, whose
//! libraries are missing.
#![cfg(target_arch = "x86_64")]

use std::path::Path;
use std::process::Command;

use rten_onnx::onnx::{NodeProto, OperatorSetIdProto};

use crate::common::broker::{Broker, publish};
use crate::common::bundles::{copy_bundle, model};
use crate::common::commands::{denoised, fails, library, onnxruntime, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::onnx_files;
use crate::common::onnx_graphs::node;
use crate::common::subscriber::Subscriber;
use crate::common::{golden, largest_difference};

/// Returns a command with this ONNX Runtime library, these providers and this engine cache.
fn denoised_with(library: &Path, providers: &str, cache: &Path) -> Command {
    let mut command = denoised();
    command.env("ORT_DYLIB_PATH", library).env("DENOISED_ENGINE__PROVIDERS", providers);
    command.env("DENOISED_ENGINE__CACHE", cache);
    command
}

fn stdout_and_stderr(command: &mut Command) -> (String, String) {
    let output = succeeds(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_required_provider_with_a_missing_library_fails_and_names_the_library() {
    let cache = tempfile::tempdir().unwrap();
    let gpu = library("DENOISED_TEST_GPU");
    for (provider, missing) in [("tensorrt", "libcublas.so.12"), ("cuda", "libcublasLt.so.12")] {
        let mut command = denoised_with(&gpu, provider, cache.path());
        command.env("DENOISED_ENGINE__POLICY", "required").arg("inspect").arg(golden("gaussian"));
        let stderr = fails(&mut command, 1);
        assert!(stderr.contains(&format!("the execution provider {provider} is required")), "{stderr}");
        assert!(stderr.contains(missing), "{stderr}");
        assert!(stderr.contains("policy = \"preferred\""), "{stderr}");
        // No engine build is announced.
        assert!(!stderr.contains("builds its engine"), "{stderr}");
    }
    let mut command = denoised_with(&onnxruntime(), "cuda", cache.path());
    command.env("DENOISED_ENGINE__POLICY", "required").arg("inspect").arg(golden("gaussian"));
    let stderr = fails(&mut command, 1);
    assert!(stderr.contains("the library of ONNX Runtime 1.23.2 was built without it"), "{stderr}");
}

#[test]
fn min_batch_is_rejected_with_cuda_graph() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = denoised_with(&library("DENOISED_TEST_GPU"), "tensorrt", cache.path());
    command.env("DENOISED_ENGINE__POLICY", "required").arg("inspect").arg(golden("gaussian"));
    command.env("DENOISED_ENGINE__TENSORRT__CUDA_GRAPH", "true");
    assert!(fails(&mut command, 1).contains("libcublas.so.12"));
    let stderr = fails(command.env("DENOISED_ENGINE__TENSORRT__MIN_BATCH", "2"), 1);
    assert!(
        stderr.contains(
            "cuda_graph pads every batch to the largest, so that min_batch and opt_batch have no effect"
        ),
        "{stderr}"
    );
}

#[test]
fn a_daemon_whose_required_provider_does_not_work_does_not_start() {
    let broker = Broker::start();
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"cuda\", \"cpu\"]\npolicy = \"required\"",
        library("DENOISED_TEST_GPU").display().to_string()
    );
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], &engine));
    daemon.wait_for("libcublasLt.so.12");
    assert_eq!(daemon.process.child.wait().unwrap().code(), Some(1));
}

#[test]
fn if_preferred_providers_fail_state_and_receipts_report_the_cpu_and_the_reasons() {
    let broker = Broker::start();
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"tensorrt\", \"cuda\", \"cpu\"]",
        library("DENOISED_TEST_GPU").display().to_string()
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let mut daemon = Daemon::start(&configuration(&broker, "test", &[&golden("gaussian")], &engine));
    let state = subscriber.wait_for_phase("ready");
    publish(&broker, "denoised/test/request", r#"{"id": "a", "steps": 3, "count": 3}"#, &[]);
    let result = subscriber.on("denoised/test/result/a").json();
    let receipts = result["images"].as_array().unwrap().iter().map(|image| &image["receipt"]);
    let reports: Vec<_> = receipts.chain([&state["models"][0]]).collect();
    assert_eq!(reports.len(), 4);
    for report in reports {
        assert_eq!(report["provider"], "cpu");
        assert_eq!(report["provider_shares"][0]["provider"], "cpu");
        assert_eq!(report["provider_shares"][0]["percent"], 100.0);
        let [tensorrt, cuda] = report["rejected_providers"].as_array().unwrap().as_slice() else {
            panic!("{report}")
        };
        assert_eq!(
            (tensorrt["provider"].as_str(), cuda["provider"].as_str()),
            (Some("tensorrt"), Some("cuda"))
        );
        assert!(cuda["reason"].as_str().unwrap().starts_with("Failed to load library"), "{cuda}");
    }
    assert_eq!(daemon.count("the execution provider tensorrt does not work here"), 1);
}

#[test]
fn inspect_reports_the_share_of_openvino_and_a_second_start_reuses_its_engine() {
    let cache = tempfile::tempdir().unwrap();
    let openvino = library("DENOISED_TEST_OPENVINO");
    let inspect = || {
        let mut command = denoised_with(&openvino, "openvino,cpu", cache.path());
        stdout_and_stderr(command.env("RUST_LOG", "info").arg("inspect").arg(model("digits")))
    };
    let engines = || {
        let mut files = Vec::new();
        for directory in std::fs::read_dir(cache.path()).unwrap() {
            files.extend(std::fs::read_dir(directory.unwrap().path()).unwrap().map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), std::fs::read(entry.path()).unwrap())
            }));
        }
        files.retain(|(name, _)| name.to_string_lossy().ends_with(".blob"));
        files
    };
    let (report, log) = inspect();
    assert!(report.contains("provider openvino\n"), "{report}");
    assert!(report.contains("provider share       openvino ran 567 nodes in 100 % of the time"), "{report}");
    assert!(log.contains("openvino builds its engine of digits"), "{log}");
    let built = engines();
    assert_eq!(built.len(), 1);
    let (report, log) = inspect();
    assert!(report.contains("provider share       openvino ran 567 nodes in 100 % of the time"), "{report}");
    assert!(!log.contains("builds its engine"), "{log}");
    assert!(engines() == built, "the engine was written again");
}

/// Replaces the nodes of a graph by one that copies the input, of an operator that only the CPU provider has.
fn make_cpu_only(graph: &Path) {
    onnx_files::edit(graph, |model| {
        let domain = || Some("com.microsoft".to_owned());
        model.opset_import.push(OperatorSetIdProto { domain: domain(), version: Some(1) });
        let graph = model.graph.as_mut().unwrap();
        let [input, output] = [&graph.input[0], &graph.output[0]].map(|value| value.name.clone().unwrap());
        graph.node = vec![NodeProto { domain: domain(), ..node("SampleOp", &[&input], &output) }];
        graph.initializer.clear();
    });
}

#[test]
fn a_provider_that_runs_no_node_of_the_first_evaluation_is_rejected() {
    let cache = tempfile::tempdir().unwrap();
    let (_directory, bundle) = copy_bundle(&golden("gaussian"), "copying");
    make_cpu_only(&bundle.join("unet/model.onnx"));
    let output = cache.path().join("x.npy");
    let sample = |policy: &str| {
        let mut command = denoised_with(&library("DENOISED_TEST_OPENVINO"), "openvino,cpu", cache.path());
        command.env("DENOISED_ENGINE__POLICY", policy).arg("sample").arg(&bundle);
        command.args(["--steps", "2", "--output"]).arg(&output);
        command
    };
    let reason = "it was registered, but ran none of the nodes of copying";
    let stderr = fails(&mut sample("required"), 1);
    assert!(stderr.contains("the execution provider openvino is required but does not work"), "{stderr}");
    assert!(stderr.contains(reason) && !output.exists(), "{stderr}");
    let (_, stderr) = stdout_and_stderr(&mut sample("preferred"));
    assert_eq!(stderr.matches(reason).count(), 1, "{stderr}");
    assert!(stderr.contains("(cpu)"), "{stderr}");
}

/// Negates 256 weights in the middle of a graph's file.
fn negate_weights(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    let weight = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    let is_weight = |x: f32| (1e-7..10.0).contains(&x.abs());
    // The offset of the weights is unknown, so each of the four possible alignments is tried.
    let start = (middle..middle + 4)
        .find(|&start| bytes[start..start + 1024].chunks_exact(4).all(|four| is_weight(weight(four))));
    let start = start.expect("there are no weights in the middle of this file");
    bytes[start..start + 1024].chunks_exact_mut(4).for_each(|four| four[3] ^= 0x80);
}

#[test]
fn a_changed_model_is_not_served_from_the_old_engine() {
    let cache = tempfile::tempdir().unwrap();
    let (_directory, bundle) = copy_bundle(&model("swissroll"), "roll");
    let openvino = library("DENOISED_TEST_OPENVINO");
    let out = tempfile::tempdir().unwrap();
    let draw = |providers: &str| {
        let file = out.path().join("points.npy");
        let mut command = denoised_with(&openvino, providers, cache.path());
        command.arg("sample").arg(&bundle).args(["--seed", "1", "--steps", "10", "--output"]).arg(&file);
        let (_, log) = stdout_and_stderr(&mut command);
        (denoised::npy::read(&file).unwrap().into_raw_vec_and_offset().0, log)
    };
    let (before, _) = draw("openvino,cpu");
    let graph = bundle.join("unet/model.onnx");
    let mut bytes = std::fs::read(&graph).unwrap();
    negate_weights(&mut bytes);
    std::fs::write(&graph, bytes).unwrap();
    let (after, log) = draw("openvino,cpu");
    assert!(
        log.contains(
            "the engine that openvino built for roll no longer fits (another graph) and is built again"
        ),
        "{log}"
    );
    let (on_cpu, _) = draw("cpu");
    assert!(largest_difference(&before, &after) > 0.01);
    assert!(largest_difference(&after, &on_cpu) < 1e-3);
}

#[test]
fn build_engines_builds_the_engines_that_the_daemon_loads() {
    let broker = Broker::start();
    let (cache, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"openvino\", \"cpu\"]\ncache = {:?}\n\
         [models.engine.gaussian]\nproviders = [\"cpu\"]\n",
        library("DENOISED_TEST_OPENVINO").display().to_string(),
        cache.path().display().to_string()
    );
    let models = [golden("gaussian"), model("digits")];
    let text = configuration(&broker, "test", &[&models[0], &models[1]], &engine);
    let mut subscriber = Subscriber::start(&broker, "denoised/test/state");
    let file = spool.path().join("config.toml");
    std::fs::write(&file, &text).unwrap();
    let build = || stdout_and_stderr(denoised().arg("build-engines").arg("--config").arg(&file)).0;
    let report = build();
    assert!(report.contains("gaussian: nothing had to be built"), "{report}");
    assert!(report.contains("digits: the engine was built"), "{report}");
    assert!(report.contains("it runs on onnxruntime 1.24.1 with openvino"), "{report}");
    assert!(build().contains("digits: nothing had to be built"), "{report}");

    let _daemon = Daemon::start(&text);
    let state = subscriber.wait_for_phase("ready");
    let served: Vec<_> = [0, 1].map(|i| state["models"][i]["provider"].as_str().unwrap()).into();
    assert_eq!(served, ["cpu", "openvino"]);
    assert!(!subscriber.seen.iter().any(|m| m.json()["phase"] == "building_engine"));
    assert_eq!(state["elapsed_s"], serde_json::Value::Null);
}

#[test]
fn the_state_reports_the_phase_building_engine() {
    let broker = Broker::start();
    let cache = tempfile::tempdir().unwrap();
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"openvino\"]\ncache = {:?}\n",
        library("DENOISED_TEST_OPENVINO").display().to_string(),
        cache.path().display().to_string()
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/test/state");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], &engine));
    subscriber.wait_for_phase("ready");
    let mut phases: Vec<_> =
        subscriber.seen.iter().map(|m| m.json()["phase"].as_str().unwrap().to_owned()).collect();
    phases.dedup();
    let building =
        phases.iter().position(|phase| phase == "building_engine").expect("no phase building_engine");
    assert_eq!(phases[building..], ["building_engine", "warming", "ready"]);
}

#[test]
fn a_daemon_that_is_stopped_while_it_builds_an_engine_exits_with_0() {
    let broker = Broker::start();
    // A crash in ONNX Runtime's static destructors affected one exit in ten.
    for _ in 0..20 {
        let cache = tempfile::tempdir().unwrap();
        let engine = format!(
            "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"openvino\"]\ncache = {:?}\n",
            library("DENOISED_TEST_OPENVINO").display().to_string(),
            cache.path().display().to_string()
        );
        let mut daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], &engine));
        daemon.wait_for("openvino builds its engine");
        daemon.signal("TERM");
        assert_eq!(daemon.process.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_interim_provider_serves_until_the_engine_is_built() {
    let broker = Broker::start();
    let cache = tempfile::tempdir().unwrap();
    let engine = format!(
        "[engine]\nkind = \"onnxruntime\"\nlibrary = {:?}\nproviders = [\"openvino\", \"cpu\"]\ncache = {:?}\n\
         interim_provider = \"cpu\"\n",
        library("DENOISED_TEST_OPENVINO").display().to_string(),
        cache.path().display().to_string()
    );
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let text = configuration(&broker, "test", &[&model("digits")], &engine);
    let mut daemon = Daemon::start(&text);
    assert_eq!(subscriber.wait_for_phase("ready")["provider"], "cpu");
    // One provider draws the whole job, although the engine is ready before the job ends.
    let long = r#"{"id": "long", "steps": 400, "count": 2, "seed": 1, "class": 1}"#;
    publish(&broker, "denoised/test/request", long, &[]);
    daemon.wait_for("model digits is now served by openvino");
    subscriber.next(|m| m.topic.ends_with("/state") && m.json()["provider"] == "openvino");
    publish(&broker, "denoised/test/request", &long.replace("long", "later").replace("400", "10"), &[]);
    subscriber.on("denoised/test/result/later");
    let providers = |subscriber: &Subscriber, id: &str| -> Vec<String> {
        let topic = format!("denoised/test/result/{id}");
        let result = subscriber.seen.iter().find(|m| m.topic == topic).unwrap().json();
        let images = result["images"].as_array().unwrap().clone();
        images.iter().map(|image| image["receipt"]["provider"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(providers(&subscriber, "later"), ["openvino", "openvino"]);
    assert_eq!(providers(&subscriber, "long"), ["cpu", "cpu"]);

    // The daemon exits if a required provider fails, although the interim provider works.
    let failing = text.replace("providers = [\"openvino\"", "policy = \"required\"\nproviders = [\"cuda\"");
    let mut daemon = Daemon::start(&failing.replace("node = \"test\"", "node = \"other\""));
    daemon.wait_for("the execution provider cuda is required");
    assert_eq!(daemon.process.child.wait().unwrap().code(), Some(1));
}

#[test]
fn an_unwritable_directory_is_not_reported_as_a_failure_of_the_provider() {
    let cache = tempfile::tempdir().unwrap();
    for (library, providers) in [(onnxruntime(), "cpu"), (library("DENOISED_TEST_OPENVINO"), "openvino,cpu")]
    {
        let mut command = denoised_with(&library, providers, cache.path());
        command.env("TMPDIR", "/nonexistent").arg("inspect").arg(golden("gaussian"));
        let stderr = fails(&mut command, 1);
        assert!(stderr.contains("cannot create a directory in /nonexistent: "), "{stderr}");
        assert!(stderr.contains("set TMPDIR") && !stderr.contains("does not work here"), "{stderr}");
    }
}

#[test]
fn too_little_memory_for_a_build_is_reported_with_a_hint() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = denoised_with(&library("DENOISED_TEST_OPENVINO"), "openvino", cache.path());
    command.env("DENOISED_ENGINE__POLICY", "required").env("DENOISED_ENGINE__BUILD_MEMORY", "1000000 GiB");
    let stderr = fails(command.arg("inspect").arg(golden("gaussian")), 1);
    assert!(
        stderr.contains("[engine] build_memory") && stderr.contains("denoised build-engines"),
        "{stderr}"
    );
}
