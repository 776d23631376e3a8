//! Folders whose files contradict each other, or hold what the program does not serve: everything is used as diffusers uses
//! it, refused by name, or reported by `inspect`.

mod declared;
mod graph_sizes;
mod regular_files;
mod report;
mod required_values;
mod statistics;
mod superfluous_keys;

use std::path::Path;

use crate::common::commands::{denoised, fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, edit, folder, sample, sample_image_on, values};
use crate::common::{largest_difference, read_json};
use serde_json::{Value, json};

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
        error.contains("model_index.json: scheduler: the class \"DreamScheduler\" is not supported"),
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
    assert!(inspect(&flux, &[]).contains("  sample               [4096, 16], batches"));
}

#[test]
fn a_pipeline_that_is_not_served_is_refused_by_its_class() {
    for (class, expected) in [
        (
            "PixArtAlphaPipeline",
            "_class_name is \"PixArtAlphaPipeline\", which is not supported: PixArtAlpha models",
        ),
        ("StableDiffusionInstructPix2PixPipeline", "it edits a picture by an instruction"),
        ("StableDiffusion3ControlNetPipeline", "by a ControlNet of another kind"),
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
            "vae is AutoencoderDC, but that of Stable Diffusion is AutoencoderKL or AutoencoderTiny",
        ),
        (
            "model_index.json",
            |index| index["text_encoder"] = json!(["transformers", "Gemma2Model"]),
            "text_encoder is Gemma2Model, but that of Stable Diffusion is CLIPTextModel or",
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
            "model_type is \"gemma2\", but text encoder 1 of Stable Diffusion is CLIP",
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
            "in_channels is \"four\", but must be an integer, 0 or more",
        ),
        (
            "vae_decoder/config.json",
            json!({"latents_mean": 3, "latents_std": 3}),
            "latents_mean is 3, but must be an array",
        ),
        ("model_index.json", json!([1]), "the file is an array, but must be an object"),
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
    edit(&removed, "model_index.json", |index| drop(index.as_object_mut().unwrap().remove("text_encoder_3")));
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
