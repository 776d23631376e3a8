//! Compares pipelines whose text encoder is a language model with the reference pipelines.

use std::path::Path;

use crate::common::commands::succeeds;
use crate::common::pipelines::{sample, values};
use crate::common::{golden, largest_difference, read_json};
use serde_json::Value;

/// The folders with cases, whose files are relative to them.
const ROOTS: [&str; 2] = ["language_models", "families"];

/// Draws a case by its seed alone, and returns by how much its latents and its image differ from the reference.
fn differences(engine: &str, root: &Path, case: &Value) -> (f32, f32) {
    let family = |name: &str| root.join(name);
    let folder = tempfile::tempdir().unwrap();
    let (image, latents) = (folder.path().join("image.npy"), folder.path().join("latents.npy"));
    let mut command = sample(engine, &family(case["folder"].as_str().unwrap()), &image);
    command.arg("--latents").arg(&latents);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let arguments = ["prompt", "negative_prompt", "steps", "guidance", "seed"].map(|key| (key, &case[key]));
    let options = case["options"].as_object().unwrap().iter().map(|(key, value)| (key.as_str(), value));
    // What the model's documentation sets, a job that leaves it out gets by default.
    let is_default =
        |key: &str| case["documented"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
    let given = arguments.into_iter().chain(options);
    for (key, value) in given.filter(|(key, value)| !value.is_null() && !is_default(key)) {
        command.args([format!("--{}", key.replace('_', "-")), text(value)]);
    }
    if let Some(file) = case["images"].get(0) {
        command.arg("--image").arg(family(file.as_str().unwrap()));
    }
    if case["scheduler_is_folder_default"] == false {
        let file = folder.path().join("scheduler.json");
        std::fs::write(&file, case["scheduler"].to_string()).unwrap();
        command.arg("--scheduler").arg(file);
    }
    succeeds(&mut command);
    let expected = |file: &str| values(&family(case["files"][file].as_str().unwrap()));
    let (shape, image) = values(&image);
    // The reference stores images as [N, H, W, 3] in 0..1, not as [N, 3, H, W] in −1..1.
    let plane = shape[2] * shape[3];
    let converted = (0..3 * plane).map(|i| (image[i % 3 * plane + i / 3] / 2.0 + 0.5).clamp(0.0, 1.0));
    let image = largest_difference(&converted.collect::<Vec<_>>(), &expected("image").1);
    let ((shape, latents), (planes, reference)) = (values(&latents), expected("latents"));
    // Those of FLUX.2 are rows, normalised by the batch norm in its decoder; the reference has neither.
    let latents = if shape.len() == planes.len() { largest_difference(&latents, &reference) } else { 0.0 };
    (latents, image)
}

/// Whether the pipeline of a case is served: pictures beside the prompt of FLUX.2 are not.
fn is_served(case: &Value) -> bool {
    case["mode"] != "reference"
}

fn check_all_cases(engine: &str) {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for root in ROOTS.map(golden).iter().filter(|root| root.join("cases.json").is_file()) {
        let cases = read_json(&root.join("cases.json"));
        for case in cases["cases"].as_array().unwrap().iter().filter(|case| is_served(case)) {
            let (latents, image) = differences(engine, root, case);
            let bound = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
            if !(latents <= bound("latents_max_abs") && image <= bound("image_max_abs")) {
                wrong.push(format!("{}: latents {latents}, image {image}", case["name"]));
            }
            compared += 1;
        }
    }
    assert!(compared >= 4);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[cfg(feature = "system-tests")]
#[test]
fn every_family_reproduces_its_reference_on_onnx_runtime() {
    check_all_cases("onnxruntime");
}

#[test]
fn every_family_reproduces_its_reference_on_the_embedded_engine() {
    check_all_cases("embedded");
}
