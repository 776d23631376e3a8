//! What `denoised sample` refuses before the first step, by the flag at fault.

use std::path::Path;

use crate::common::bundles::model;
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, sample};

/// Runs a job of two steps that must be refused, and returns the error.
fn refusal(folder: &Path, more: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", folder, &scratch.path().join("x.png"));
    fails(command.args(["--steps", "2"]).args(more), 2)
}

#[test]
fn a_clip_skip_beyond_the_layers_is_refused_by_its_flag() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, largest) in [("sdxl", 1), ("sd3", 1)] {
        let error = refusal(&bundle(name), &["--prompt", PROMPT, "--clip-skip", "5"]);
        let expected = format!(
            "--clip-skip: clip_skip is 5, but the text encoder has {largest} layers to skip; use {largest} or less"
        );
        assert!(error.contains(&expected), "{error}");
        let mut command = sample("embedded", &bundle(name), &scratch.path().join("x.png"));
        let most = largest.to_string();
        succeeds(command.args(["--prompt", PROMPT, "--steps", "2", "--clip-skip", &most]));
    }
    let error = refusal(&bundle("sd"), &["--prompt", PROMPT, "--clip-skip", "1"]);
    assert!(
        error.contains("--clip-skip: clip_skip is not supported: the text encoder's graph has"),
        "{error}"
    );
}

#[test]
fn a_network_that_fills_in_parts_of_a_picture_needs_both_flags() {
    let picture = bundle("init.png").display().to_string();
    for (given, flag) in [(&[][..], "--image"), (&["--image", &picture], "--mask")] {
        let error = refusal(&bundle("sd_inpaint"), &[&["--prompt", PROMPT], given].concat());
        let expected = format!("{flag}: this network fills in parts of an image: give image and mask");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_seed_whose_images_would_wrap_to_0_is_refused() {
    let seed = |seed: &str, count: &str| {
        vec!["--class", "3", "--seed", seed, "--count", count]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let error = {
        let flags = seed("18446744073709551615", "2");
        refusal(&model("digits"), &flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let expected = "--seed: seed is 18446744073709551615, but image i has seed + i, and the largest seed is \
                    18446744073709551615; use 18446744073709551614 or less for 2 images";
    assert!(error.contains(expected), "{error}");
    let scratch = tempfile::tempdir().unwrap();
    for (first, count) in [("18446744073709551615", "1"), ("18446744073709551614", "2")] {
        let mut command = sample("embedded", &model("digits"), &scratch.path().join("x.png"));
        succeeds(command.args(["--steps", "2"]).args(seed(first, count)));
    }
}

#[test]
fn the_pixels_that_the_configuration_allows_bound_a_picture() {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("config.toml");
    std::fs::write(&config, "[limits]\npixels = 1024\n").unwrap();
    let config = config.display().to_string();
    let size = ["--prompt", PROMPT, "--config", &config, "--height", "32", "--width"];
    let error = refusal(&bundle("sd"), &[&size[..], &["64"]].concat());
    assert!(error.contains("--width: 64×32 pixels are more than 1024 (limits.pixels)"), "{error}");
    let mut command = sample("embedded", &bundle("sd"), &scratch.path().join("x.png"));
    succeeds(command.args(["--steps", "2"]).args(size).arg("32"));
}

/// The field was the sampler, and the code `unknown_sampler`.
#[test]
fn a_number_of_steps_that_a_sampler_cannot_do_was_the_samplers_fault() {
    let error = refusal(&model("digits"), &["--class", "3", "--sampler", "pndm"]);
    assert!(
        error.contains("--steps: steps is 2, which pndm cannot do with this model; use 4 (skip_prk_steps"),
        "{error}"
    );
}

/// The null label was missing, which the model has.
#[test]
fn guidance_without_a_class_was_reported_as_a_model_without_a_null_label() {
    let error = refusal(&model("digits"), &["--guidance", "2"]);
    assert!(
        error.ends_with("--guidance: guidance needs a class; choose one from 0 to 9, or remove guidance\n"),
        "{error}"
    );
}

/// `--width` and `--format` were named, which nobody had given.
#[test]
fn a_flag_was_named_that_was_not_given() {
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("config.toml");
    std::fs::write(&config, "[limits]\npixels = 16\n").unwrap();
    let error = refusal(&bundle("sd"), &["--prompt", PROMPT, "--config", &config.display().to_string()]);
    assert!(!error.contains("--width") && error.contains("the model's default size: "), "{error}");
}

#[test]
fn the_command_that_init_advises_has_a_prompt_for_a_network_that_takes_text() {
    let (_directory, folder) = crate::common::bundles::copy_bundle(&bundle("sd"), "sd");
    let output = succeeds(denoised().arg("init").arg(&folder));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.trim_end().ends_with(" --output x.png --prompt \"a red fox\""), "{log}");
}
