//! LoRAs and ControlNets as inputs of the graphs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::bundles::copy_bundle;
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{bundle, sample, values};
use crate::common::{golden, largest_difference, read_json};

/// A file of the fixtures.
pub fn live(file: &str) -> PathBuf {
    golden("live").join(file)
}

/// The differences of latents and image of a case from the reference, drawn with the model in a folder.
pub fn differences(engine: &str, case: &Value, model: &Path) -> (f32, f32) {
    let folder = tempfile::tempdir().unwrap();
    let [image, latents, scheduler] =
        ["image.npy", "latents.npy", "s.json"].map(|file| folder.path().join(file));
    std::fs::write(&scheduler, case["scheduler"].to_string()).unwrap();
    let mut command = sample(engine, model, &image);
    command.arg("--latents").arg(&latents).arg("--scheduler").arg(&scheduler);
    for key in ["prompt", "negative_prompt", "steps", "guidance", "seed"] {
        let value = case[key].as_str().map_or_else(|| case[key].to_string(), str::to_owned);
        command.args([format!("--{}", key.replace('_', "-")), value]);
    }
    for lora in case["loras"].as_array().unwrap() {
        let file = live(lora["file"].as_str().unwrap());
        command.arg("--lora").arg(format!("{}={}", file.display(), lora["weight"]));
    }
    for control in case["controls"].as_array().unwrap() {
        let [net, picture] = ["controlnet", "image"].map(|key| control[key].as_str().unwrap());
        let picture = live(picture);
        let numbers = ["scale", "start", "end"].map(|key| control[key].to_string()).join(",");
        command.arg("--control").arg(format!("{net}={}@{numbers}", picture.display()));
    }
    if case["guess_mode"] == true {
        command.arg("--guess-mode");
    }
    succeeds(&mut command);
    let expected = |file: &str| values(&live(case["files"][file].as_str().unwrap())).1;
    let (shape, image) = values(&image);
    let plane = shape[2] * shape[3];
    let converted = (0..3 * plane).map(|i| (image[i % 3 * plane + i / 3] / 2.0 + 0.5).clamp(0.0, 1.0));
    let image = largest_difference(&converted.collect::<Vec<_>>(), &expected("image"));
    (largest_difference(&values(&latents).1, &expected("latents")), image)
}

fn check_cases(engine: &str) {
    let cases = read_json(&live("cases.json"));
    let cases = cases["cases"].as_array().unwrap();
    for case in cases {
        let (latents, image) = differences(engine, case, &live(case["folder"].as_str().unwrap()));
        let bound = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
        assert!(latents <= bound("latents_max_abs"), "{}: latents {latents}", case["name"]);
        assert!(image <= bound("image_max_abs"), "{}: image {image}", case["name"]);
    }
    assert_eq!(cases.len(), 7);
}

#[cfg(feature = "system-tests")]
#[test]
fn loras_and_controls_reproduce_their_references_on_onnx_runtime() {
    check_cases("onnxruntime");
}

#[test]
fn loras_and_controls_reproduce_their_references_on_the_embedded_engine() {
    check_cases("embedded");
}

fn printed(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stdout).unwrap()
}

fn draw(engine: &str, model: &Path, more: &[&str]) -> Vec<f32> {
    let output = model.with_file_name("drawn.npy");
    let arguments = ["--prompt", "a fox", "--steps", "3", "--seed", "5"];
    succeeds(sample(engine, model, &output).args(arguments).args(more));
    values(&output).1
}

/// A copy of `sd`, which an exporter wrote without any live input, after `denoised init --live`.
pub fn made_live(more: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = copy_bundle(&bundle("sd"), "sd");
    let output = printed(denoised().args(["init", "--live"]).args(more).arg(&path));
    assert!(output.contains("unet/model.onnx: 5 inputs for a ControlNet's residuals"), "{output}");
    (directory, path)
}

#[test]
fn an_export_that_became_live_draws_the_same_bytes() {
    let (_directory, path) = made_live(&["--lora", "all"]);
    assert_eq!(draw("embedded", &path, &[]), draw("embedded", &bundle("sd"), &[]));
    let again = printed(denoised().args(["init", "--live"]).arg(&path));
    assert_eq!(
        again,
        "unet/model.onnx: has live inputs already\ntext_encoder/model.onnx: has live inputs already\n"
    );
    let report = printed(denoised().args(["inspect", "--engine", "embedded"]).arg(&path));
    assert!(report.contains("inputs at 83 layers") && !report.contains("lora_a."), "{report}");
}

#[cfg(feature = "system-tests")]
#[test]
fn an_export_that_became_live_draws_the_same_bytes_on_onnx_runtime() {
    let (_directory, path) = made_live(&[]);
    assert_eq!(draw("onnxruntime", &path, &[]), draw("onnxruntime", &bundle("sd"), &[]));
}

/// The process ended after the export was renamed.
#[test]
fn an_interrupted_change_is_completed() {
    let (_directory, path) = copy_bundle(&bundle("sd"), "sd");
    std::fs::rename(path.join("unet/model.onnx"), path.join("unet/plain.onnx")).unwrap();
    succeeds(denoised().args(["init", "--live"]).arg(&path));
    assert!(path.join("unet/model.onnx").is_file() && path.join("unet/plain.onnx").is_file());
}

#[test]
fn faulty_loras_are_refused_by_name() {
    let sd_live = live("sd_live");
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.npy");
    let refused = |model: &Path, loras: &[String], code: i32| {
        let mut command = sample("embedded", model, &output);
        command.env("DENOISED_LIMITS__LORA_RANK", "12").args(["--prompt", "x", "--steps", "1"]);
        fails(command.args(loras.iter().flat_map(|lora| ["--lora", lora])), code)
    };
    let kohya = live("loras/b_kohya_r8.safetensors");
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &std::fs::read(&kohya).unwrap()[..100_000]).unwrap();
    let text = |path: &Path| path.display().to_string();
    let (_directory, other) = made_live(&[]);
    let (usage, failure) = (2, 1);
    for (model, loras, code, expected) in [
        (&sd_live, vec![text(&cut)], failure, "cut.safetensors is not a complete safetensors file"),
        (&sd_live, vec![text(&kohya); 2], failure, "has the rank 16, but limits.lora_rank is 12"),
        (
            &other,
            vec![text(&kohya)],
            failure,
            "was made for another model: down_blocks.1.attentions.0.proj_in maps 48",
        ),
        (
            &sd_live,
            vec!["nope".to_owned()],
            usage,
            "--lora: loras[0].name is \"nope\", but there is no LoRA; put",
        ),
        (&sd_live, vec![text(&kohya); 100], usage, "loras has 100 entries, but a job has at most 16"),
        (
            &sd_live,
            vec![format!("{}=1e9", text(&kohya))],
            usage,
            "loras[0].weight is 1000000000, but must lie",
        ),
        (&bundle("sd"), vec![text(&kohya)], usage, "denoised init --live"),
        (&bundle("flux"), vec![text(&kohya)], usage, "flux takes no LoRAs"),
    ] {
        let found = refused(model, &loras, code);
        assert!(found.contains(expected), "{found}");
    }
}
