//! Jobs that leave out steps and guidance: models for few steps get the settings that they were made for, others those of
//! their pipeline.

use std::path::{Path, PathBuf};

use crate::common::bundles::copy_bundle;
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::golden;
use crate::common::pipelines::{PROMPT, edit, sample, values};
use serde_json::json;
use tempfile::TempDir;

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Copies a folder of `tests/golden/families` under another name.
fn family(folder: &str, name: &str) -> (TempDir, PathBuf) {
    copy_bundle(&golden("families").join(folder), name)
}

/// The lines of `inspect` about defaults.
fn defaults(folder: &Path) -> Vec<String> {
    let output = succeeds(denoised().arg("inspect").arg(folder).args(["--engine", "embedded"]));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip_while(|line| *line != "Defaults of a job").skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.trim_start().to_owned()).collect()
}

/// Draws, and returns the evaluations of the network and of the text encoders, in order.
fn evaluations(folder: &Path, more: &[&str]) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", folder, &scratch.path().join("x.npy"));
    command.args(["--prompt", PROMPT, "--seed", "1", "--width", "32", "--height", "32"]).args(more);
    // A cache of its own: without embeddings of an earlier start.
    command.env("DENOISED_ENGINE__CACHE", scratch.path().join("cache"));
    let output = succeeds(command.env("RUST_LOG", "denoised=debug"));
    let log = String::from_utf8(output.stderr).unwrap();
    let events = log.lines().filter_map(|line| line[line.find("evaluated ")?..].split_once(" in "));
    let events = events.map(|(event, _)| event.trim_start_matches("evaluated ").to_owned());
    events.filter(|event| !event.starts_with("vae") && !event.contains(": ")).collect()
}

/// These texts, the last one `steps` times.
fn expected(encoders: &[&str], step: &str, steps: usize) -> Vec<String> {
    encoders.iter().copied().chain(std::iter::repeat_n(step, steps)).map(str::to_owned).collect()
}

#[test]
fn a_model_without_guidance_is_evaluated_once_a_step_and_encodes_one_prompt() {
    // The pooled embedding takes an evaluation of its own on this engine.
    let xl = &["text_encoder", "text_encoder_2", "text_encoder_2"];
    for (folder, encoders, steps) in [
        ("sd_turbo", &xl[..1], 1),
        ("sdxl_turbo", xl, 1),
        ("sdxl_lightning_4step", xl, 4),
        ("hyper_sdxl_8steps", xl, 8),
        ("sdxl_lcm", xl, 4),
        ("lcm", &["text_encoder"], 4),
    ] {
        let found = evaluations(&golden("families").join(folder), &[]);
        assert_eq!(found, expected(encoders, &format!("{folder} with a batch of 1"), steps));
    }
    // A request comes before the model's own settings.
    let turbo = golden("families").join("sd_turbo");
    for (guidance, encoders, batch) in
        [("1", &["text_encoder"][..], 1), ("0.5", &["text_encoder"], 1), ("1.5", &["text_encoder"; 2], 2)]
    {
        let found = evaluations(&turbo, &["--guidance", guidance, "--steps", "3"]);
        assert_eq!(found, expected(encoders, &format!("sd_turbo with a batch of {batch}"), 3), "{guidance}");
    }
}

#[test]
fn inspect_shows_every_default_with_its_reason() {
    let lightning = defaults(&golden("families/sdxl_lightning_4step"));
    let by = "Lightning, by EulerDiscreteScheduler with timestep_spacing \"trailing\", and the name \
              \"sdxl_lightning_4step\"";
    assert_eq!(
        lightning,
        [
            "sampler              euler (the class of the scheduler)".to_owned(),
            format!("steps                4 ({by}; the number is in the name \"sdxl_lightning_4step\")"),
            format!("guidance             0, one evaluation a step ({by})"),
        ]
    );
    let hyper = defaults(&golden("families/hyper_sdxl_8steps"));
    assert_eq!(
        hyper[3],
        "eta                  1 (Hyper-SD, by TCDScheduler, and the name \"hyper_sdxl_8steps\")"
    );
    assert_eq!(
        defaults(&golden("families/lcm"))[2],
        "guidance             8.5, one evaluation a step (latent consistency model, by the network's input for the \
         guidance weight)"
    );
}

#[test]
fn denoised_toml_replaces_the_defaults_and_a_request_both() {
    let (_directory, turbo) = family("sd_turbo", "turbo");
    let manifest = |text: &str| std::fs::write(turbo.join("denoised.toml"), text).unwrap();
    manifest("[default]\nsteps = 2\nguidance = 1.5\n");
    assert_eq!(
        &defaults(&turbo)[1..],
        [
            "steps                2 ([default] in denoised.toml)",
            "guidance             1.5, two evaluations a step ([default] in denoised.toml)"
        ]
    );
    let encoders = &["text_encoder"; 2];
    assert_eq!(evaluations(&turbo, &[]), expected(encoders, "turbo with a batch of 2", 2));
    let found = evaluations(&turbo, &["--steps", "3", "--guidance", "0"]);
    assert_eq!(found, expected(&encoders[..1], "turbo with a batch of 1", 3));
    for (key, fault) in [
        ("eta = 0.5", "default.eta: eta is 0.5, but this sampler adds no noise; remove eta or set it to 0"),
        (
            "max_sequence_length = 513",
            "default.max_sequence_length: it is 513, but must lie between 1 and 512",
        ),
    ] {
        manifest(&format!("[default]\n{key}\n"));
        let error = fails(denoised().arg("inspect").arg(&turbo).args(["--engine", "embedded"]), 1);
        assert!(error.contains(fault), "{error}");
    }
}

/// SD-Turbo drew by 50 steps with guidance 7.5.
#[test]
fn only_a_folder_whose_scheduler_fits_is_taken_for_a_model_of_few_steps() {
    let pipeline = "steps                50 (the default of StableDiffusionPipeline)";
    for (class, key, value) in [
        ("DPMSolverMultistepScheduler", "timestep_spacing", json!("trailing")),
        ("PNDMScheduler", "timestep_spacing", json!("leading")),
        ("EulerDiscreteScheduler", "prediction_type", json!("v_prediction")),
        ("EulerDiscreteScheduler", "use_karras_sigmas", json!(true)),
    ] {
        let (_directory, cats) = family("sd_turbo", "turbo-cats");
        edit(&cats, "model_index.json", |index| index["scheduler"] = json!(["diffusers", class]));
        edit(&cats, SCHEDULER, |scheduler| {
            scheduler["_class_name"] = json!(class);
            scheduler[key] = value.clone();
        });
        let found = defaults(&cats);
        assert_eq!(found[1], pipeline, "{class}");
        let guidance =
            "guidance             7.5, two evaluations a step (the default of StableDiffusionPipeline)";
        assert_eq!(found[2], guidance);
        let note = format!(
            "note                 the name \"turbo-cats\" is that of a model for few steps, but {class}"
        );
        assert!(found[3].starts_with(&note), "{}", found[3]);
    }
    let (_directory, cats) = family("sd_turbo", "cats");
    assert!(defaults(&cats)[1].starts_with("steps                1 (SD-Turbo, by EulerDiscreteScheduler"));
}

/// `_name_or_path` in model_index.json names the model, whatever the folder is called.
#[test]
fn the_number_of_steps_is_that_of_the_model_s_own_name() {
    let (_directory, folder) = family("sdxl_lightning_4step", "mine");
    assert!(defaults(&folder)[1].starts_with("steps                4 (SDXL-Lightning, by"));
    edit(&folder, "model_index.json", |index| index["_name_or_path"] = json!("me/sdxl-lightning-2step"));
    assert!(defaults(&folder)[1].starts_with("steps                2 (Lightning, by"));
}

/// One step left none at the default strength of 0.8.
#[test]
fn a_picture_to_start_from_raises_the_default_number_of_steps_to_one_that_its_strength_leaves() {
    let picture = golden("families/reference/square.png");
    let folder = golden("families/sd_turbo");
    let image = |more: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.npy");
        let mut command = sample("embedded", &folder, &file);
        command.args(["--prompt", PROMPT, "--seed", "1", "--width", "64", "--height", "64", "--image"]);
        command.arg(&picture);
        succeeds(command.args(more));
        values(&file).1
    };
    assert_eq!(image(&[]), image(&["--steps", "2", "--strength", "0.8"]));
    assert_eq!(image(&["--strength", "0.5"]), image(&["--strength", "0.5", "--steps", "2"]));
    assert_eq!(image(&["--strength", "1"]), image(&["--strength", "1", "--steps", "1"]));
}
