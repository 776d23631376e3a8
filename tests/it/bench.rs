//! `denoised bench`: the figures that the owner of a board sends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::board::Tree;
use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, onnxruntime, succeeds};
use crate::common::golden;
use crate::common::pipelines::bundle;
use crate::common::thermal::set_temperature;

/// Returns a command that measures each figure once.
fn bench(model: &Path) -> Command {
    let mut command = denoised();
    command.arg("bench").arg(model).args(["--repeat", "1"]).env("DENOISED_ENGINE__KIND", "embedded");
    command
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&succeeds(command.arg("--json")).stdout).unwrap()
}

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The figure at a JSON pointer, which must be more than 0.
fn positive(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.filter(|value| *value > 0.0).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// Checks the structure of a report about `digits`.
fn check_report(report: &Value) {
    let sections = [
        "board",
        "engine",
        "engine_version",
        "evaluations",
        "job",
        "libraries",
        "load",
        "memory",
        "model",
        "provider",
        "provider_shares",
        "version",
    ];
    assert_eq!(keys(report), sections);
    assert_eq!(report["model"]["name"], "digits");
    assert_eq!(report["model"]["precision"], "float32, as exported");
    assert_eq!(report["model"]["sha256"].as_str().unwrap().len(), 64);
    let sizes: Vec<_> = report["evaluations"].as_array().unwrap().iter().map(|row| &row["batch"]).collect();
    assert_eq!(sizes, [1, 2, 4]);
    for row in 0..3 {
        assert_eq!(report["evaluations"][row]["width_px"], 28);
        assert_eq!(report["evaluations"][row]["count"], 1);
        for figure in ["first_ms", "median_ms", "min_ms"] {
            positive(report, &format!("/evaluations/{row}/{figure}"));
        }
    }
    let figures = [
        "/load/first_ms",
        "/load/later_ms",
        "/load/resident_mib",
        "/job/first_ms",
        "/memory/resident_peak_mib",
    ];
    for figure in figures {
        positive(report, figure);
    }
    assert_eq!(report["job"]["evaluations"], 3);
    let (whole, rate) = (positive(report, "/job/median_ms"), positive(report, "/job/pictures_per_s"));
    assert!((rate * whole / 1e3 - 1.0).abs() < 0.01, "{rate} pictures a second, {whole} ms each");
    let parts = ["/job/evaluations_ms", "/job/rest_ms"].map(|part| positive(report, part));
    assert!((parts.iter().sum::<f64>() - whole).abs() < 0.01, "{parts:?} of {whole} ms");
}

#[test]
fn a_report_has_all_figures_of_the_embedded_engine() {
    let report = json(bench(&model("digits")).args(["--steps", "3"]));
    check_report(&report);
    assert_eq!((&report["engine"], &report["provider"]), (&"embedded".into(), &"cpu".into()));
    assert!(report["job"]["energy_per_picture_j"].is_null() || report["job"]["power_w"].is_number());
}

#[test]
#[cfg(feature = "system-tests")]
fn a_report_has_all_figures_of_onnxruntime() {
    let mut command = bench(&model("digits"));
    command.args(["--steps", "3", "--engine", "onnxruntime"]).args(["--empty-cache"]);
    command.env("ORT_DYLIB_PATH", onnxruntime()).env("DENOISED_ENGINE__PROVIDERS", "cpu");
    let report = json(&mut command);
    check_report(&report);
    assert_eq!(report["engine"], "onnxruntime");
    assert_eq!(report["load"]["is_cache_empty"], true);
    assert_eq!(report["provider_shares"][0]["provider"], "cpu");
}

#[test]
fn the_sensors_of_a_board_give_energy_and_temperatures() {
    let board = Tree::jetson("NVIDIA Jetson Orin Nano Developer Kit", "R36 (release), REVISION: 4.3");
    for (file, text) in [
        ("name", "ina3221"),
        ("in1_label", "VDD_IN"),
        ("in1_input", "5000"),
        ("curr1_input", "1600"),
        ("in2_label", "VDD_SOC"),
        ("in2_input", "5000"),
        ("curr2_input", "500"),
    ] {
        board.write(&format!("sys/class/hwmon/hwmon3/{file}"), &format!("{text}\n"));
    }
    set_temperature(board.path(), 61);
    board.install_tensorrt(&["10.3.0"]);
    let mut command = bench(&golden("gaussian"));
    let report = json(command.env("DENOISED_BOARD__ROOT", board.path()).env("PATH", ""));
    assert_eq!(report["board"]["name"], "NVIDIA Jetson Orin Nano Developer Kit");
    assert_eq!(report["board"]["jetpack"], "JetPack 6.2");
    assert_eq!(report["libraries"]["tensorrt"], "10.3.0");
    let job = &report["job"];
    assert_eq!((&job["power_w"], &job["power_source"]), (&8.0.into(), &"INA3221, rail VDD_IN".into()));
    assert_eq!((&job["rails_w"]["VDD_IN"], &job["rails_w"]["VDD_SOC"]), (&8.0.into(), &2.5.into()));
    assert_eq!(job["temperatures_c"]["gpu-thermal"], 61.0);
    let (energy, seconds) = (&job["energy_per_picture_j"], job["median_ms"].as_f64().unwrap() / 1e3);
    assert!((energy.as_f64().unwrap() - 8.0 * seconds).abs() <= 0.001, "{energy} in {seconds} s");
}

#[test]
fn the_memory_and_the_power_of_a_gpu_are_those_of_nvidia_smi() {
    let programs = tempfile::tempdir().unwrap();
    let smi = programs.path().join("nvidia-smi");
    // It runs until it is stopped, as nvidia-smi does.
    std::fs::write(&smi, "#!/bin/sh\necho '75.5, 1024, 41'\nexec /bin/sleep 1000\n").unwrap();
    std::fs::set_permissions(&smi, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = bench(&golden("gaussian"));
    let report = json(command.env("PATH", programs.path()).env("DENOISED_BOARD__ROOT", programs.path()));
    let job = &report["job"];
    assert_eq!((&job["power_w"], &job["power_source"]), (&75.5.into(), &"nvidia-smi, the GPU alone".into()));
    assert_eq!((&job["gpu_memory_mib"], &job["temperatures_c"]["gpu"]), (&1024.0.into(), &41.0.into()));
    assert_eq!(report["memory"]["gpu_peak_mib"], 1024.0);
}

#[test]
fn every_pipeline_has_a_usual_job() {
    for name in ["sd", "lcm", "sdxl", "sd_inpaint"] {
        let mut command = bench(&bundle(name));
        let report = json(command.args(["--steps", "1", "--batch", "1", "--size", "32,48x32"]));
        let sizes: Vec<_> =
            report["evaluations"].as_array().unwrap().iter().map(|row| &row["width_px"]).collect();
        assert_eq!(sizes, [32, 48], "{name}");
        positive(&report, "/job/decoding_ms");
    }
}

#[test]
fn a_table_has_the_figures_without_json() {
    let output = succeeds(bench(&golden("gaussian")).args(["--batch", "2"]));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "Machine\n",
        "  name                 gaussian\n",
        "  5×4, batch 2         ",
        "  pictures per second  ",
    ] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("evaluating 5×4 in a batch of 2\n"), "{progress}");
}

#[test]
fn wrong_arguments_are_named() {
    let stderr = |model: &str, arguments: &[&str]| fails(bench(&golden(model)).args(arguments), 2);
    // The model was loaded twice before, and the flag was called width.
    let batch = stderr("gaussian", &["--batch", "9"]);
    assert_eq!(
        batch,
        "denoised: --batch: 9 is not a batch size that this model takes; use 1 to 8, or change [engine] batch\n"
    );
    let size = stderr("gaussian", &["--size", "64"]);
    assert_eq!(size, "denoised: --size: gaussian only makes samples of shape [1, 4, 5]; remove --size\n");
    let size = stderr("gaussian", &["--size", "64x"]);
    assert!(size.contains("expected a size in pixels, such as 512 or 768x512"), "{size}");
    let missing = fails(&mut bench(Path::new("/nonexistent")), 1);
    assert!(missing.contains("/nonexistent"), "{missing}");
}
