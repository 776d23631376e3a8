//! `denoised build-engines` where its engines can be kept, and where they cannot.

use std::path::Path;
use std::process::Command;

use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, library, onnxruntime, succeeds};
use crate::common::pipelines::bundle;

/// Returns a command that builds the engine of `swissroll` for OpenVINO.
fn build_engines(cache: &Path) -> Command {
    let mut command = denoised();
    command
        .arg("build-engines")
        .env("DENOISED_ENGINE__KIND", "onnxruntime")
        .env("DENOISED_ENGINE__LIBRARY", library("DENOISED_TEST_OPENVINO"))
        .env("DENOISED_ENGINE__PROVIDERS", "openvino,cpu")
        .env("DENOISED_ENGINE__CACHE", cache)
        .env("DENOISED_MODELS__PATHS", model("swissroll"));
    command
}

/// Only systemd made the cache, at the first start of the service. Before it, the engine was built and thrown away, and
/// the command exited with 0.
#[test]
fn an_engine_that_could_not_be_kept_was_built_with_exit_code_0() {
    // No user can make this directory.
    let stderr = fails(&mut build_engines(Path::new("/dev/null/cache")), 1);
    let expected = format!(
        "denoised: {}: cannot keep the engine in /dev/null/cache: Not a directory (os error 20). Give this user the \
         directory (sudo install -d -o \"$USER\" DIRECTORY), or set [engine] cache to one that this user can write to\n",
        model("swissroll").display()
    );
    assert_eq!(stderr, expected);
}

#[test]
fn a_cache_that_does_not_exist_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("not/yet");
    let stdout = String::from_utf8(succeeds(&mut build_engines(&cache)).stdout).unwrap();
    let expected = format!("swissroll: the engine was built and is kept in {}, ", cache.display());
    assert!(stdout.starts_with(&expected), "{stdout}");
    let engines: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(engines.len(), 1);
    assert!(engines[0].join("key.json").is_file());
}

/// Only the network's graph was prepared, so that the first job prepared the others.
#[test]
fn the_graphs_around_the_network_are_opened_once() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = build_engines(cache.path());
    command.env("DENOISED_ENGINE__LIBRARY", onnxruntime()).env("DENOISED_ENGINE__PROVIDERS", "cpu");
    command.env("DENOISED_MODELS__PATHS", bundle("sd")).env("RUST_LOG", "denoised=debug");
    let log = String::from_utf8(succeeds(&mut command).stderr).unwrap();
    for graph in ["sd", "sd-text_encoder_1", "sd-vae_decoder", "sd-vae_encoder"] {
        assert_eq!(log.matches(&format!("opened {graph} on cpu")).count(), 1, "{graph}: {log}");
    }
    assert_eq!(log.matches("evaluated ").count(), 1, "{log}");
}

#[test]
fn a_provider_that_does_not_work_is_named_as_the_reason_for_no_engine() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = build_engines(cache.path());
    command.env("DENOISED_ENGINE__BUILD_MEMORY", "1000000 GiB");
    let stdout = String::from_utf8(succeeds(&mut command).stdout).unwrap();
    assert!(
        stdout.starts_with("swissroll: no engine is kept, because openvino does not work here, "),
        "{stdout}"
    );
}

/// The path was printed twice, and the key that names it was not.
#[test]
fn a_wrong_path_of_a_model_was_reported_without_its_key() {
    let cache = tempfile::tempdir().unwrap();
    let expected =
        "denoised: models.paths: /nonexistent/model is not a directory; name the directory of a model\n";
    let mut command = build_engines(cache.path());
    let stderr = fails(command.env("DENOISED_MODELS__PATHS", "/nonexistent/model"), 1);
    assert_eq!(stderr, expected);
    let mut command = denoised();
    command.arg("run").env("DENOISED_MODELS__PATHS", "/nonexistent/model");
    command.env("DENOISED_MQTT__URL", "mqtt://127.0.0.1:1").env("DENOISED_SPOOL__PATH", cache.path());
    let stderr = fails(command.env("DENOISED_ENGINE__KIND", "embedded"), 1);
    assert!(stderr.ends_with(expected), "{stderr}");
}

/// The service can read engines of root, but neither replace nor remove them.
#[test]
fn root_built_engines_in_the_cache_of_the_service() {
    let cache = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(cache.path(), Some(4_000_001), None).is_err() {
        return; // Only root can give a directory away.
    }
    let stderr = fails(&mut build_engines(cache.path()), 1);
    let expected = format!(
        "denoised: engine.cache {} belongs to the user 4000001, who could not replace engines that root builds; run \
         sudo -u 4000001 denoised build-engines\n",
        cache.path().display()
    );
    assert_eq!(stderr, expected);
}
