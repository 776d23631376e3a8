//! `denoised replay`: pictures that are drawn again.

use std::path::{Path, PathBuf};
use std::process::Command;

use denoised::image::{EmbeddedText, Encoding, Format, encode_image};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::common::bundles::{copy_bundle, model};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, edit, sample};
use crate::live::live;

/// A model, and a directory for the pictures that it draws.
pub struct Studio {
    pub model: PathBuf,
    directory: TempDir,
}

impl Studio {
    pub fn new(model: &Path) -> Self {
        Self { model: model.to_owned(), directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Draws a picture, and returns its path.
    pub fn draw(&self, name: &str, more: &[&str]) -> PathBuf {
        let path = self.path(name);
        let mut command = denoised();
        command.arg("sample").arg(&self.model).arg("--output").arg(&path).args(["--engine", "embedded"]);
        succeeds(command.args(more));
        path
    }

    pub fn replay(&self, file: &Path) -> Command {
        replay(file, &self.model)
    }

    /// Replays a picture, which must be the same, and compares what is written with it.
    pub fn check_same(&self, file: &Path, more: &[&str]) {
        let again = self.path("again").with_extension(file.extension().unwrap());
        let mut command = self.replay(file);
        let output = succeeds(command.args(more).arg("--output").arg(&again));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, format!("{}: the same bytes\n", file.display()));
        assert!(std::fs::read(&again).unwrap() == std::fs::read(file).unwrap(), "{}", file.display());
    }
}

fn replay(file: &Path, model: &Path) -> Command {
    let mut command = denoised();
    command.arg("replay").arg(file).arg("--model").arg(model);
    command
}

/// Runs a command that finds a difference, and returns what it prints.
fn differs(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.ends_with("what is drawn here is not the same\n"), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn sha256(path: &Path) -> String {
    format!("{:x}", Sha256::digest(std::fs::read(path).unwrap()))
}

/// Writes a picture with another receipt.
fn with_receipt(path: &Path, change: impl FnOnce(&mut Value)) {
    let file = std::fs::read(path).unwrap();
    let text = EmbeddedText::read(&file).unwrap();
    let mut receipt: Value = serde_json::from_str(&text.receipt).unwrap();
    change(&mut receipt);
    let text = EmbeddedText { receipt: receipt.to_string(), ..text };
    let picture = image::load_from_memory(&file).unwrap();
    std::fs::write(path, encode_image(Format::Png, &picture, Some(&text)).unwrap()).unwrap();
}

#[test]
fn a_picture_of_each_format_is_drawn_again_to_the_byte() {
    let studio = Studio::new(&model("digits"));
    for name in ["a.png", "a.jpg", "a.webp"] {
        studio.check_same(&studio.draw(name, &["--class", "3", "--steps", "4", "--seed", "7"]), &[]);
    }
    let coarse =
        studio.draw("coarse.jpg", &["--class", "3", "--steps", "2", "--seed", "7", "--quality", "40"]);
    studio.check_same(&coarse, &[]);
    let grid = studio.draw("grid.png", &["--count", "5", "--steps", "2", "--seed", "18446744073709551600"]);
    studio.check_same(&grid, &[]);
}

#[test]
fn every_setting_of_a_latent_model_is_replayed() {
    let studio = Studio::new(&bundle("sd"));
    let first = ["--prompt", PROMPT, "--seed", "3", "--steps", "5"];
    let more = [
        "--negative-prompt",
        "rain, \u{1f98a}",
        "--guidance",
        "4.5",
        "--guidance-rescale",
        "0.3",
        "--width",
        "48",
        "--sampler",
        "ddim",
        "--noise",
        "philox",
        "--eta",
        "0.5",
    ];
    for settings in
        [&first[..], &[&first[..], &more].concat(), &[&first[..], &["--sampler", "dpmpp_2m"]].concat()]
    {
        studio.check_same(&studio.draw("fox.png", settings), &[]);
    }
    let sdxl = Studio::new(&bundle("sdxl"));
    let sizes = [
        "--prompt",
        PROMPT,
        "--prompt-2",
        "b",
        "--original-size",
        "40,44",
        "--crop",
        "1,2",
        "--clip-skip",
        "1",
        "--steps",
        "2",
    ];
    sdxl.check_same(&sdxl.draw("sizes.webp", &sizes), &[]);
    let flux = Studio::new(&bundle("flux"));
    flux.check_same(
        &flux.draw("flux.png", &["--prompt", PROMPT, "--max-sequence-length", "16", "--steps", "2"]),
        &[],
    );
}

#[cfg(feature = "system-tests")]
#[test]
fn a_picture_of_onnx_runtime_is_replayed_there_and_named_elsewhere() {
    let onnxruntime = crate::common::commands::onnxruntime();
    let studio = Studio::new(&bundle("sd"));
    let path = studio.path("fox.png");
    succeeds(
        sample("onnxruntime", &studio.model, &path).args(["--prompt", PROMPT, "--seed", "3", "--steps", "5"]),
    );
    let output = succeeds(studio.replay(&path).env("ORT_DYLIB_PATH", onnxruntime));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}: the same bytes\n", path.display()));

    let printed = {
        let output = studio.replay(&path).args(["--engine", "embedded"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed.contains("\n  engine: onnxruntime in the receipt, embedded here\n"), "{printed}");
    assert!(printed.contains("\n  engine_version: 1.23.2 in the receipt, rten "), "{printed}");
}

#[test]
fn loras_and_controls_are_found_by_their_digests() {
    let studio = Studio::new(&live("sd_live"));
    let [first, second] = ["loras/b_kohya_r8.safetensors", "reference/control_a.png"]
        .map(|file| live(file).display().to_string());
    let job = ["--prompt", "a fox", "--steps", "2", "--seed", "5"];
    let own = ["--lora", &format!("{first}=0.5"), "--control", &format!("{second}@0.8,0,0.5")];
    let file = studio.draw("fox.png", &[&job[..], &own].concat());
    let text = EmbeddedText::read(&std::fs::read(&file).unwrap()).unwrap();
    assert!(text.parameters.starts_with("a fox <lora:b_kohya_r8:0.5>\n"), "{}", text.parameters);
    studio.check_same(&file, &["--lora", &first, "--control", &second]);

    let twice = fails(studio.replay(&file).args(["--control", &second, "--control", &second]), 2);
    assert!(
        twice.contains("--control is there 2 times, but the picture was drawn with 1 such file"),
        "{twice}"
    );

    let missing = fails(studio.replay(&file).args(["--control", &second]), 2);
    assert!(missing.contains("loras[0].name is \"b_kohya_r8\", but"), "{missing}");
    assert!(missing.ends_with("; or give the file with --lora FILE\n"), "{missing}");
    let missing = fails(studio.replay(&file).args(["--lora", &first]), 2);
    assert!(
        missing.contains(&format!("--control FILE: its SHA-256 is {}", sha256(Path::new(&second)))),
        "{missing}"
    );
}

#[test]
fn a_model_that_has_changed_is_named_with_what_differs_in_the_picture() {
    let (_directory, changed) = copy_bundle(&bundle("sd"), "sd");
    let studio = Studio::new(&bundle("sd"));
    let file = studio.draw("fox.png", &["--prompt", PROMPT, "--seed", "3", "--steps", "3"]);
    std::fs::copy(bundle("variants/unet_float16.onnx"), changed.join("unet/model.onnx")).unwrap();
    let printed = differs(&mut replay(&file, &changed));
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].contains(" of 1024 pixels differ, by at most "), "{printed}");
    let keys: Vec<_> = lines[1..].iter().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(keys, ["  graph_sha256.unet", "  model_sha256"]);

    // What is written has the new receipt.
    let again = studio.path("again.png");
    differs(replay(&file, &changed).arg("--output").arg(&again));
    let text = EmbeddedText::read(&std::fs::read(&again).unwrap()).unwrap();
    let receipt: Value = serde_json::from_str(&text.receipt).unwrap();
    assert!(lines[2].ends_with(&format!("{} here", receipt["model_sha256"].as_str().unwrap())), "{printed}");
}

#[test]
fn another_version_that_draws_the_same_is_named_and_is_no_difference() {
    let studio = Studio::new(&model("digits"));
    let file = studio.draw("a.png", &["--class", "3", "--steps", "2", "--seed", "7"]);
    with_receipt(&file, |receipt| receipt["version"] = "0.0.9".into());
    let printed = String::from_utf8(succeeds(&mut studio.replay(&file)).stdout).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected =
        format!("{}: the same bytes\n  version: 0.0.9 in the receipt, {version} here\n", file.display());
    assert_eq!(printed, expected);
}

#[test]
fn a_picture_that_was_changed_is_told_from_one_that_was_written_again() {
    let studio = Studio::new(&model("digits"));
    let file = studio.draw("a.png", &["--class", "3", "--steps", "2", "--seed", "7"]);
    let bytes = std::fs::read(&file).unwrap();
    let text = EmbeddedText::read(&bytes).unwrap();
    let mut picture = image::load_from_memory(&bytes).unwrap().to_luma8();
    let encode = |picture: &image::DynamicImage| {
        encode_image(Encoding::from(Format::Png), picture, Some(&text)).unwrap()
    };
    let rewritten = studio.path("rewritten.png");
    std::fs::write(&rewritten, encode(&image::DynamicImage::from(picture.clone()).to_rgb8().into())).unwrap();
    let printed = differs(&mut studio.replay(&rewritten));
    assert!(printed.contains("rewritten.png: the same pixels in another file"), "{printed}");
    picture.get_pixel_mut(3, 4).0[0] ^= 0x10;
    std::fs::write(&rewritten, encode(&picture.into())).unwrap();
    let printed = differs(&mut studio.replay(&rewritten));
    assert!(
        printed.contains("1 of 784 pixels differ, by at most 16 of 255\n  nothing in the receipt"),
        "{printed}"
    );
}

#[test]
fn the_scheduler_of_the_receipt_is_used() {
    let (directory, changed) = copy_bundle(&bundle("sd"), "sd");
    let studio = Studio { model: bundle("sd"), directory };
    let file = studio.draw("fox.png", &["--prompt", PROMPT, "--seed", "3", "--steps", "3"]);
    edit(&changed, "scheduler/scheduler_config.json", |scheduler| scheduler["beta_end"] = json!(0.02));
    let other = Studio { model: changed, ..studio };
    other.check_same(&file, &[]);
    // As `sample --scheduler` does it.
    let scheduler = other.model.join("scheduler/scheduler_config.json").display().to_string();
    let own = Studio::new(&bundle("sd"));
    let file =
        own.draw("a.png", &["--prompt", PROMPT, "--seed", "3", "--steps", "3", "--scheduler", &scheduler]);
    own.check_same(&file, &[]);
}

#[test]
fn a_receipt_alone_draws_its_picture_into_a_file() {
    let studio = Studio::new(&model("digits"));
    let file = studio.draw("a.png", &["--class", "3", "--steps", "2", "--seed", "7"]);
    let [receipt, again] = ["receipt.json", "again.png"].map(|name| studio.path(name));
    std::fs::write(&receipt, EmbeddedText::read(&std::fs::read(&file).unwrap()).unwrap().receipt).unwrap();
    let refused = fails(&mut studio.replay(&receipt), 2);
    assert!(
        refused.ends_with(
            "receipt.json has no picture to compare with; write what is drawn with --output FILE\n"
        )
    );
    let output = succeeds(studio.replay(&receipt).arg("--output").arg(&again));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, format!("{}: drawn; there is no picture to compare with\n", receipt.display()));
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&file).unwrap());

    // The configured model of this name.
    let mut command = denoised();
    command.arg("replay").arg(&file).env("DENOISED_MODELS__PATHS", studio.model.display().to_string());
    succeeds(&mut command);
    let refused = fails(command.env("DENOISED_MODELS__PATHS", model("swissroll").display().to_string()), 2);
    let expected = "the model is \"digits\", which is none of the configured ones (swissroll); name its folder with --model\n";
    assert!(refused.ends_with(expected), "{refused}");
}
