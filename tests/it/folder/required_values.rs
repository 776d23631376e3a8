//! Values with which a pipeline of diffusers fails, or draws something else, and which were taken without a word.

use std::path::Path;

use serde_json::{Value, json};

use super::{edit, folder, inspect, refusal};
use crate::common::bundles::copy_bundle;
use crate::common::golden;

/// SDXL was drawn with the embeddings of the shorter prompt.
#[test]
fn tokenizers_of_two_lengths_were_cut_to_the_shorter_one() {
    for (name, title) in [("sdxl", "Stable Diffusion XL"), ("sd3", "Stable Diffusion 3")] {
        let (_directory, unequal) = folder(name);
        edit(&unequal, "tokenizer/tokenizer_config.json", |config| config["model_max_length"] = json!(10));
        let error = refusal(&unequal);
        let expected = format!(
            "{}: model_max_length is 77, but that of tokenizer is 10, and {title} puts the embeddings of both side by side, \
             token by token; set both to one length (77 in the published models)",
            unequal.join("tokenizer_2/tokenizer_config.json").display()
        );
        assert!(error.contains(&expected), "{error}");
    }
    // Flux takes no rows of CLIP, and T5 as many as a job asks for.
    let (_directory, flux) = folder("flux");
    edit(&flux, "tokenizer_2/tokenizer_config.json", |config| config["model_max_length"] = json!(10));
    inspect(&flux, &[]);
}

/// Pictures were decoded without the shift, or with the scale of Stable Diffusion.
#[test]
fn a_scale_or_a_shift_that_is_null_was_replaced_by_a_default() {
    let zimage = golden("language_models/zimage");
    let without =
        |key: &'static str| move |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key));
    let null = |key: &'static str| move |config: &mut Value| config[key] = Value::Null;
    let faults = |model: &Path, change: &dyn Fn(&mut Value)| {
        let (_directory, copy) = copy_bundle(model, "copy");
        edit(&copy, "vae_decoder/config.json", change);
        let error = refusal(&copy);
        error
            .split_once("vae_decoder/config.json: ")
            .unwrap_or_else(|| panic!("{error}"))
            .1
            .trim_end()
            .to_owned()
    };
    for (model, title, published) in [
        (crate::common::pipelines::bundle("flux"), "Flux", "0.1159"),
        (crate::common::pipelines::bundle("sd3"), "Stable Diffusion 3", "0.0609"),
        (zimage, "Z-Image", "0.1159"),
    ] {
        let expected = |state: &str| {
            format!(
                "shift_factor is {state}, but {title} needs a number; set that of the autoencoder ({published} for the \
                 published one)"
            )
        };
        assert_eq!(faults(&model, &null("shift_factor")), expected("null"));
        assert_eq!(faults(&model, &without("shift_factor")), expected("missing"));
    }
    let sd = crate::common::pipelines::bundle("sd");
    assert_eq!(
        faults(&sd, &null("scaling_factor")),
        "scaling_factor is null, but Stable Diffusion needs a number; set that of the autoencoder (0.18215 for the \
         published one)"
    );
    // Classes have a default for the scale, and AutoencoderTiny also for the shift.
    let (_directory, tiny) = folder("flux");
    for part in ["vae_decoder/config.json", "vae_encoder/config.json"] {
        edit(&tiny, part, |config| {
            config["_class_name"] = json!("AutoencoderTiny");
            without("shift_factor")(config);
            without("scaling_factor")(config);
        });
    }
    edit(&tiny, "model_index.json", |index| index["vae"] = json!(["diffusers", "AutoencoderTiny"]));
    inspect(&tiny, &[]);
}

/// The advice was to change `--steps`, and `inspect` called the key used.
#[test]
fn an_angle_out_of_range_was_found_only_by_a_job_of_two_steps() {
    let (_directory, sprint) = copy_bundle(&golden("families/sana_sprint"), "sprint");
    edit(&sprint, "scheduler/scheduler_config.json", |config| config["intermediate_timesteps"] = json!(1.7));
    let error = refusal(&sprint);
    let expected = "scheduler/scheduler_config.json: intermediate_timesteps = 1.7 is refused: it must lie between 0 and \
                    max_timesteps, 1.5708";
    assert!(error.contains(expected), "{error}");
}

/// Prompts got the built-in text, and `inspect` called the file unknown and the key without effect.
#[test]
fn a_changed_chat_template_was_ignored() {
    for (model, title) in [
        ("language_models/zimage", "Z-Image"),
        ("families/z_image_turbo", "Z-Image"),
        ("families/flux2_klein", "FLUX.2 klein"),
    ] {
        let (_directory, changed) = copy_bundle(&golden(model), "changed");
        let file = changed.join("tokenizer/chat_template.jinja");
        let config = "tokenizer/tokenizer_config.json";
        let mut template = None;
        edit(&changed, config, |config| template = config["chat_template"].as_str().map(str::to_owned));
        let template = template.unwrap();
        let reason =
            format!("prompts get the built-in text of {title}, with which the template is only compared\n");
        let report = inspect(&changed, &[]);
        assert!(report.contains(&format!("    not used           chat_template: {reason}")), "{report}");
        std::fs::write(&file, &template).unwrap();
        let report = inspect(&changed, &[]);
        let expected = format!("  not used             tokenizer/chat_template.jinja: {reason}");
        assert!(report.contains(&expected), "{report}");
        let other = template.replace("'<|im_start|>'", "'<|im_start|>my '");
        std::fs::write(&file, &other).unwrap();
        let error = refusal(&changed);
        let expected =
            "tokenizer/chat_template.jinja: the template makes \"<|im_start|>my user\\na red fox<|im_end|>";
        assert!(error.contains(expected), "{error}");
        let expected = format!("but {title} is served with the built-in text \"<|im_start|>user\\na red fox");
        assert!(error.contains(&expected), "{error}");
        std::fs::remove_file(&file).unwrap();
        edit(&changed, config, |config| config["chat_template"] = json!(other));
        let error = refusal(&changed);
        assert!(
            error.contains("tokenizer/tokenizer_config.json: chat_template makes \"<|im_start|>my"),
            "{error}"
        );
    }
}

/// A template of Gemma is not used by the pipeline either.
#[test]
fn a_chat_template_beside_another_tokenizer_was_unknown() {
    let (_directory, sana) = copy_bundle(&golden("language_models/sana"), "sana");
    std::fs::write(sana.join("tokenizer/chat_template.jinja"), "{{ x }}").unwrap();
    let report = inspect(&sana, &[]);
    let expected = "tokenizer/chat_template.jinja: the pipeline uses no chat template\n";
    assert!(report.contains(expected), "{report}");
}
