//! Folders whose files leave something out or contradict the pipeline: the pipelines of diffusers replace keys, and so does
//! the program.

use std::path::Path;

use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, edit, folder, sample, values};
use serde_json::{Value, json};

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Sets a key of a JSON file, or removes it.
fn set(folder: &Path, file: &str, key: &str, to: Option<Value>) {
    edit(folder, file, |value| {
        let object = value.as_object_mut().unwrap();
        match to {
            Some(to) => object.insert(key.to_owned(), to),
            None => object.remove(key),
        };
    });
}

fn inspect(folder: &Path) -> String {
    let output = succeeds(denoised().arg("inspect").arg(folder).args(["--engine", "embedded"]));
    String::from_utf8(output.stdout).unwrap()
}

/// The error of a folder that is refused when it is opened.
fn refusal(folder: &Path) -> String {
    fails(denoised().arg("inspect").arg(folder).args(["--engine", "embedded"]), 1)
}

/// The latents of a job of four steps.
fn latents(folder: &Path, more: &[&str]) -> Vec<f32> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("latents.npy");
    let mut command = sample("embedded", folder, &scratch.path().join("image.npy"));
    command.args(["--prompt", PROMPT, "--steps", "4", "--seed", "3"]).args(more).arg("--latents").arg(&file);
    succeeds(&mut command);
    values(&file).1
}

/// The line of `inspect` about a scheduler key.
fn line<'a>(inspected: &'a str, key: &str) -> &'a str {
    inspected.lines().find(|line| line.trim_start().starts_with(&format!("{key} "))).unwrap()
}

#[test]
fn stable_diffusion_s_pipeline_sets_steps_offset_to_1_and_clip_sample_to_false() {
    let expected = latents(&bundle("sd"), &[]);
    for (key, to) in [
        ("steps_offset", Some(json!(0))),
        ("steps_offset", None),
        ("steps_offset", Some(Value::Null)),
        ("clip_sample", Some(json!(true))),
        // The default of DDIMScheduler is true.
        ("clip_sample", None),
    ] {
        let (_directory, sd) = folder("sd");
        set(&sd, SCHEDULER, key, to.clone());
        assert!(latents(&sd, &[]) == expected, "{key} {to:?}");
        let text = inspect(&sd);
        assert!(line(&text, key).ends_with("set by the pipeline, as in diffusers"), "{text}");
    }
    // SDXL's pipeline leaves the keys as they are.
    let (_directory, sdxl) = folder("sdxl");
    set(&sdxl, SCHEDULER, "steps_offset", Some(json!(0)));
    assert!(latents(&sdxl, &[]) != latents(&bundle("sdxl"), &[]));
    assert!(line(&inspect(&sdxl), "steps_offset").ends_with("used"));
}

#[test]
fn the_inpainting_pipeline_skips_the_runge_kutta_steps_of_pndm_and_keeps_clip_sample() {
    let files = [bundle("init.png"), bundle("mask.png")];
    let [image, mask] = files.each_ref().map(|file| file.to_str().unwrap());
    let more = ["--image", image, "--mask", mask, "--width", "32", "--height", "32"];
    let (_directory, sd) = folder("sd");
    edit(&sd, "model_index.json", |index| index["scheduler"][1] = json!("PNDMScheduler"));
    edit(&sd, SCHEDULER, |scheduler| {
        scheduler["_class_name"] = json!("PNDMScheduler");
        scheduler["skip_prk_steps"] = json!(true);
    });
    let expected = latents(&sd, &more);
    for value in [Some(json!(false)), None] {
        set(&sd, SCHEDULER, "skip_prk_steps", value);
        assert!(latents(&sd, &more) == expected);
        let text = inspect(&sd);
        assert!(line(&text, "with").ends_with("the pipeline sets skip_prk_steps true"), "{text}");
    }
    let (_directory, sd) = folder("sd");
    let expected = latents(&sd, &more);
    set(&sd, SCHEDULER, "clip_sample", Some(json!(true)));
    assert!(latents(&sd, &more) != expected);
}

#[test]
fn the_pipeline_raises_a_sample_size_of_before_diffusers_0_9_to_64() {
    let (_directory, sd) = folder("sd");
    assert!(inspect(&sd).contains("sample               [4, 16, 16]"));
    set(&sd, "unet/config.json", "_diffusers_version", Some(json!("0.8.0")));
    let text = inspect(&sd);
    assert!(text.contains("sample               [4, 64, 64]"), "{text}");
}

#[test]
fn null_in_a_scheduler_s_configuration_is_false_and_not_the_default() {
    let of = |key: &str, to: Value| {
        let (_directory, sd) = folder("sd");
        set(&sd, SCHEDULER, key, Some(to));
        (latents(&sd, &[]), inspect(&sd))
    };
    let (found, text) = of("set_alpha_to_one", Value::Null);
    assert!(found == of("set_alpha_to_one", json!(false)).0);
    assert!(found != of("set_alpha_to_one", json!(true)).0);
    assert!(line(&text, "set_alpha_to_one").contains("null"), "{text}");
    assert!(line(&text, "set_alpha_to_one").ends_with("used"), "{text}");
    let (_directory, sd) = folder("sd");
    set(&sd, SCHEDULER, "beta_start", Some(Value::Null));
    assert!(refusal(&sd).ends_with("beta_start is null, but must be a number\n"), "{}", refusal(&sd));
}

#[test]
fn force_zeros_for_empty_prompt_null_is_false() {
    let of = |to: Value| {
        let (_directory, sdxl) = folder("sdxl");
        set(&sdxl, "model_index.json", "force_zeros_for_empty_prompt", Some(to));
        latents(&sdxl, &[])
    };
    let (null, no, yes) = (of(Value::Null), of(json!(false)), of(json!(true)));
    assert!(null == no && no != yes);
}

#[test]
fn a_scheduler_for_networks_that_predict_something_else_is_refused() {
    for (name, class, expected) in [
        ("sd", "FlowMatchEulerDiscreteScheduler", "the pipelines of Stable Diffusion do not work with it"),
        (
            "sdxl",
            "FlowMatchHeunDiscreteScheduler",
            "the pipelines of Stable Diffusion XL do not work with it",
        ),
        ("sd3", "DDIMScheduler", "is for networks that predict noise"),
        ("flux", "EulerDiscreteScheduler", "is for networks that predict noise"),
    ] {
        let (_directory, path) = folder(name);
        edit(&path, "model_index.json", |index| index["scheduler"][1] = json!(class));
        let scheduler = json!({"_class_name": class});
        std::fs::write(path.join(SCHEDULER), scheduler.to_string()).unwrap();
        let error = refusal(&path);
        assert!(error.contains(class) && error.contains(expected), "{error}");
    }
}

#[test]
fn a_sample_size_of_a_trillion_is_refused_by_its_key() {
    let (_directory, sd) = folder("sd");
    set(&sd, "unet/config.json", "sample_size", Some(json!(1_099_511_627_776_u64)));
    let error = refusal(&sd);
    assert!(
        error.contains(
            "unet/config.json: sample_size: it is 1099511627776, but must be a whole number from 1 to 65536"
        ),
        "{error}"
    );
}

/// The log of a job of four steps.
fn log_of(folder: &Path) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", folder, &scratch.path().join("image.npy"));
    let output = succeeds(command.args(["--prompt", PROMPT, "--steps", "1", "--seed", "3"]));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn latents_are_scaled_as_those_of_the_family_where_the_autoencoder_has_no_configuration() {
    for (name, scaling) in [("sd", "0.18215"), ("sdxl", "0.13025"), ("sd3", "1.5305"), ("flux", "0.3611")] {
        let (_directory, path) = folder(name);
        for half in ["vae_decoder", "vae_encoder"] {
            std::fs::remove_file(path.join(half).join("config.json")).unwrap();
        }
        let log = log_of(&path);
        assert!(log.contains("vae_decoder/config.json is missing"), "{log}");
        assert!(log.contains(&format!("(scaling_factor {scaling}, ")), "{log}");
        assert!(inspect(&path).contains(&format!("scaling factor {scaling}")), "{name}");
    }
}

/// The section was reported as without effect, and pictures were refused as points.
#[test]
fn points_in_denoised_toml_had_an_effect_on_a_model_of_latents() {
    let (_directory, sd) = folder("sd");
    std::fs::write(sd.join("denoised.toml"), "[sample]\nkind = \"points\"\nrange = [0.0, 1.0]\n").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let pixels = |model: &Path, name: &str| {
        let output = scratch.path().join(name);
        let mut command = sample("embedded", model, &output);
        let run = succeeds(command.args(["--prompt", PROMPT, "--steps", "1", "--seed", "3"]));
        (std::fs::read(output).unwrap(), String::from_utf8(run.stderr).unwrap())
    };
    let (picture, log) = pixels(&sd, "with.png");
    assert!(
        log.contains("[sample] has no effect: the autoencoder determines the kind and the range"),
        "{log}"
    );
    let (plain, _) = pixels(&bundle("sd"), "without.png");
    assert!(picture == plain);
}

#[test]
fn sections_of_denoised_toml_without_effect_are_reported_when_the_folder_is_opened() {
    let (_directory, sd) = folder("sd");
    let text =
        "[scheduler]\nclass = \"DDPMScheduler\"\n[sample]\nkind = \"points\"\n[classes]\nnames = [\"a\"]\n";
    std::fs::write(sd.join("denoised.toml"), text).unwrap();
    let log = log_of(&sd);
    for section in [
        "[scheduler] has no effect: scheduler_config.json is in the folder",
        "[sample] has no effect: the autoencoder determines",
        "[classes] has no effect: the network takes no class",
    ] {
        assert!(log.contains(&format!("denoised.toml: {section}")), "{log}");
    }
    let text = inspect(&sd);
    assert!(line(&text, "denoised.toml").ends_with("0 used, 0 without effect, 3 not used"), "{text}");
}

#[test]
fn a_component_that_is_null_is_not_served() {
    for (component, value) in [
        ("unet", json!([null, null])),
        ("vae", Value::Null),
        ("vae", json!([null, null])),
        ("tokenizer", json!([null, null])),
        ("scheduler", json!([null, null])),
    ] {
        let (_directory, sd) = folder("sd");
        set(&sd, "model_index.json", component, Some(value));
        let error = refusal(&sd);
        assert!(
            error.contains(&format!("model_index.json: {component} is null, but the pipeline needs it")),
            "{error}"
        );
    }
}

/// The error of `sample`, which must not load the model.
fn sample_error(folder: &Path, more: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", folder, &scratch.path().join("image.png"));
    fails(command.args(["--prompt", PROMPT, "--steps", "1"]).args(more), 2)
}

#[test]
fn a_missing_decoder_is_an_error_before_the_first_step_and_a_graph_of_another_name_is_named() {
    let (_directory, sd) = folder("sd");
    let decoder = sd.join("vae_decoder/model.onnx");
    std::fs::rename(&decoder, sd.join("vae_decoder/model_fp16.onnx")).unwrap();
    let error = sample_error(&sd, &[]);
    assert!(
        error.ends_with(
            "vae_decoder/model.onnx is missing, without which latents do not become pictures; \
             vae_decoder/model_fp16.onnx is there; rename it to model.onnx\n"
        ),
        "{error}"
    );
    std::fs::remove_dir_all(sd.join("vae_decoder")).unwrap();
    assert!(sample_error(&sd, &[]).ends_with("export the whole pipeline\n"));
    let (_directory, sd) = folder("sd");
    std::fs::rename(sd.join("unet/model.onnx"), sd.join("unet/model_fp16.onnx")).unwrap();
    let error = refusal(&sd);
    assert!(error.contains("name it in denoised.toml: [graph] file = \"unet/model_fp16.onnx\""), "{error}");
}

#[test]
fn a_wrong_default_of_denoised_toml_is_found_when_the_folder_is_opened() {
    for (text, expected) in [
        ("sampler = \"nothing\"", "denoised.toml: default.sampler: "),
        ("sampler = \"flow_euler\"", "denoised.toml: default.sampler: "),
        ("guidance = -3.0", "denoised.toml: default.guidance: it is -3, but must lie between 0 and 100"),
    ] {
        let (_directory, sd) = folder("sd");
        std::fs::write(sd.join("denoised.toml"), format!("[default]\n{text}\n")).unwrap();
        let error = refusal(&sd);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_error_of_a_picture_that_no_machine_can_hold_names_the_longer_side() {
    let error = sample_error(&bundle("sd"), &["--height", "9223372036854775808", "--width", "16"]);
    assert!(error.starts_with("denoised: --height: "), "{error}");
    // 16 TiB for one attention.
    let error = sample_error(&bundle("sd"), &["--height", "16384", "--width", "16384"]);
    assert!(error.contains("the attention of the network alone needs"), "{error}");
}

#[test]
fn a_picture_from_a_device_without_end_is_an_error() {
    let error = sample_error(&bundle("sd"), &["--image", "/dev/zero"]);
    assert_eq!(error, "denoised: --image: /dev/zero has more than 256 MiB; name a smaller file\n");
    let scratch = tempfile::tempdir().unwrap();
    let job = scratch.path().join("job.json");
    std::fs::write(&job, r#"{"image": {"file": "/dev/zero"}}"#).unwrap();
    let error = sample_error(&bundle("sd"), &["--job", job.to_str().unwrap()]);
    assert!(error.contains("image: /dev/zero has more than 256 MiB"), "{error}");
}

#[test]
fn a_class_that_is_not_known_is_reported_by_inspect() {
    let (_directory, sd) = folder("sd");
    set(&sd, "unet/config.json", "_class_name", Some(json!("x")));
    set(&sd, "model_index.json", "unet", None);
    let text = inspect(&sd);
    assert!(text.contains("_class_name: no class x is known for unet; its graph is run as it is"), "{text}");
}
