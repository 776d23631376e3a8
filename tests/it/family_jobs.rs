//! Jobs of pipelines whose text encoder is a language model: cached embeddings, limits of guidance, and what is refused.

use std::path::Path;

use crate::common::bundles::copy_bundle;
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
        ("language_models/sana", &["--width", "200"][..], "needs a multiple of 32; use 192 or 224"),
        (
            "language_models/sana",
            &["--image", &picture],
            "the pipeline of sana only starts from noise; remove image",
        ),
        ("language_models/sana", &["--clip-skip", "1"], "sana does not support clip_skip"),
        ("language_models/sana", &["--cfg-truncation", "0.5"], "sana does not support cfg_truncation"),
        (
            "language_models/zimage",
            &["--cfg-truncation", "1.5"],
            "cfg_truncation is 1.5, but must lie between 0 and 1",
        ),
        ("language_models/zimage", &["--width", "72"], "needs a multiple of 16; use 64 or 80"),
        ("language_models/zimage", &["--prompt-2", "x"], "zimage does not support prompt_2"),
        ("families/sana_sprint", &["--negative-prompt", "x"], "sana_sprint does not support negative_prompt"),
        ("families/sana_sprint", &["--sampler", "ddim"], "the time step of a flow-matching path"),
    ] {
        let output = tempfile::tempdir().unwrap();
        let mut command = sample("embedded", &golden(folder), &output.path().join("x.png"));
        let error = fails(command.args(["--prompt", "fox"]).args(more), 2);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Draws a fox of 96×96 pixels on the embedded engine, and returns the latents.
fn draw_fox(folder: &Path, more: &[&str]) -> Vec<f32> {
    let output = tempfile::tempdir().unwrap();
    let latents = output.path().join("latents.npy");
    let mut command = sample("embedded", folder, &output.path().join("x.npy"));
    command.arg("--latents").arg(&latents).args(["--prompt", "a red fox in the snow", "--seed", "42"]);
    succeeds(command.args(["--width", "96", "--height", "96"]).args(more));
    values(&latents).1
}

#[test]
fn a_default_job_of_sana_sprint_is_that_of_its_pipeline() {
    let reference = values(&golden("families/reference/sprint_default.latents.npy")).1;
    let folder = golden("families/sana_sprint");
    assert!(largest_difference(&draw_fox(&folder, &[]), &reference) < 1e-4);
    // The network takes the guidance weight times a factor of its configuration.
    let (_directory, scaled) = copy_bundle(&folder, "scaled");
    let file = scaled.join("transformer/config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    let key = "\"guidance_embeds_scale\": ";
    assert!(config.contains(&format!("{key}0.1")));
    std::fs::write(&file, config.replace(&format!("{key}0.1"), &format!("{key}0.2"))).unwrap();
    assert!(largest_difference(&draw_fox(&scaled, &["--guidance", "2.25"]), &reference) < 1e-4);
    assert!(largest_difference(&draw_fox(&scaled, &[]), &reference) > 1e-3);
}

#[test]
fn sana_sprint_is_known_by_its_network_where_no_pipeline_is_named() {
    let folder = golden("families/sana_sprint");
    let (_directory, unnamed) = copy_bundle(&folder, "unnamed");
    std::fs::remove_file(unnamed.join("model_index.json")).unwrap();
    assert_eq!(draw_fox(&unnamed, &[]), draw_fox(&folder, &[]));
}

#[test]
fn the_angles_of_sana_sprint_are_keys_of_its_scheduler() {
    let folder = golden("families/sana_sprint");
    let directory = tempfile::tempdir().unwrap();
    let draw = |keys: &str| {
        let file = directory.path().join("scheduler.json");
        std::fs::write(&file, format!("{{\"_class_name\": \"SCMScheduler\"{keys}}}")).unwrap();
        draw_fox(&folder, &["--scheduler", file.to_str().unwrap()])
    };
    let given = draw("");
    assert_eq!(
        draw(", \"intermediate_timesteps\": 1.3, \"max_timesteps\": 1.5708, \"sigma_data\": 1.0"),
        given
    );
    let even = draw(", \"intermediate_timesteps\": null");
    assert_eq!(draw(", \"intermediate_timesteps\": 0.7854"), even);
    assert!(largest_difference(&even, &given) > 1e-2);
}

#[test]
fn samplers_of_distilled_flows_run_with_every_model_of_a_flow() {
    for (folder, sampler) in [
        ("families/z_image_turbo", "flow_lcm"),
        ("families/z_image_turbo", "scm"),
        ("families/flux2_klein", "flow_lcm"),
        ("families/sana_sprint", "flow_lcm"),
        ("families/sana_sprint", "flow_euler"),
    ] {
        let drawn = draw_fox(&golden(folder), &["--sampler", sampler, "--steps", "3"]);
        let mean_square = drawn.iter().map(|x| x * x).sum::<f32>() / drawn.len() as f32;
        assert!((0.01..100.0).contains(&mean_square), "{folder}, {sampler}: {mean_square}");
    }
}
