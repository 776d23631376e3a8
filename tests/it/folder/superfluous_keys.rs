//! Keys that the graph or another key makes superfluous, and labels that the graph does not have.

use std::path::Path;

use serde_json::json;

use super::{edit, folder, inspect, refusal};
use crate::common::bundles::{copy_bundle, gaussian_bundle, model};

fn write_manifest(folder: &Path, text: &str) {
    std::fs::write(folder.join("denoised.toml"), text).unwrap();
}

/// The engine failed at the first job, with an index of its own.
#[test]
fn labels_outside_the_embedding_of_the_network_were_valid() {
    let (_directory, digits) = copy_bundle(&model("digits"), "digits");
    let names = |count: usize| (0..count).map(|label| format!("\"{label}\"")).collect::<Vec<_>>().join(", ");
    for (text, expected) in [
        (
            "null = 11".to_owned(),
            "classes.null is 11, but the labels of the network are 0 to 10; set one of them, or remove null",
        ),
        ("null = -1".to_owned(), "classes.null is -1; a label is at least 0"),
        (
            format!("names = [{}]", names(12)),
            "classes.names has 12 names, but the labels of the network are 0 to 10; remove the names that are too many",
        ),
        (
            format!("names = [{}]\nnull = 10", names(9)),
            "classes.names has 9 names, but the labels of the network are 0 to 10; add the names that are missing, or remove \
             all",
        ),
    ] {
        write_manifest(&digits, &format!("[classes]\n{text}\n"));
        let error = refusal(&digits);
        assert!(error.contains(&format!("denoised.toml: {expected}")), "{error}");
    }
    write_manifest(&digits, &format!("[classes]\nnames = [{}, \"\"]\nnull = 10\n", names(10)));
    let text = inspect(&digits, &[]);
    assert!(text.contains("10; null label 10, so guidance works"), "{text}");
}

#[test]
fn more_classes_in_config_json_than_in_the_graph_were_used() {
    for classes in [10, 12] {
        let (_directory, digits) = copy_bundle(&model("digits"), "digits");
        edit(&digits, "unet/config.json", |config| config["num_class_embeds"] = json!(classes));
        let error = refusal(&digits);
        let expected = format!(
            "unet/config.json: num_class_embeds is {classes}, but the graph beside it has an embedding of 11 class labels"
        );
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn sizes_that_the_graph_contradicts_were_called_used() {
    let text = inspect(&model("digits"), &[]);
    for expected in [
        "in_channels: the graph beside it takes precedence, with 1 channel",
        "sample_size: the graph beside it takes precedence, with 28×28",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let (_directory, digits) = copy_bundle(&model("digits"), "digits");
    edit(&digits, "unet/config.json", |config| {
        (config["in_channels"], config["sample_size"]) = (json!(1), json!(28));
    });
    let text = inspect(&digits, &[]);
    assert!(!text.contains("in_channels:") && !text.contains("sample_size:"), "{text}");
    let (_directory, sd3) = folder("sd3");
    edit(&sd3, "transformer/config.json", |config| config["joint_attention_dim"] = json!(7));
    let text = inspect(&sd3, &[]);
    assert!(text.contains("joint_attention_dim: the graph beside it takes precedence, with text"), "{text}");
    let (_directory, sd) = folder("sd");
    edit(&sd, "unet/config.json", |config| {
        config["_diffusers_version"] = json!("0.8.0");
        config["block_out_channels"] = json!([8]);
    });
    let text = inspect(&sd, &[]);
    assert!(text.contains("block_out_channels: down_block_types takes precedence, with"), "{text}");
    assert!(text.contains("sample_size: the pipeline takes 64×64 instead, as in diffusers"), "{text}");
}

#[test]
fn a_default_guidance_that_no_job_has_was_called_used() {
    let (_directory, gaussian) = gaussian_bundle("gaussian");
    write_manifest(&gaussian, "[default]\nguidance = 3.0\n");
    let text = inspect(&gaussian, &[]);
    let expected = "default.guidance: the network takes neither a class nor a prompt";
    assert!(text.contains(expected), "{text}");
    let (_directory, digits) = copy_bundle(&model("digits"), "digits");
    write_manifest(&digits, "[default]\nguidance = 3.0\n");
    let text = inspect(&digits, &[]);
    assert!(text.contains("default.guidance: guidance needs the label for no class, which"), "{text}");
    let text = inspect(&model("digits"), &[]);
    assert!(!text.contains("default.guidance:"), "{text}");
}

#[test]
fn scheduler_keys_whose_switch_is_off_were_called_used() {
    let (_directory, sd) = folder("sd");
    edit(&sd, "scheduler/scheduler_config.json", |config| {
        (config["clip_sample"], config["clip_sample_range"]) = (json!(false), json!(3.0));
    });
    let text = inspect(&sd, &[]);
    let line = text.lines().find(|line| line.trim_start().starts_with("clip_sample_range ")).unwrap();
    assert!(line.ends_with("without effect: clip_sample is false"), "{text}");
}

/// The engine failed, or the advice was to export the graph again.
#[test]
fn two_keys_of_denoised_toml_that_name_one_input_were_not_named() {
    for (text, expected) in [
        (
            "[graph]\ntimestep = \"sample\"",
            "[graph] timestep names \"sample\", which is the graph's input for the sample.",
        ),
        (
            "[graph]\nclass_labels = \"timestep\"",
            "[graph] class_labels names \"timestep\", which is the graph's input for the time step.",
        ),
        (
            "[conditions.timestep]\ndefault = 0.0",
            "[conditions.timestep] names \"timestep\", which is the graph's input for the time step.",
        ),
    ] {
        let (_directory, sd) = folder("sd");
        write_manifest(&sd, text);
        let error = refusal(&sd);
        assert!(error.contains(&format!("denoised.toml: {expected} Remove the key, or name")), "{error}");
    }
}

/// The key was said to have no effect, while the sampler of another class read it.
#[test]
fn a_key_of_another_class_was_called_without_effect() {
    let (_directory, digits) = copy_bundle(&model("digits"), "digits");
    edit(&digits, "scheduler/scheduler_config.json", |config| config["use_karras_sigmas"] = json!(true));
    let text = inspect(&digits, &[]);
    let line = text.lines().find(|line| line.contains("use_karras_sigmas")).unwrap();
    assert!(line.ends_with("not a key of this class, but of other samplers"), "{line}");
    let (_directory, own) = copy_bundle(&model("digits"), "digits");
    std::fs::remove_dir_all(own.join("scheduler")).unwrap();
    let section = "class = \"DDPMScheduler\"\nuse_karras_sigmas = true\n";
    write_manifest(&own, &format!("[scheduler]\n{section}"));
    let text = inspect(&own, &["--all"]);
    assert!(text.contains("DDPMScheduler has no such key; samplers of other classes read it"), "{text}");
}

#[test]
fn points_as_the_kind_of_an_image_failed_at_the_first_job() {
    let (_directory, digits) = copy_bundle(&model("digits"), "digits");
    write_manifest(&digits, "[sample]\nkind = \"points\"\n");
    let error = refusal(&digits);
    assert!(
        error.contains("denoised.toml: sample.kind is \"points\", but samples of the network have channels"),
        "{error}"
    );
}
