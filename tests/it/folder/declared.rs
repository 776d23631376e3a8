//! What model_index.json declares, held against the folder.

use std::path::Path;

use serde_json::json;

use super::{edit, folder, inspect, refusal, sampled};
use crate::common::bundles::copy_tree;
use crate::common::commands::fails;
use crate::common::pipelines::{PROMPT, bundle, sample};

#[test]
fn a_declared_component_that_is_missing_is_named() {
    for (name, part, expected) in [
        ("sd3", "text_encoder_3", "text_encoder_3 is declared, but text_encoder_3/model.onnx is missing;"),
        ("sd3", "tokenizer_3", "tokenizer_3 is declared, but the folder tokenizer_3 is missing;"),
        ("sdxl", "text_encoder_2", "text_encoder_2 is declared, but text_encoder_2/model.onnx is missing;"),
        ("sd", "text_encoder", "text_encoder is declared, but text_encoder/model.onnx is missing;"),
    ] {
        let (_directory, without) = folder(name);
        std::fs::remove_dir_all(without.join(part)).unwrap();
        let error = refusal(&without);
        assert!(error.contains(&format!("model_index.json: {expected}")), "{part}: {error}");
        // A pipeline that can't do without it was recommended to do so.
        assert_eq!(error.contains("to [null, null]"), name == "sd3", "{error}");
    }
    let (_directory, renamed) = folder("sd3");
    let encoder = renamed.join("text_encoder_3");
    std::fs::rename(encoder.join("model.onnx"), encoder.join("model_fp16.onnx")).unwrap();
    let error = refusal(&renamed);
    assert!(error.contains("text_encoder_3/model_fp16.onnx is there; rename it to model.onnx"), "{error}");
    let (_directory, half) = folder("sd");
    for part in ["vae_decoder", "vae_encoder"] {
        std::fs::remove_dir_all(half.join(part)).unwrap();
    }
    let error = refusal(&half);
    assert!(
        error.contains("model_index.json: vae is declared, but neither vae_decoder/model.onnx"),
        "{error}"
    );
    let (_directory, other) = folder("sd");
    edit(&other, "model_index.json", |index| index["vae_encoder"] = json!(["diffusers", "OnnxRuntimeModel"]));
    inspect(&other, &[]);
    std::fs::remove_dir_all(other.join("vae_encoder")).unwrap();
    let error = refusal(&other);
    assert!(error.contains("vae_encoder is declared, but vae_encoder/model.onnx is missing"), "{error}");
}

/// Without entries in model_index.json, the errors were about the width of embeddings, and about vocab.json.
#[test]
fn a_missing_component_that_nothing_declares_was_reported_by_its_consequence() {
    let pipeline = |kind| format!("which Stable Diffusion {kind} needs; export the whole pipeline");
    for (name, parts, expected) in [
        (
            "sdxl",
            &["text_encoder_2"][..],
            format!("text_encoder_2/model.onnx is missing, {}", pipeline("XL")),
        ),
        (
            "sd3",
            &["tokenizer_3"],
            "the folder tokenizer_3 is missing, which text_encoder_3 needs; export the whole pipeline"
                .to_owned(),
        ),
        (
            "sd3",
            &["text_encoder_2", "text_encoder_3"],
            format!("text_encoder_2/model.onnx is missing, {}", pipeline("3")),
        ),
        (
            "flux",
            &["text_encoder_2"],
            "text_encoder_2/model.onnx is missing, which Flux needs; export the whole pipeline".to_owned(),
        ),
        (
            "sd",
            &["text_encoder"],
            "text_encoder/model.onnx is missing, which Stable Diffusion needs; export the whole pipeline"
                .to_owned(),
        ),
        (
            "sd",
            &["tokenizer"],
            "the folder tokenizer is missing, which text_encoder needs; export the whole pipeline".to_owned(),
        ),
    ] {
        let (_directory, without) = folder(name);
        std::fs::remove_file(without.join("model_index.json")).unwrap();
        parts.iter().for_each(|part| std::fs::remove_dir_all(without.join(part)).unwrap());
        let error = refusal(&without);
        assert!(error.contains(&format!("{}: {expected}", without.display())), "{name} {parts:?}: {error}");
    }
    let (_directory, null) = folder("sdxl");
    edit(&null, "model_index.json", |index| index["text_encoder_2"] = json!([null, null]));
    let error = refusal(&null);
    assert!(error.contains("text_encoder_2 is null, but Stable Diffusion XL needs it;"), "{error}");
    // Without both halves of the autoencoder, nothing else shows that it is a pipeline of latents.
    let (_directory, half) = folder("sd");
    std::fs::remove_file(half.join("model_index.json")).unwrap();
    for part in ["vae_decoder", "vae_encoder"] {
        std::fs::remove_dir_all(half.join(part)).unwrap();
    }
    let error = sample_error(&half, &[], 1);
    assert!(error.contains("vae_decoder/model.onnx is missing, which Stable Diffusion needs"), "{error}");
}

/// The error of a job.
fn sample_error(folder: &Path, more: &[&str], status: i32) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", folder, &scratch.path().join("x.png"));
    fails(command.args(["--prompt", PROMPT, "--steps", "2"]).args(more), status)
}

#[test]
fn a_text_encoder_in_the_place_of_another_is_refused() {
    let (_directory, copied) = folder("sdxl");
    let graph = |part: &str| bundle("sdxl").join(part).join("model.onnx");
    std::fs::copy(graph("text_encoder"), copied.join("text_encoder_2/model.onnx")).unwrap();
    let expected = "text_encoder_2/model.onnx: its output pooler_output is not projected, but Stable Diffusion XL reads \
                    the output text_embeds of CLIPTextModelWithProjection";
    let error = sample_error(&copied, &[], 1);
    assert!(error.contains(expected), "{error}");
    std::fs::copy(graph("text_encoder_2"), copied.join("text_encoder/model.onnx")).unwrap();
    let error = sample_error(&copied, &[], 1);
    assert!(error.contains(expected), "{error}");
    // Stable Diffusion 3 reads two projected embeddings, and Flux one that is not projected.
    let (_directory, sd3) = folder("sd3");
    std::fs::copy(graph("text_encoder"), sd3.join("text_encoder/model.onnx")).unwrap();
    assert!(sample_error(&sd3, &[], 1).contains("pooler_output is not projected, but Stable Diffusion 3"));
    let (_directory, flux) = folder("flux");
    std::fs::copy(graph("text_encoder_2"), flux.join("text_encoder/model.onnx")).unwrap();
    assert!(sample_error(&flux, &[], 1).contains("text_embeds is projected, but Flux reads"));
}

#[test]
fn classes_that_contradict_the_kind_of_the_pipeline_are_refused() {
    for (name, changes, expected) in [
        (
            "sd",
            json!({"text_encoder": ["transformers", "T5EncoderModel"]}),
            "text_encoder is T5EncoderModel, but that of Stable Diffusion is CLIPTextModel or",
        ),
        (
            "sd",
            json!({"unet": ["diffusers", "UNet2DModel"]}),
            "unet is UNet2DModel, but that of Stable Diffusion is UNet2DConditionModel;",
        ),
        (
            "sdxl",
            json!({
                "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
                "text_encoder_2": ["transformers", "CLIPTextModel"],
            }),
            "text_encoder is CLIPTextModelWithProjection, but that of Stable Diffusion XL is CLIPTextModel;",
        ),
        (
            "sd3",
            json!({"transformer": ["diffusers", "FluxTransformer2DModel"]}),
            "transformer is FluxTransformer2DModel, but that of Stable Diffusion 3 is SD3Transformer2DModel;",
        ),
        (
            "flux",
            json!({"text_encoder_2": ["transformers", "CLIPTextModel"]}),
            "text_encoder_2 is CLIPTextModel, but that of Flux is T5EncoderModel;",
        ),
    ] {
        let (_directory, other) = folder(name);
        edit(&other, "model_index.json", |index| {
            index.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        });
        let error = refusal(&other);
        assert!(error.contains(&format!("model_index.json: {expected}")), "{error}");
    }
}

#[test]
fn a_vae_encoder_that_is_null_is_not_used() {
    let (_directory, without) = folder("sd");
    edit(&without, "model_index.json", |index| index["vae_encoder"] = json!([null, null]));
    assert!(sampled(&without, &[]).0 == sampled(&bundle("sd"), &[]).0);
    let picture = bundle("init.png").display().to_string();
    let error = sample_error(&without, &["--image", &picture], 2);
    assert!(error.contains("has no vae_encoder, so it can't start from an image"), "{error}");
    let report = inspect(&without, &["--all"]);
    assert!(
        report.contains("vae_encoder/model.onnx: model_index.json sets the component to null"),
        "{report}"
    );
}

/// The error said that there is no vae_encoder, which was there without its graph.
#[test]
fn a_vae_encoder_without_its_graph_was_reported_as_none() {
    let (_directory, without) = folder("sd");
    let graph = without.join("vae_encoder/model.onnx");
    std::fs::remove_file(&graph).unwrap();
    let picture = bundle("init.png").display().to_string();
    let error = sample_error(&without, &["--image", &picture], 2);
    assert!(error.contains(&format!("{} is missing, so sd can't start", graph.display())), "{error}");
    let report = inspect(&without, &["--all"]);
    assert!(report.contains("vae_encoder/config.json: the model.onnx beside it is missing\n"), "{report}");
}

#[test]
fn keys_that_contradict_the_graph_beside_them_are_refused() {
    for (file, key, value, expected) in [
        (
            "unet/config.json",
            "in_channels",
            9,
            "in_channels is 9, but the graph beside it takes samples of 4 channels",
        ),
        (
            "unet/config.json",
            "num_class_embeds",
            10,
            "num_class_embeds is 10, but the graph beside it has no input",
        ),
        (
            "text_encoder/config.json",
            "vocab_size",
            49408,
            "vocab_size in its config.json is 49408, but the number",
        ),
        (
            "text_encoder/config.json",
            "hidden_size",
            24,
            "in its config.json is 24, but the width of its embeddings is 16",
        ),
    ] {
        let (_directory, other) = folder("sd");
        edit(&other, file, |config| config[key] = json!(value));
        let error = sample_error(&other, &[], 1);
        assert!(error.contains(expected) && error.contains("they are not of one model"), "{key}: {error}");
        assert!(error.contains(file.split('/').next().unwrap()), "{error}");
    }
    let (_directory, flux) = folder("flux");
    edit(&flux, "text_encoder_2/config.json", |config| config["d_model"] = json!(32));
    let error = sample_error(&flux, &[], 1);
    assert!(
        error.contains("text_encoder_2/model.onnx: hidden_size or d_model in its config.json is 32"),
        "{error}"
    );
}

/// The advice was to add what the folder needs as little.
#[test]
fn a_text_encoder_that_nothing_declares_was_to_be_completed() {
    let (_directory, other) = folder("sd");
    copy_tree(&bundle("sdxl").join("text_encoder_2"), &other.join("text_encoder_2"));
    let error = refusal(&other);
    let expected = "the folder tokenizer_2 is missing, which text_encoder_2 needs; model_index.json has no text_encoder_2, so \
                    remove the folder text_encoder_2";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_mask_that_the_graph_does_not_take_was_called_used() {
    let (_directory, other) = folder("sd");
    edit(&other, "text_encoder/config.json", |config| config["use_attention_mask"] = json!(true));
    let report = inspect(&other, &["--all"]);
    let line = report.lines().find(|line| line.contains("use_attention_mask")).unwrap();
    assert!(line.contains("not used") && report.contains("its graph has no input for a mask"), "{report}");
    let (_, _, warning) = sampled(&other, &[]);
    assert!(warning.contains("use_attention_mask in its config.json has no effect"), "{warning}");
}

#[test]
fn a_special_token_without_an_id_was_called_another_model() {
    let (_directory, other) = folder("sd");
    edit(&other, "tokenizer/tokenizer_config.json", |config| config["pad_token"] = json!("<|pad|>"));
    let mut command = sample("embedded", &other, &other.with_file_name("x.png"));
    let error = fails(command.args(["--prompt", PROMPT]), 1);
    let expected = "its configuration adds the token \"<|pad|>\", which the vocabulary does not have";
    assert!(
        error.contains(expected) && error.contains("correct the token in tokenizer_config.json"),
        "{error}"
    );
}

/// The errors were about keys of the decoder's configuration, and about a missing input.
#[test]
fn a_network_and_a_decoder_in_each_others_folders_are_named() {
    let (_directory, other) = folder("sd");
    let [unet, decoder] = ["unet/model.onnx", "vae_decoder/model.onnx"].map(|graph| other.join(graph));
    std::fs::rename(&unet, other.join("x.onnx")).unwrap();
    std::fs::rename(&decoder, &unet).unwrap();
    std::fs::rename(other.join("x.onnx"), &decoder).unwrap();
    let error = refusal(&other);
    assert!(error.contains("unet/model.onnx: it takes one input, as a decoder does"), "{error}");
    assert!(error.contains("exchange the two graphs"), "{error}");
}

#[test]
fn a_tokenizer_without_its_text_encoder_was_called_used_and_not_used() {
    let (_directory, other) = folder("sd3");
    std::fs::remove_dir_all(other.join("text_encoder_3")).unwrap();
    edit(&other, "model_index.json", |index| index["text_encoder_3"] = json!([null, null]));
    let report = inspect(&other, &["--all"]);
    let of_tokenizer = report.lines().filter(|line| line.contains("tokenizer_3"));
    for line in of_tokenizer.clone() {
        assert!(!line.trim_start().starts_with("used"), "{line}");
    }
    assert!(
        of_tokenizer.count() >= 3 && report.contains("no text encoder is served that reads it"),
        "{report}"
    );
}
