//! Folders whose files contradict each other, or hold what the program does not serve: everything is used as diffusers uses
//! it, refused by name, or reported by `inspect`.

use std::path::{Path, PathBuf};

use crate::common::bundles::{copy_bundle, model};
use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, sample, sample_image_on, values};
use crate::common::{golden, largest_difference, read_json};
use denoised::inference::{EngineKind, EngineOptions};
use denoised::model::Model;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Copies a pipeline of `tests/golden/latent`.
fn folder(name: &str) -> (TempDir, PathBuf) {
    copy_bundle(&bundle(name), name)
}

/// Changes a JSON file of a folder.
fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value = read_json(&path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn inspect(folder: &Path, more: &[&str]) -> String {
    let output = succeeds(denoised().arg("inspect").arg(folder).args(["--engine", "embedded"]).args(more));
    String::from_utf8(output.stdout).unwrap()
}

/// The error of a folder that is refused when it is opened.
fn refusal(folder: &Path) -> String {
    fails(denoised().arg("inspect").arg(folder).args(["--engine", "embedded"]), 1)
}

/// The latents and the image of a job of two steps, with the log.
fn sampled(folder: &Path, more: &[&str]) -> (Vec<f32>, Vec<f32>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let (image, latents) = (scratch.path().join("image.npy"), scratch.path().join("latents.npy"));
    let mut command = sample("embedded", folder, &image);
    command
        .args(["--prompt", PROMPT, "--steps", "2", "--seed", "3"])
        .args(more)
        .arg("--latents")
        .arg(&latents);
    let output = succeeds(&mut command);
    (values(&latents).1, values(&image).1, String::from_utf8(output.stderr).unwrap())
}

const MEAN: [f32; 4] = [-1.5, 2.0, -1.25, 2.5];
const DEVIATION: [f32; 4] = [8.0, 6.0, 6.5, 5.0];

fn set_statistics(folder: &Path) {
    for part in ["vae_decoder", "vae_encoder"] {
        edit(folder, &format!("{part}/config.json"), |config| {
            config["latents_mean"] = json!(MEAN);
            config["latents_std"] = json!(DEVIATION);
        });
    }
}

#[test]
fn latents_mean_and_latents_std_of_an_sdxl_folder_are_used() {
    let (_directory, with) = folder("sdxl");
    set_statistics(&with);
    let (latents, image, _) = sampled(&with, &[]);
    let (same_latents, other_image, _) = sampled(&bundle("sdxl"), &[]);
    assert_eq!(latents, same_latents);
    assert!(largest_difference(&image, &other_image) > 0.1);
    // The decoder gets z·std / scaling + mean; without the keys it gets z / scaling.
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let plain = Model::load(&bundle("sdxl"), &options).unwrap().latent.unwrap();
    let scaling = plain.components.vae.scaling;
    let plane = latents.len() / 4;
    let converted = |i: usize| latents[i] * DEVIATION[i / plane] + MEAN[i / plane] * scaling;
    let converted: Vec<f32> = (0..latents.len()).map(converted).collect();
    let expected = plain.decode(&converted, &[4, 16, 16]).unwrap();
    let difference = largest_difference(&image, &expected.data);
    assert!(difference < 1e-5, "{difference}");
    assert!(inspect(&with, &[]).contains("with the mean and the deviation of each channel"));
}

#[test]
fn an_init_image_is_encoded_by_the_statistics_except_for_inpainting() {
    let (_directory, with) = folder("sdxl");
    set_statistics(&with);
    let init = bundle("init.png").display().to_string();
    let picture = ["--image", init.as_str(), "--strength", "0.5"];
    let (latents, ..) = sampled(&with, &picture);
    let (other, ..) = sampled(&bundle("sdxl"), &picture);
    assert!(largest_difference(&latents, &other) > 0.1);
    // diffusers' SDXL inpainting pipeline encodes by the scaling factor alone.
    let mask = bundle("mask.png").display().to_string();
    let inpainting = [&picture[..], &["--mask", &mask]].concat();
    let (latents, ..) = sampled(&with, &inpainting);
    let (other, ..) = sampled(&bundle("sdxl"), &inpainting);
    assert_eq!(latents, other);
}

#[test]
fn keys_that_a_pipeline_of_diffusers_does_not_use_have_no_effect_and_are_reported() {
    let (_directory, with) = folder("sd");
    set_statistics(&with);
    for part in ["vae_decoder", "vae_encoder"] {
        edit(&with, &format!("{part}/config.json"), |config| config["shift_factor"] = json!(0.5));
    }
    assert_eq!(sampled(&with, &[]).1, sampled(&bundle("sd"), &[]).1);
    let report = inspect(&with, &[]);
    for expected in [
        "    not used           latents_mean: only SDXL's pipelines use it\n",
        "    not used           latents_std: only SDXL's pipelines use it\n",
        "    not used           shift_factor: only the pipelines of SD3 and Flux use it\n",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}

#[test]
fn the_scheduler_class_of_model_index_is_used_with_the_keys_of_the_file() {
    let (_directory, named) = folder("sd");
    let class = "DPMSolverMultistepScheduler";
    edit(&named, "model_index.json", |index| index["scheduler"] = json!(["diffusers", class]));
    let (latents, _, log) = sampled(&named, &[]);
    let expected = "_class_name is DDIMScheduler, but model_index.json names DPMSolverMultistepScheduler";
    assert!(log.contains(expected), "{log}");
    let report = inspect(&named, &[]);
    assert!(report.contains(&format!("\nScheduler: {class}\n")), "{report}");
    assert!(report.contains("scheduler_config.json has DDIMScheduler, which is not used"), "{report}");
    // The same keys under that class.
    let (_other, renamed) = folder("sd");
    edit(&renamed, "scheduler/scheduler_config.json", |config| config["_class_name"] = json!(class));
    edit(&renamed, "model_index.json", |index| index["scheduler"] = json!(["diffusers", class]));
    let (same, _, log) = sampled(&renamed, &[]);
    assert!(latents == same && !log.contains("_class_name"), "{log}");
    assert!(largest_difference(&latents, &sampled(&bundle("sd"), &[]).0) > 1e-3);
    edit(&named, "model_index.json", |index| index["scheduler"] = json!(["diffusers", "DreamScheduler"]));
    let error = refusal(&named);
    assert!(
        error.contains("model_index.json: scheduler: _class_name \"DreamScheduler\" is not supported"),
        "{error}"
    );
}

#[test]
fn a_folder_of_diffusers_own_onnx_converter_needs_no_config_json() {
    let (_directory, plain) = folder("sd");
    for part in ["unet", "vae_decoder", "vae_encoder", "text_encoder"] {
        std::fs::remove_file(plain.join(part).join("config.json")).unwrap();
    }
    edit(&plain, "model_index.json", |index| {
        *index = json!({
            "_class_name": "OnnxStableDiffusionPipeline",
            "unet": ["diffusers", "OnnxRuntimeModel"],
            "vae_decoder": ["diffusers", "OnnxRuntimeModel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
        });
    });
    let size = ["--width", "32", "--height", "32"];
    assert_eq!(sample_image_on("embedded", &plain, &size), sample_image_on("embedded", &bundle("sd"), &size));
    assert!(inspect(&plain, &[]).contains("  sample               [4, 64, 64], batches"));
    // A network of an inpainting pipeline has its channels too.
    let (_other, inpainting) = folder("sd_inpaint");
    std::fs::remove_file(inpainting.join("unet/config.json")).unwrap();
    assert!(inspect(&inpainting, &[]).contains("  sample               [4, 64, 64], batches"));
    let (_other, flux) = folder("flux");
    for part in ["transformer", "vae_decoder", "vae_encoder"] {
        std::fs::remove_file(flux.join(part).join("config.json")).unwrap();
    }
    assert!(inspect(&flux, &[]).contains("  sample               [64, 16], batches"));
}

#[test]
fn a_pipeline_that_is_not_served_is_refused_by_its_class() {
    for (class, expected) in [
        (
            "PixArtSigmaPipeline",
            "_class_name is \"PixArtSigmaPipeline\", which is not supported: PixArt models",
        ),
        ("StableDiffusionInstructPix2PixPipeline", "it edits a picture by an instruction"),
        ("StableDiffusionControlNetPipeline", "by a ControlNet"),
        ("DreamPipeline", "no pipeline of this name is known"),
        ("StableDiffusionXLPipeline", "by its inputs the network is Stable Diffusion;"),
        ("DDPMPipeline", "by its inputs the network is Stable Diffusion;"),
    ] {
        let (_directory, other) = folder("sd");
        edit(&other, "model_index.json", |index| index["_class_name"] = json!(class));
        let error = refusal(&other);
        assert!(error.contains("model_index.json: ") && error.contains(expected), "{class}: {error}");
        assert_eq!(error.matches(expected).count(), 1, "{error}");
    }
    for class in ["StableDiffusionImg2ImgPipeline", "ORTStableDiffusionInpaintPipeline", "DiffusionPipeline"]
    {
        let (_directory, other) = folder("sd");
        edit(&other, "model_index.json", |index| index["_class_name"] = json!(class));
        inspect(&other, &[]);
    }
}

#[test]
fn files_that_contradict_the_pipeline_are_refused_by_their_key() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 9] = [
        (
            "model_index.json",
            |index| index["vae"] = json!(["diffusers", "AutoencoderDC"]),
            "vae: the class AutoencoderDC is not supported for vae",
        ),
        (
            "model_index.json",
            |index| index["text_encoder"] = json!(["transformers", "Gemma2Model"]),
            "text_encoder: the class Gemma2Model is not supported",
        ),
        (
            "model_index.json",
            |index| index["requires_aesthetics_score"] = json!(true),
            "requires_aesthetics_score is true, as in SDXL's refiner",
        ),
        (
            "unet/config.json",
            |config| config["_class_name"] = json!("PixArtTransformer2DModel"),
            "_class_name: the class PixArtTransformer2DModel is not supported for unet",
        ),
        (
            "unet/config.json",
            |config| config["class_embed_type"] = json!("projection"),
            "class_embed_type is \"projection\"",
        ),
        (
            "vae_decoder/config.json",
            |config| config["batch_norm_eps"] = json!(1e-4),
            "batch_norm_eps changes the latents in a way that is not supported",
        ),
        (
            "vae_decoder/config.json",
            |config| {
                config["latents_mean"] = json!([0.0, 1.0]);
                config["latents_std"] = json!([1.0, 1.0]);
            },
            "latents_std has 2 values, but pipelines support 4",
        ),
        ("vae_decoder/config.json", |config| config["scaling_factor"] = json!(0.0), "scaling_factor is 0"),
        (
            "text_encoder/config.json",
            |config| config["model_type"] = json!("gemma2"),
            "model_type is \"gemma2\", but only text encoders of CLIP and T5",
        ),
    ];
    for (file, change, expected) in cases {
        let (_directory, other) = folder("sd");
        edit(&other, file, change);
        let error = refusal(&other);
        assert!(error.contains(&format!("{file}: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_reported_in_the_words_of_json() {
    for (file, change, expected) in [
        (
            "unet/config.json",
            json!({"in_channels": "four"}),
            "in_channels: invalid type: string \"four\", expected an integer, 0 or more",
        ),
        (
            "vae_decoder/config.json",
            json!({"latents_mean": 3, "latents_std": 3}),
            "latents_mean: invalid type: integer `3`, expected an array",
        ),
        ("model_index.json", json!([1]), "invalid type: sequence, expected an object"),
    ] {
        let (_directory, other) = folder("sd");
        std::fs::write(other.join(file), change.to_string()).unwrap();
        let error = refusal(&other);
        assert!(error.contains(&format!("{file}: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn a_folder_with_two_networks_is_refused_unless_one_is_named() {
    let (_directory, two) = folder("sd");
    std::fs::create_dir(two.join("transformer")).unwrap();
    std::fs::copy(two.join("unet/model.onnx"), two.join("transformer/model.onnx")).unwrap();
    // model_index.json names the unet.
    assert!(inspect(&two, &[]).contains("transformer/model.onnx: no component is read from this graph"));
    std::fs::remove_file(two.join("model_index.json")).unwrap();
    let error = refusal(&two);
    assert!(error.contains("it has two networks, unet/model.onnx and transformer/model.onnx"), "{error}");
    std::fs::write(two.join("denoised.toml"), "[graph]\nfile = \"unet/model.onnx\"\n").unwrap();
    inspect(&two, &[]);
}

#[test]
fn a_text_encoder_that_model_index_leaves_out_is_not_used() {
    let (_directory, without) = folder("sd3");
    edit(&without, "model_index.json", |index| index["text_encoder_3"] = json!([null, null]));
    let report = inspect(&without, &[]);
    assert!(report.contains("  text encoders        2\n"), "{report}");
    assert!(
        report.contains("files in text_encoder_3: model_index.json has no such component")
            || report.contains("text_encoder_3/model.onnx: model_index.json has no such component"),
        "{report}"
    );
    let (_other, removed) = folder("sd3");
    std::fs::remove_dir_all(removed.join("text_encoder_3")).unwrap();
    assert_eq!(sampled(&without, &[]).0, sampled(&removed, &[]).0);
}

#[test]
fn a_text_encoder_that_is_missing_before_another_is_named() {
    let (_directory, gap) = folder("sd3");
    std::fs::remove_dir_all(gap.join("text_encoder")).unwrap();
    let error = refusal(&gap);
    assert!(error.contains("text_encoder/model.onnx is missing, but text_encoder_2 is there"), "{error}");
    let (_other, swapped) = folder("flux");
    edit(&swapped, "model_index.json", |index| {
        index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"])
    });
    let error = refusal(&swapped);
    assert!(error.contains("CLIPTokenizer, but text encoder 2 of Flux is T5"), "{error}");
}

#[test]
fn a_word_of_textual_inversion_is_its_own_token() {
    let (_directory, with) = folder("sd");
    let vocabulary = read_json(&with.join("tokenizer/vocab.json"));
    edit(&with, "tokenizer/tokenizer_config.json", |config| {
        config.as_object_mut().unwrap().remove("added_tokens_decoder");
    });
    let added = json!({"<toy>": vocabulary["fox</w>"]});
    std::fs::write(with.join("tokenizer/added_tokens.json"), added.to_string()).unwrap();
    let drawn = |folder: &Path, prompt: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("x.npy");
        let mut command = sample("embedded", folder, &file);
        succeeds(command.args(["--prompt", prompt, "--steps", "2", "--seed", "3"]));
        values(&file).1
    };
    assert_eq!(drawn(&with, "a red <toy>"), drawn(&bundle("sd"), "a red fox"));
    assert!(largest_difference(&drawn(&with, "a red <toy>"), &drawn(&bundle("sd"), "a red <toy>")) > 1e-3);
}

#[test]
fn inspect_accounts_for_every_file_and_every_key() {
    let (_directory, full) = folder("sd");
    let add = |file: &str, text: &str| {
        let path = full.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    add("vae/diffusion_pytorch_model.safetensors", "");
    add("safety_checker/model.onnx", "");
    add("safety_checker/config.json", "{}");
    add("safety_checker/extra.json", "{}");
    add("feature_extractor/preprocessor_config.json", "{}");
    add("movq/config.json", "{}");
    add("README.md", "");
    add("notes.xyz", "");
    add("tokenizer/tokenizer.json", "{}");
    add("denoised.toml", "[scheduler]\nclass = \"DDPMScheduler\"\n[default]\nsteps = 4\n");
    edit(&full, "unet/config.json", |config| config["surprise"] = json!(1));
    edit(&full, "model_index.json", |index| {
        index["prior"] = json!(["diffusers", "PriorTransformer"]);
        index["mystery"] = json!(3);
    });
    let report = inspect(&full, &[]);
    for expected in [
        "  not used             README.md: documentation\n",
        "  not used             notes.xyz: unknown\n",
        "  not used             movq/config.json: no supported pipeline has a component of this name\n",
        "  not used             3 files in safety_checker: the safety checker is not run\n",
        "  not used             feature_extractor/preprocessor_config.json: it belongs to the safety checker\n",
        "  not used             vae/diffusion_pytorch_model.safetensors: weights of another framework",
        "  not used             tokenizer/tokenizer.json: the class of the tokenizer reads vocab.json and merges.txt\n",
        "    unknown            surprise\n",
        "    unknown            mystery\n",
        "    not used           prior: no supported pipeline has this component\n",
        "    not used           scheduler.class: scheduler_config.json is in the folder, and takes precedence\n",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let all = inspect(&full, &["--all"]);
    let mut files = Vec::new();
    let mut pending = vec![full.clone()];
    while let Some(path) = pending.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => pending.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => files.push(path.strip_prefix(&full).unwrap().display().to_string()),
        }
    }
    let section = all.split_once("\nFiles\n").unwrap().1.split_once("\n\n").unwrap().0;
    for file in &files {
        let lines = section
            .lines()
            .filter(|line| line.split_whitespace().any(|word| word.trim_end_matches(':') == file));
        assert_eq!(lines.count(), 1, "{file}: {section}");
    }
    assert!(section.contains(&format!("of {} files", files.len())), "{section}");
    let keys = all.split_once("\nKeys\n").unwrap().1.split_once("\n\n").unwrap().0;
    for key in read_json(&full.join("unet/config.json")).as_object().unwrap().keys() {
        assert!(keys.lines().any(|line| line.split_whitespace().last() == Some(key)), "{key}: {keys}");
    }
}

#[test]
fn suffixes_are_listed_only_where_a_sampler_has_them() {
    assert!(!inspect(&model("digits-ncsn"), &[]).contains("with a suffix"));
    assert!(inspect(&golden("gaussian"), &[]).contains("karras, exponential, polyexponential, beta"));
    let report = inspect(&model("digits"), &["--all"]);
    // Samplers that one reason excludes share a line.
    let (_, excluded) = report.split_once(" samplers that can't serve this bundle\n").unwrap();
    let reasons: std::collections::BTreeSet<_> =
        excluded.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(reasons.len(), excluded.lines().count(), "{excluded}");
}
