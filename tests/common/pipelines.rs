//! The tiny text-to-image pipelines of `tests/golden/latent/make.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use denoised::npy;
use tempfile::TempDir;

use super::daemon::{copied, denoised, fails, onnxruntime, succeeds};
use super::golden;

pub const PROMPT: &str = "A red fox, in the snow!";

pub fn bundle(name: &str) -> PathBuf {
    golden("latent/bundles").join(name)
}

pub fn values(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let array = npy::read(path).unwrap();
    (array.shape().to_vec(), array.iter().copied().collect())
}

/// `denoised sample` on an engine.
pub fn sample(engine: &str, model: &Path, output: &Path) -> Command {
    let mut command = denoised();
    if engine == "onnxruntime" {
        command.env("ORT_DYLIB_PATH", onnxruntime()).env("DENOISED_ENGINE__PROVIDERS", "cpu");
    }
    command
        .arg("sample")
        .arg(model)
        .arg("--output")
        .arg(output)
        .args(["--engine", engine, "--noise", "torch"]);
    command
}

/// A copy of `sd` in which these parts have other graphs.
pub fn with_variants(parts: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let (directory, path) = copied(&bundle("sd"), "other");
    for (part, variant) in parts {
        std::fs::copy(bundle("variants").join(variant), path.join(part).join("model.onnx")).unwrap();
    }
    (directory, path)
}

pub fn drawn(model: &Path, more: &[&str]) -> Vec<f32> {
    drawn_on("onnxruntime", model, more)
}

pub fn drawn_on(engine: &str, model: &Path, more: &[&str]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.npy");
    let mut command = sample(engine, model, &file);
    succeeds(command.args(["--prompt", PROMPT, "--steps", "5", "--seed", "3"]).args(more));
    values(&file).1
}

/// What `sample` says of wrong words and pictures.
pub fn refused(model: &Path, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample("onnxruntime", model, &folder.path().join("x.png"));
    fails(command.args(["--steps", "4"]).args(more), 2)
}
