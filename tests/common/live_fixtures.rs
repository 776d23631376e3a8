//! Cases of LoRAs and ControlNets with references of diffusers, in `tests/golden/live` and `tests/golden/live_more`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bundles::copy_bundle;
use super::commands::{denoised, succeeds};
use super::pipelines::{sample, values};
use super::{golden, largest_difference, read_json};

/// A directory with `cases.json`.
#[derive(Debug, Clone)]
pub struct Fixtures(PathBuf);

impl Fixtures {
    pub fn new(name: &str) -> Self {
        Self(golden(name))
    }

    pub fn file(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn of(&self, case: &Value, key: &str) -> Option<PathBuf> {
        case[key].as_str().map(|file| self.file(file))
    }

    pub fn cases(&self) -> Vec<Value> {
        read_json(&self.file("cases.json"))["cases"].as_array().unwrap().clone()
    }

    pub fn case(&self, name: &str) -> Value {
        self.cases().into_iter().find(|case| case["name"] == name).unwrap()
    }

    /// The names of cases that may share batches.
    pub fn batches(&self) -> Vec<Value> {
        read_json(&self.file("cases.json"))["batches"].as_array().unwrap().clone()
    }

    /// Draws a case with the model in a folder, and compares it with its reference.
    pub fn check(&self, engine: &str, case: &Value, model: &Path, what: &str) {
        let (latents, image) = self.draw(engine, case, model);
        let latents = largest_difference(&latents, &self.expected(case, "latents"));
        let bound = case["tolerance"]["latents_max_abs"].as_f64().unwrap() as f32;
        assert!(latents <= bound, "{what}: {}: latents {latents}", case["name"]);
        self.check_image(case, &image, what);
    }

    /// Compares a picture in −1..1 with a case's reference.
    pub fn check_image(&self, case: &Value, image: &[f32], what: &str) {
        let plane = image.len() / 3;
        let converted = (0..image.len()).map(|i| (image[i % 3 * plane + i / 3] / 2.0 + 0.5).clamp(0.0, 1.0));
        let difference = largest_difference(&converted.collect::<Vec<_>>(), &self.expected(case, "image"));
        let bound = case["tolerance"]["image_max_abs"].as_f64().unwrap() as f32;
        assert!(difference <= bound, "{what}: {}: image {difference}", case["name"]);
    }

    fn expected(&self, case: &Value, what: &str) -> Vec<f32> {
        values(&self.of(&case["files"], what).unwrap()).1
    }

    /// The latents and the picture of a case, by its seed alone.
    fn draw(&self, engine: &str, case: &Value, model: &Path) -> (Vec<f32>, Vec<f32>) {
        let folder = tempfile::tempdir().unwrap();
        let [image, latents, scheduler] =
            ["image.npy", "latents.npy", "s.json"].map(|file| folder.path().join(file));
        std::fs::write(&scheduler, case["scheduler"].to_string()).unwrap();
        let mut command = sample(engine, model, &image);
        command.arg("--latents").arg(&latents).arg("--scheduler").arg(&scheduler);
        for key in NUMBERS.into_iter().chain(["prompt", "negative_prompt"]) {
            if !case[key].is_null() {
                let value = case[key].as_str().map_or_else(|| case[key].to_string(), str::to_owned);
                command.args([format!("--{}", key.replace('_', "-")), value]);
            }
        }
        for (flag, key) in [("--image", "init_image"), ("--mask", "mask_image")] {
            if let Some(file) = self.of(case, key) {
                command.arg(flag).arg(file);
            }
        }
        for lora in case["loras"].as_array().unwrap() {
            let file = self.of(lora, "file").unwrap();
            command.arg("--lora").arg(format!("{}={}", file.display(), lora["weight"]));
        }
        for control in case["controls"].as_array().unwrap() {
            let (net, picture) =
                (control["controlnet"].as_str().unwrap(), self.of(control, "image").unwrap());
            let numbers = ["scale", "start", "end"].map(|key| control[key].to_string()).join(",");
            command.arg("--control").arg(format!("{net}={}@{numbers}", picture.display()));
        }
        if case["guess_mode"] == true {
            command.arg("--guess-mode");
        }
        succeeds(&mut command);
        (values(&latents).1, values(&image).1)
    }

    /// A case as a job of the daemon.
    pub fn request(&self, case: &Value) -> Value {
        let encoded = |file: PathBuf| json!(BASE64.encode(std::fs::read(file).unwrap()));
        let lora = |lora: &Value| {
            let file = self.of(lora, "file").unwrap();
            json!({"name": file.file_stem().unwrap().to_str().unwrap(), "weight": lora["weight"]})
        };
        let control = |control: &Value| {
            let [scale, start, end] = ["scale", "start", "end"].map(|key| control[key].clone());
            let image = encoded(self.of(control, "image").unwrap());
            json!({"net": control["controlnet"], "image": image, "scale": scale, "start": start, "end": end})
        };
        let all = |key: &str, convert: &dyn Fn(&Value) -> Value| {
            case[key].as_array().unwrap().iter().map(convert).collect::<Vec<_>>()
        };
        let mut request = json!({
            "id": case["name"], "loras": all("loras", &lora), "controls": all("controls", &control),
        });
        for key in NUMBERS.into_iter().chain(["prompt", "negative_prompt", "guess_mode"]) {
            if !case[key].is_null() {
                request[key] = case[key].clone();
            }
        }
        for (key, own) in [("image", "init_image"), ("mask", "mask_image")] {
            if let Some(file) = self.of(case, own) {
                request[key] = encoded(file);
            }
        }
        request
    }
}

const NUMBERS: [&str; 6] = ["steps", "guidance", "seed", "width", "height", "strength"];

/// A copy of a plain export after `denoised init --live`, with what the command printed.
pub fn made_live(export: &Path, more: &[&str]) -> (TempDir, PathBuf, String) {
    let (directory, path) = copy_bundle(export, export.file_name().unwrap().to_str().unwrap());
    let output = succeeds(denoised().args(["init", "--live"]).args(more).arg(&path)).stdout;
    (directory, path, String::from_utf8(output).unwrap())
}
