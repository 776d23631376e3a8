//! Bundles of other and older exporters, and incomplete bundles.

use std::path::Path;

use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{
    PROMPT, bundle, rejection, sample, sample_image, sample_image_on, values, with_variants,
};
use crate::common::{largest_difference, read_json};
use serde_json::json;

#[test]
fn older_exports_with_other_integer_inputs_give_the_same_image() {
    let (_directory, old) =
        with_variants(&[("text_encoder", "text_encoder_int32.onnx"), ("unet", "unet_int64.onnx")]);
    let picture = ["--image", &bundle("init.png").display().to_string(), "--strength", "0.7"];
    for more in [&[][..], &picture] {
        assert_eq!(sample_image(&old, more), sample_image(&bundle("sd"), more));
    }
}

#[test]
fn float16_exports_give_almost_the_same_image() {
    let components = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];
    let files = components.map(|component| format!("{component}_float16.onnx"));
    let named: Vec<_> =
        components.iter().zip(&files).map(|(component, file)| (*component, file.as_str())).collect();
    let (_directory, half) = with_variants(&named);
    let difference = largest_difference(&sample_image(&half, &[]), &sample_image(&bundle("sd"), &[]));
    assert!(difference > 0.0 && difference < 0.05, "{difference}");
}

#[test]
fn int8_weights_give_almost_the_same_image_on_both_engines() {
    let (_directory, whole) =
        with_variants(&[("text_encoder", "text_encoder_int8.onnx"), ("unet", "unet_int8.onnx")]);
    let found = sample_image(&whole, &[]);
    let difference = largest_difference(&found, &sample_image(&bundle("sd"), &[]));
    assert!(difference > 0.0 && difference < 0.1, "{difference}");
    let difference = largest_difference(&found, &sample_image_on("embedded", &whole, &[]));
    assert!(difference < 2e-5, "{difference}");
}

#[test]
fn external_weights_of_another_name_give_the_same_image_on_both_engines() {
    let (_directory, apart) = with_variants(&[("unet", "unet_weights.onnx")]);
    std::fs::copy(bundle("variants/weights.pb"), apart.join("unet/weights.pb")).unwrap();
    for engine in ["onnxruntime", "embedded"] {
        assert_eq!(sample_image_on(engine, &apart, &[]), sample_image_on(engine, &bundle("sd"), &[]));
    }
}

#[test]
fn an_encoder_that_samples_inside_its_graph_leaves_the_noise_to_the_sampler() {
    let mean = values(&bundle("variants/mean.latents.npy")).1;
    let picture = bundle("init.png");
    for engine in ["onnxruntime", "embedded"] {
        let latents_with = |encoder: &str| {
            let (_directory, old) = with_variants(&[("vae_encoder", encoder)]);
            let folder = tempfile::tempdir().unwrap();
            let latents = folder.path().join("latents.npy");
            let mut command = sample(engine, &old, &folder.path().join("x.npy"));
            command.arg("--image").arg(&picture).args(["--strength", "0.7", "--steps", "5", "--seed", "7"]);
            succeeds(command.args(["--prompt", PROMPT, "--guidance", "5"]).arg("--latents").arg(&latents));
            values(&latents).1
        };
        let difference = largest_difference(&latents_with("vae_encoder_mean.onnx"), &mean);
        assert!(difference < 2e-4, "{engine}: {difference}");
        let difference = largest_difference(&latents_with("vae_encoder_draws.onnx"), &mean);
        assert!(difference > 1e-3 && difference.is_finite(), "{engine}: {difference}");
    }
}

#[test]
fn missing_and_invalid_files_of_a_bundle_are_named() {
    let error_of = |change: &dyn Fn(&Path)| {
        let (_directory, path) = with_variants(&[]);
        change(&path);
        let folder = tempfile::tempdir().unwrap();
        fails(
            sample("onnxruntime", &path, &folder.path().join("x.png"))
                .args(["--prompt", "x", "--steps", "2"]),
            1,
        )
    };
    let stderr = error_of(&|path| std::fs::remove_dir_all(path.join("text_encoder")).unwrap());
    assert!(stderr.contains("text_encoder is declared, but text_encoder/model.onnx is missing"), "{stderr}");
    let stderr = error_of(&|path| {
        for folder in ["text_encoder", "vae_decoder", "vae_encoder"] {
            std::fs::remove_dir_all(path.join(folder)).unwrap();
        }
        std::fs::remove_file(path.join("model_index.json")).unwrap();
    });
    assert!(stderr.contains("text_encoder/model.onnx is missing, which Stable Diffusion needs"), "{stderr}");
    let stderr = error_of(&|path| std::fs::remove_file(path.join("tokenizer/merges.txt")).unwrap());
    assert!(stderr.contains("merges.txt: it is missing"), "{stderr}");
    let stderr = error_of(&|path| {
        let file = path.join("text_encoder/config.json");
        let mut config = read_json(&file);
        config["vocab_size"] = json!(20);
        std::fs::write(file, config.to_string()).unwrap();
    });
    assert!(stderr.contains("they are not of one model"), "{stderr}");
    let stderr = error_of(&|path| {
        let file = path.join("vae_decoder/config.json");
        let mut config = read_json(&file);
        config["block_out_channels"].as_array_mut().unwrap().push(json!(8));
        std::fs::write(file, config.to_string()).unwrap();
    });
    assert!(
        stderr.contains(
            "vae_decoder/config.json: block_out_channels has 3 values, which mean pictures 4 times"
        ),
        "{stderr}"
    );
    let stderr = error_of(&|path| {
        let file = path.join("vae_decoder/model.onnx");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(stderr.contains("vae_decoder/model.onnx"), "{stderr}");
    let (_directory, path) = with_variants(&[]);
    std::fs::remove_dir_all(path.join("vae_encoder")).unwrap();
    let stderr = rejection(&path, &["--prompt", "", "--image", &bundle("init.png").display().to_string()]);
    assert!(stderr.contains("has no vae_encoder"), "{stderr}");
}
