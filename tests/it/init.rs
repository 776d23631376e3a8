//! Networks with arbitrary inputs, described by a denoised.toml.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::commands::{denoised, fails, succeeds};
use crate::common::{golden, largest_difference};
use denoised::npy;
use tempfile::TempDir;

/// A folder with only the network of `tests/golden/denoiser.py`, which returns
/// (0.25 x + σ² difficulty) / (0.25 + σ²).
fn folder() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("maze");
    std::fs::create_dir(&path).unwrap();
    std::fs::copy(golden("denoiser/network.onnx"), path.join("network.onnx")).unwrap();
    (directory, path)
}

const LINES: &str = r#"[graph]
file = "network.onnx"
sample = "noisy"
timestep = "sigma"
output = "denoised"
[scheduler]
class = "CMStochasticIterativeScheduler"
preconditioning = "none"
[conditions]
difficulty = { default = 0.25, min = 0.0, max = 1.0 }
"#;

fn noise(path: &Path) -> Vec<f32> {
    let values: Vec<f32> = (0..128 * 128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 30.0).collect();
    std::fs::write(path, npy::write(&[1, 1, 128, 128], &values).unwrap()).unwrap();
    values
}

fn sample(bundle: &Path, more: &[&str]) -> (Command, PathBuf, Vec<f32>) {
    let output = bundle.with_file_name("sample.npy");
    let given = bundle.with_file_name("noise.npy");
    let z = noise(&given);
    let mut command = denoised();
    command.arg("sample").arg(bundle).arg("--output").arg(&output).args(["--engine", "embedded"]);
    command.arg("--init-noise").arg(given).args(more);
    (command, output, z)
}

fn exact(x: f32, sigma: f32, difficulty: f32) -> f32 {
    (0.25 * x + sigma * sigma * difficulty) / (0.25 + sigma * sigma)
}

#[test]
fn a_network_that_takes_sigma_runs_with_a_manifest_of_ten_lines() {
    let (_directory, bundle) = folder();
    assert_eq!(LINES.lines().count(), 10);
    std::fs::write(bundle.join("denoised.toml"), LINES).unwrap();
    // One step from σ = 80.
    let (mut command, output, z) = sample(&bundle, &["--steps", "1"]);
    succeeds(&mut command);
    let expected: Vec<f32> = z.iter().map(|z| exact(80.0 * z, 80.0, 0.25).clamp(-1.0, 1.0)).collect();
    let found: Vec<f32> = npy::read(&output).unwrap().iter().copied().collect();
    assert!(largest_difference(&found, &expected) < 1e-6);
    // Many Euler steps on the same network reach the end of the exact ODE trajectory.
    let (mut command, output, z) = sample(&bundle, &["--steps", "200", "--sampler", "edm_euler"]);
    succeeds(&mut command);
    let scale = 0.5 / (80.0_f32 * 80.0 + 0.25).sqrt();
    let expected: Vec<f32> = z.iter().map(|z| 0.25 + (80.0 * z - 0.25) * scale).collect();
    let found: Vec<f32> = npy::read(&output).unwrap().iter().copied().collect();
    assert!(largest_difference(&found, &expected) < 0.02);
    // A sampler for networks that take timesteps does not support this one.
    let (mut command, ..) = sample(&bundle, &["--steps", "3", "--sampler", "ddim"]);
    assert!(fails(&mut command, 2).contains("conditions the network on the time step"));
}

#[test]
fn init_writes_a_draft_that_runs_and_overwrites_nothing() {
    let (_directory, bundle) = folder();
    let mut init = denoised();
    init.arg("init").arg(bundle.join("network.onnx"));
    let draft = String::from_utf8(succeeds(&mut init).stdout).unwrap();
    assert!(draft.contains("sample = \"noisy\"") && draft.contains("[conditions.\"difficulty\"]"), "{draft}");
    let (mut command, output, z) = sample(&bundle, &[]);
    succeeds(&mut command);
    let expected: Vec<f32> = z.iter().map(|z| exact(80.0 * z, 80.0, 0.0).clamp(-1.0, 1.0)).collect();
    let found: Vec<f32> = npy::read(&output).unwrap().iter().copied().collect();
    assert!(largest_difference(&found, &expected) < 1e-6);
    assert!(fails(&mut init, 2).contains("already exists and is not overwritten"));
    let other = bundle.join("other.onnx");
    std::fs::write(&other, "no graph").unwrap();
    std::fs::remove_file(bundle.join("denoised.toml")).unwrap();
    let stderr = fails(denoised().arg("init").arg(&other), 1);
    assert!(stderr.contains("other.onnx"), "{stderr}");
}

#[test]
fn init_drafts_the_classes_of_a_network_so_that_its_next_command_runs() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("digits");
    std::fs::create_dir_all(bundle.join("unet")).unwrap();
    std::fs::copy(
        crate::common::bundles::model("digits").join("unet/model.onnx"),
        bundle.join("unet/model.onnx"),
    )
    .unwrap();
    // The folder instead of the file.
    let output = succeeds(denoised().arg("init").arg(&bundle));
    let draft = String::from_utf8(output.stdout).unwrap();
    assert!(
        draft.contains("file = \"unet/model.onnx\"") && draft.contains("class_labels = \"class_labels\""),
        "{draft}"
    );
    let manifest = denoised::bundle::Manifest::parse(&draft).unwrap();
    assert_eq!(manifest.classes.names.len(), 11);
    let log = String::from_utf8(output.stderr).unwrap();
    let command = log.split_once("then run: denoised ").unwrap().1.trim();
    assert!(command.ends_with("--class 0"), "{command}");
    let picture = directory.path().join("x.png");
    let mut next = denoised();
    next.arg("sample")
        .arg(&bundle)
        .arg("--output")
        .arg(&picture)
        .args(["--class", "0", "--engine", "embedded"]);
    succeeds(next.args(["--steps", "2"]));
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn init_prints_the_cause_of_a_failure_once() {
    let (_directory, bundle) = folder();
    let missing = bundle.join("missing.onnx");
    let error = fails(denoised().arg("init").arg(&missing), 1);
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    assert_eq!(error.matches("missing.onnx").count(), 1, "{error}");
    let empty = bundle.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = fails(denoised().arg("init").arg(&empty), 1);
    assert!(
        error.contains("empty has no ONNX file; copy the network there, or export the model again"),
        "{error}"
    );
    std::fs::copy(bundle.join("network.onnx"), bundle.join("second.onnx")).unwrap();
    let error = fails(denoised().arg("init").arg(&bundle), 1);
    assert!(error.contains("has several ONNX files; name one: network.onnx, second.onnx"), "{error}");
}

/// The command that it printed failed, for want of text encoders, sizes or a scheduler.
#[test]
fn init_printed_a_next_command_that_cannot_work() {
    let (_directory, sd) = crate::common::bundles::copy_bundle(&golden("latent/bundles/sd"), "sd");
    let stderr = fails(denoised().arg("init").arg(sd.join("unet/model.onnx")), 2);
    let root = sd.canonicalize().unwrap();
    assert!(
        stderr.contains(&format!("is the network of the pipeline in {}; name that folder", root.display()))
    );
    // A network of text without the rest of its pipeline.
    let alone = sd.with_file_name("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(sd.join("unet/model.onnx"), alone.join("net.onnx")).unwrap();
    let stderr = String::from_utf8(succeeds(denoised().arg("init").arg(&alone)).stderr).unwrap();
    assert!(!stderr.contains("then run"), "{stderr}");
    // A graph in the folder onnx was not found.
    let (_directory, bundle) = folder();
    std::fs::create_dir(bundle.join("onnx")).unwrap();
    std::fs::rename(bundle.join("network.onnx"), bundle.join("onnx/network.onnx")).unwrap();
    let output = succeeds(denoised().arg("init").arg(&bundle));
    assert!(String::from_utf8(output.stdout).unwrap().contains("file = \"onnx/network.onnx\""));
    assert!(String::from_utf8(output.stderr).unwrap().contains("then run: denoised sample"));
}

#[test]
fn fit_preview_adds_a_preview_once() {
    let (_directory, bundle) = crate::common::bundles::copy_bundle(&golden("latent/bundles/sd3"), "sd3");
    let mut fit = denoised();
    fit.arg("fit-preview").arg(&bundle).args(["--count", "8", "--engine", "embedded"]);
    succeeds(&mut fit);
    let text = std::fs::read_to_string(bundle.join("denoised.toml")).unwrap();
    let manifest = denoised::bundle::Manifest::parse(&text).unwrap();
    assert_eq!(manifest.preview.unwrap().factors.len(), 16);
    assert!(fails(&mut fit, 1).contains("already has a [preview]"));
}

#[test]
fn every_command_in_docs_models_md_runs() {
    let page = std::fs::read_to_string(crate::common::repository().join("docs/models.md")).unwrap();
    assert!(page.contains(LINES), "the tested denoised.toml is not the one in docs/models.md");
    let (directory, _maze) = folder();
    let (_other, sd) = crate::common::bundles::copy_bundle(&golden("live/sd_live"), "sd15");
    std::fs::rename(sd.join("controlnet"), sd.join("controlnet_canny")).unwrap();
    std::fs::rename(sd, directory.path().join("sd15")).unwrap();
    for (file, name) in
        [("loras/a_peft_r4.safetensors", "style.safetensors"), ("reference/control_a.png", "edges.png")]
    {
        std::fs::copy(golden("live").join(file), directory.path().join(name)).unwrap();
    }
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| line.starts_with("denoised ")).collect();
    assert!(lines.len() >= 4, "{lines:?}");
    let program = Path::new(env!("CARGO_BIN_EXE_denoised")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for line in lines {
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DENOISED_")) {
            shell.env_remove(name);
        }
        succeeds(
            shell
                .args(["-c", line])
                .current_dir(directory.path())
                .env("PATH", &path)
                .env_remove("ORT_DYLIB_PATH"),
        );
    }
    for picture in ["fox.png", "maze.png"] {
        assert!(std::fs::read(directory.path().join(picture)).unwrap().starts_with(b"\x89PNG"), "{picture}");
    }
}

/// The existing denoised.toml was reported instead.
#[test]
fn a_graph_that_is_missing_is_named_first() {
    let (_directory, path) = folder();
    std::fs::write(path.join("denoised.toml"), LINES).unwrap();
    let error = fails(denoised().arg("init").arg(path.join("nope.onnx")), 1);
    assert!(error.contains("cannot read") && error.contains("nope.onnx: No such file"), "{error}");
}
