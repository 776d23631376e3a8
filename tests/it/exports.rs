//! Pipelines as other exporters and older ones wrote them, and folders that lack something.

use std::path::Path;

use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{
    PROMPT, bundle, rejection, sample, sample_image, sample_image_on, values, with_variants,
};
use crate::common::{largest_difference, read_json};
use serde_json::json;

#[test]
fn older_exports_whole_numbers_draw_the_same_picture() {
    let (_kept, old) =
        with_variants(&[("text_encoder", "text_encoder_int32.onnx"), ("unet", "unet_int64.onnx")]);
    let picture = ["--image", &bundle("init.png").display().to_string(), "--strength", "0.7"];
    for more in [&[][..], &picture] {
        assert_eq!(sample_image(&old, more), sample_image(&bundle("sd"), more));
    }
}

#[test]
fn float16_exports_draw_almost_the_same_picture() {
    let parts = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];
    let files = parts.map(|part| format!("{part}_float16.onnx"));
    let named: Vec<_> = parts.iter().zip(&files).map(|(part, file)| (*part, file.as_str())).collect();
    let (_kept, half) = with_variants(&named);
    let difference = largest_difference(&sample_image(&half, &[]), &sample_image(&bundle("sd"), &[]));
    assert!(difference > 0.0 && difference < 0.05, "{difference}");
}

#[test]
fn weights_in_whole_numbers_draw_almost_the_same_picture_on_both_engines() {
    let (_kept, whole) =
        with_variants(&[("text_encoder", "text_encoder_int8.onnx"), ("unet", "unet_int8.onnx")]);
    let found = sample_image(&whole, &[]);
    let difference = largest_difference(&found, &sample_image(&bundle("sd"), &[]));
    assert!(difference > 0.0 && difference < 0.1, "{difference}");
    let difference = largest_difference(&found, &sample_image_on("embedded", &whole, &[]));
    assert!(difference < 2e-5, "{difference}");
}

#[test]
fn weights_beside_the_graph_draw_the_same_picture_or_are_named() {
    let (_kept, apart) = with_variants(&[("unet", "unet_weights.onnx")]);
    std::fs::copy(bundle("variants/weights.pb"), apart.join("unet/weights.pb")).unwrap();
    assert_eq!(sample_image(&apart, &[]), sample_image(&bundle("sd"), &[]));
    // The other engine takes no file of this name, and says which names it takes.
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", &apart, &folder.path().join("x.png"));
    let error = fails(command.args(["--prompt", PROMPT]), 1);
    assert!(error.contains("weights.pb") && error.contains("end in .data or .onnx_data"), "{error}");
}

#[test]
fn an_encoder_that_draws_inside_its_graph_leaves_the_noise_to_the_walk() {
    let mean = values(&bundle("variants/mean.latents.npy")).1;
    let picture = bundle("init.png");
    for engine in ["onnxruntime", "embedded"] {
        let begun = |encoder: &str| {
            let (_kept, old) = with_variants(&[("vae_encoder", encoder)]);
            let folder = tempfile::tempdir().unwrap();
            let latents = folder.path().join("latents.npy");
            let mut command = sample(engine, &old, &folder.path().join("x.npy"));
            command.arg("--image").arg(&picture).args(["--strength", "0.7", "--steps", "5", "--seed", "7"]);
            succeeds(command.args(["--prompt", PROMPT, "--guidance", "5"]).arg("--latents").arg(&latents));
            values(&latents).1
        };
        let difference = largest_difference(&begun("vae_encoder_mean.onnx"), &mean);
        assert!(difference < 2e-4, "{engine}: {difference}");
        let difference = largest_difference(&begun("vae_encoder_draws.onnx"), &mean);
        assert!(difference > 1e-3 && difference.is_finite(), "{engine}: {difference}");
    }
}

#[test]
fn what_a_folder_lacks_or_has_wrong_is_said_by_its_file() {
    let words_of = |change: &dyn Fn(&Path)| {
        let (_kept, path) = with_variants(&[]);
        change(&path);
        let folder = tempfile::tempdir().unwrap();
        fails(
            sample("onnxruntime", &path, &folder.path().join("x.png"))
                .args(["--prompt", "x", "--steps", "2"]),
            1,
        )
    };
    let words = words_of(&|path| std::fs::remove_dir_all(path.join("text_encoder")).unwrap());
    assert!(words.contains("1 text encoders are needed and 0 are there"), "{words}");
    let words = words_of(&|path| {
        for folder in ["text_encoder", "vae_decoder", "vae_encoder"] {
            std::fs::remove_dir_all(path.join(folder)).unwrap();
        }
    });
    assert!(words.contains("its network takes a prompt") && words.contains("vae_decoder/"), "{words}");
    let words = words_of(&|path| std::fs::remove_file(path.join("tokenizer/merges.txt")).unwrap());
    assert!(words.contains("merges.txt: it is missing"), "{words}");
    let words = words_of(&|path| {
        let file = path.join("text_encoder/config.json");
        let mut config = read_json(&file);
        config["vocab_size"] = json!(20);
        std::fs::write(file, config.to_string()).unwrap();
    });
    assert!(words.contains("they are not of one model"), "{words}");
    let words = words_of(&|path| {
        let file = path.join("vae_decoder/config.json");
        let mut config = read_json(&file);
        config["block_out_channels"].as_array_mut().unwrap().push(json!(8));
        std::fs::write(file, config.to_string()).unwrap();
    });
    assert!(words.contains("has the axes [1, 3, "), "{words}");
    let words = words_of(&|path| {
        let file = path.join("vae_decoder/model.onnx");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(words.contains("vae_decoder/model.onnx"), "{words}");
    let (_kept, path) = with_variants(&[]);
    std::fs::remove_dir_all(path.join("vae_encoder")).unwrap();
    let words = rejection(&path, &["--prompt", "", "--image", &bundle("init.png").display().to_string()]);
    assert!(words.contains("has no vae_encoder"), "{words}");
}
