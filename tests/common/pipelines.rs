//! The tiny text-to-image pipelines of `tests/golden/latent/make.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use denoised::npy;
use serde_json::Value;
use tempfile::TempDir;

use super::bundles::copy_bundle;
use super::commands::{denoised, fails, onnxruntime, succeeds};
use super::{golden, read_json};

pub const PROMPT: &str = "A red fox, in the snow!";

/// Returns the directory of one of these pipelines.
pub fn bundle(name: &str) -> PathBuf {
    golden("latent/bundles").join(name)
}

/// Reads the shape and the values of an .npy file.
pub fn values(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let array = npy::read(path).unwrap();
    (array.shape().to_vec(), array.iter().copied().collect())
}

/// Packs a latent of this shape as Flux does: one row for each patch of 2×2, with the patch of each channel.
pub fn packed(planes: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let patches = (0..height / 2).flat_map(|y| (0..width / 2).map(move |x| (2 * y, 2 * x)));
    let corners =
        patches.flat_map(|(y, x)| (0..channels).map(move |channel| (channel * height + y) * width + x));
    corners.flat_map(|i| [i, i + 1, i + width, i + width + 1]).map(|i| planes[i]).collect()
}

/// Returns a `denoised sample` command for an engine.
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

/// Copies `sd`, and replaces the graphs of these components.
pub fn with_variants(components: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let (directory, path) = copy_bundle(&bundle("sd"), "other");
    for (component, variant) in components {
        std::fs::copy(bundle("variants").join(variant), path.join(component).join("model.onnx")).unwrap();
    }
    (directory, path)
}

/// Samples with ONNX Runtime, the prompt [`PROMPT`], five steps and seed 3; returns the image.
pub fn sample_image(model: &Path, more: &[&str]) -> Vec<f32> {
    sample_image_on("onnxruntime", model, more)
}

pub fn sample_image_on(engine: &str, model: &Path, more: &[&str]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.npy");
    let mut command = sample(engine, model, &file);
    succeeds(command.args(["--prompt", PROMPT, "--steps", "5", "--seed", "3"]).args(more));
    values(&file).1
}

/// Returns the error of `sample` for invalid prompts or pictures.
pub fn rejection(model: &Path, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample("onnxruntime", model, &folder.path().join("x.png"));
    fails(command.args(["--steps", "4"]).args(more), 2)
}

/// Copies a pipeline of `tests/golden/latent`.
pub fn folder(name: &str) -> (TempDir, PathBuf) {
    copy_bundle(&bundle(name), name)
}

/// Changes a JSON file of a folder.
pub fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value = read_json(&path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}
