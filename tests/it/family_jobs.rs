//! Jobs of pipelines whose text encoder is a language model: cached embeddings, limits of guidance, and what is refused.

use std::path::Path;

use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{sample, values};
use crate::common::{golden, largest_difference};

/// Draws with Z-Image on the embedded engine with a cache, and returns the picture and the log.
fn draw_logged(cache: &Path, prompt: &str) -> (Vec<f32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.npy");
    let mut command = sample("embedded", &golden("language_models/zimage"), &output);
    command.args(["--prompt", prompt, "--steps", "2", "--guidance", "3", "--seed", "1"]);
    command.args(["--width", "64", "--height", "64"]);
    command.env("DENOISED_ENGINE__CACHE", cache).env("RUST_LOG", "denoised=debug");
    let log = String::from_utf8_lossy(&succeeds(&mut command).stderr).into_owned();
    (values(&output).1, log)
}

#[test]
fn a_repeated_prompt_opens_no_text_encoder() {
    let cache = tempfile::tempdir().unwrap();
    let (first, log) = draw_logged(cache.path(), "a red fox");
    assert!(log.contains("evaluated text_encoder"), "{log}");
    let (again, log) = draw_logged(cache.path(), "a red fox");
    assert!(!log.contains("text_encoder"), "{log}");
    assert_eq!(first, again);
    // The empty negative prompt is known, the prompt is not.
    let (other, log) = draw_logged(cache.path(), "a blue ship");
    assert_eq!(log.matches("evaluated text_encoder").count(), 1, "{log}");
    assert_ne!(other, again);
    // A damaged entry is encoded again.
    for entry in std::fs::read_dir(cache.path().join("embeddings")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let (repaired, log) = draw_logged(cache.path(), "a red fox");
    assert!(
        log.contains("the cached embedding is damaged") && log.contains("evaluated text_encoder"),
        "{log}"
    );
    assert_eq!(repaired, again);
}

#[test]
fn guidance_of_z_image_has_its_own_limits() {
    let draw = |more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("x.npy");
        let mut command = sample("embedded", &golden("language_models/zimage"), &output);
        command.args(["--prompt", "a red fox", "--steps", "4", "--seed", "1"]);
        succeeds(command.args(["--width", "64", "--height", "64"]).args(more));
        values(&output).1
    };
    let guided = draw(&["--guidance", "4"]);
    let unguided = draw(&["--guidance", "0"]);
    // A weight of 1 is guidance here, and limits that bound nothing change nothing.
    assert!(largest_difference(&draw(&["--guidance", "1"]), &unguided) > 0.01);
    assert_eq!(draw(&["--guidance", "4", "--cfg-truncation", "1", "--cfg-normalization", "0"]), guided);
    assert!(largest_difference(&draw(&["--guidance", "4", "--cfg-normalization", "0.5"]), &guided) > 0.01);
    assert!(largest_difference(&draw(&["--guidance", "4", "--cfg-truncation", "0.2"]), &guided) > 0.01);
    // Every step but the first, at a signal level of 0, is truncated.
    let first_step = draw(&["--guidance", "4", "--cfg-truncation", "0"]);
    assert!(largest_difference(&first_step, &unguided) > 1e-4 && first_step != guided);
}

#[test]
fn what_a_family_does_not_take_is_refused_by_its_field() {
    let picture = crate::common::pipelines::bundle("init.png").display().to_string();
    for (folder, more, expected) in [
        ("sana", &["--width", "200"][..], "needs a multiple of 32; use 192 or 224"),
        ("sana", &["--image", &picture], "the pipeline of sana only starts from noise; remove image"),
        ("sana", &["--clip-skip", "1"], "sana does not support clip_skip"),
        ("sana", &["--cfg-truncation", "0.5"], "sana does not support cfg_truncation"),
        ("zimage", &["--cfg-truncation", "1.5"], "cfg_truncation is 1.5, but must lie between 0 and 1"),
        ("zimage", &["--width", "72"], "needs a multiple of 16; use 64 or 80"),
        ("zimage", &["--prompt-2", "x"], "zimage does not support prompt_2"),
    ] {
        let output = tempfile::tempdir().unwrap();
        let mut command =
            sample("embedded", &golden("language_models").join(folder), &output.path().join("x.png"));
        let error = fails(command.args(["--prompt", "fox"]).args(more), 2);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
