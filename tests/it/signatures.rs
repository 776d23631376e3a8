//! What the graphs of a pipeline take and give is held against what they are fed with.

mod text_encoders;

use std::path::{Path, PathBuf};

use crate::common::broker::{Broker, publish};
use crate::common::bundles::copy_bundle;
use crate::common::commands::{denoised, fails};
use crate::common::daemon::{Daemon, configuration};
use crate::common::onnx_graphs::{
    edit, float_constant, integers, multiply_output, node, node_with, rename, rename_in_nodes, set_axes,
    value,
};
use crate::common::pipelines::{
    PROMPT, bundle, rejection, sample, sample_image, sample_image_on, with_variants,
};
use crate::common::subscriber::Subscriber;
use crate::common::{largest_difference, read_json};
use rten_onnx::onnx::{DataType, GraphProto, TensorProto};
use serde_json::{Value, json};
use tempfile::TempDir;

const ENGINES: [&str; 2] = ["embedded", "onnxruntime"];

/// Copies a pipeline, and changes the graph of a component.
fn changed(pipeline: &str, component: &str, change: impl FnOnce(&mut GraphProto)) -> (TempDir, PathBuf) {
    let (directory, path) = copy_bundle(&bundle(pipeline), pipeline);
    edit(&graph_of(&path, component), change);
    (directory, path)
}

fn graph_of(bundle: &Path, component: &str) -> PathBuf {
    bundle.join(component).join("model.onnx")
}

/// Changes a JSON file of a bundle.
fn set_key(bundle: &Path, file: &str, key: &str, value: Value) {
    let path = bundle.join(file);
    let mut config = read_json(&path);
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

/// The error of `inspect`, which no job is needed for. It names each cause once.
fn refusal(model: &Path, cause: &str) -> String {
    let mut command = denoised();
    let stderr = fails(command.arg("inspect").arg(model).args(["--engine", "embedded"]), 1);
    assert_eq!(stderr.matches(cause).count(), 1, "{cause}: {stderr}");
    stderr
}

/// The error of a job that fails on this engine.
fn failure(engine: &str, model: &Path, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample(engine, model, &folder.path().join("x.png"));
    fails(command.args(["--prompt", PROMPT, "--steps", "2"]).args(more), 1)
}

fn is_same_image(first: &[f32], second: &[f32]) {
    let difference = largest_difference(first, second);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn nan_from_a_decoder_is_no_picture() {
    let nan = |output: &'static str| {
        move |graph: &mut GraphProto| {
            graph.initializer.push(float_constant("nan", f32::NAN));
            multiply_output(graph, output, "nan");
        }
    };
    let picture = bundle("init.png").display().to_string();
    for (pipeline, component, output, more) in [
        ("sd", "vae_decoder", "sample", &[][..]),
        ("sd", "vae_encoder", "latent_parameters", &["--image", &picture]),
        ("sd", "text_encoder", "last_hidden_state", &[]),
        ("sdxl", "text_encoder_2", "text_embeds", &[]),
    ] {
        let (_directory, model) = changed(pipeline, component, nan(output));
        for engine in ENGINES {
            let stderr = failure(engine, &model, more);
            let expected = format!("{component}: its output {output} contains NaN or infinity");
            assert!(stderr.contains(&expected), "{engine}: {stderr}");
        }
    }
    // A tile is checked too, and infinity is no value either.
    let (_directory, model) = changed("sd", "vae_decoder", |graph| {
        graph.initializer.push(float_constant("large", f32::INFINITY));
        multiply_output(graph, "sample", "large");
    });
    let folder = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", &model, &folder.path().join("x.png"));
    command
        .args(["--prompt", PROMPT, "--steps", "2", "--width", "128"])
        .env("DENOISED_ENGINE__VAE_TILE", "64");
    let stderr = fails(&mut command, 1);
    assert!(stderr.contains("vae_decoder: its output sample contains NaN or infinity"), "{stderr}");
}

#[test]
fn nan_from_a_decoder_is_published_as_an_error() {
    let (_directory, model) = changed("sd", "vae_decoder", |graph| {
        graph.initializer.push(float_constant("nan", f32::NAN));
        multiply_output(graph, "sample", "nan");
    });
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&model], "[engine]\nkind = \"embedded\""));
    subscriber.wait_for_phase("ready");
    publish(&broker, "denoised/test/request", r#"{"id": "nan", "prompt": "x", "steps": 2}"#, &[]);
    let error = subscriber.on("denoised/test/error/nan").json();
    assert_eq!(error["code"], "non_finite", "{error}");
    assert_eq!(
        error["message"],
        "vae_decoder: its output sample contains NaN or infinity; if the graph is in float16, try one in float32"
    );
    assert!(subscriber.seen.iter().all(|message| message.topic != "denoised/test/image"));
}

#[test]
fn inputs_with_other_names_are_named_in_the_manifest() {
    let (_directory, model) =
        changed("sd", "unet", |graph| rename(graph, "encoder_hidden_states", "context"));
    let stderr = refusal(&model, "context float32[?, ?, 16]");
    assert!(stderr.contains("denoised.toml: [graph] text = \"context\""), "{stderr}");
    assert!(!stderr.contains("[conditions"), "{stderr}");
    std::fs::write(model.join("denoised.toml"), "[graph]\ntext = \"context\"\n").unwrap();
    assert_eq!(sample_image(&model, &[]), sample_image(&bundle("sd"), &[]));
    // As a condition it cannot be fed, which is found before the engine fails.
    let condition = "[conditions.context]\ndefault = 0.0\n";
    std::fs::write(model.join("denoised.toml"), condition).unwrap();
    let stderr = refusal(&model, "one number per sample");
    assert!(stderr.contains("[graph] text = \"context\"") && !stderr.contains("operators"), "{stderr}");

    let (_directory, model) = changed("sdxl", "unet", |graph| {
        rename(graph, "text_embeds", "vector");
        rename(graph, "time_ids", "sizes");
    });
    refusal(&model, "[graph] pooled = \"vector\"");
    std::fs::write(model.join("denoised.toml"), "[graph]\npooled = \"vector\"\ntime_ids = \"sizes\"\n")
        .unwrap();
    assert_eq!(sample_image(&model, &[]), sample_image(&bundle("sdxl"), &[]));
}

#[test]
fn inputs_of_a_control_net_or_a_mask_are_refused_by_name() {
    for (name, axes, expected) in [
        (
            "down_block_additional_residuals_0",
            &[-1, 320, -1, -1][..],
            "it is an input for a ControlNet's residual, but the others are missing",
        ),
        ("encoder_attention_mask", &[-1, -1], "a mask of the text's tokens"),
    ] {
        let (_directory, model) =
            changed("sd", "unet", |graph| graph.input.push(value(name, DataType::FLOAT, axes)));
        let stderr = refusal(&model, expected);
        assert!(stderr.contains(name) && !stderr.contains("[conditions"), "{stderr}");
    }
}

#[test]
fn networks_with_other_channels_are_refused_by_name() {
    for (channels, name) in
        [(8, "instruction editing"), (5, "depth-to-image"), (7, "the upscaler"), (3, "not of one model")]
    {
        let (_directory, model) =
            changed("sd", "unet", |graph| set_axes(graph, "sample", &[-1, channels, -1, -1]));
        set_key(&model, "unet/config.json", "in_channels", json!(channels));
        let stderr = refusal(&model, name);
        assert!(stderr.contains("unet/model.onnx: the graph's input sample float32"), "{stderr}");
    }
}

#[test]
fn a_fixed_batch_of_a_component_is_filled() {
    let (_directory, model) =
        changed("sd", "vae_decoder", |graph| set_axes(graph, "latent_sample", &[2, 4, -1, -1]));
    edit(&graph_of(&model, "text_encoder"), |graph| set_axes(graph, "input_ids", &[2, 77]));
    for engine in ENGINES {
        is_same_image(&sample_image_on(engine, &model, &[]), &sample_image_on(engine, &bundle("sd"), &[]));
    }
}

#[test]
fn a_size_beyond_the_table_of_positions_is_refused() {
    let stderr = rejection(&bundle("sd3"), &["--prompt", "", "--width", "132"]);
    assert!(stderr.contains("width is 132, but sd3 takes at most 128; use 128"), "{stderr}");
}

#[test]
fn other_inputs_of_a_component_are_refused() {
    for (component, input, expected) in [
        ("text_encoder", value("decoder_input_ids", DataType::INT64, &[-1, -1]), "export the encoder alone"),
        ("vae_decoder", value("timestep", DataType::FLOAT, &[]), "an autoencoder is fed with one input"),
    ] {
        let name = input.name.clone().unwrap();
        let (_directory, model) = changed("sd", component, |graph| graph.input.push(input));
        let stderr = refusal(&model, expected);
        assert!(stderr.contains(&format!("{component}/model.onnx: the graph's input {name}")), "{stderr}");
    }
    let (_directory, model) =
        changed("sd", "vae_decoder", |graph| set_axes(graph, "latent_sample", &[-1, 16, -1, -1]));
    refusal(&model, "it takes 16 channels, but is fed with 4");
}

#[test]
fn a_decoder_of_a_fixed_size_limits_the_sizes_of_jobs() {
    let (_directory, model) =
        changed("sd", "vae_decoder", |graph| set_axes(graph, "latent_sample", &[-1, 4, 16, 16]));
    assert_eq!(sample_image(&model, &[]), sample_image(&bundle("sd"), &[]));
    let stderr = rejection(&model, &["--prompt", "", "--width", "64"]);
    let expected = "--width: width is 64, but the graph of the vae_decoder of sd only takes 32; use 32";
    assert!(stderr.contains(expected), "{stderr}");
    // An encoder of a fixed size limits only jobs with an image.
    let (_directory, encoder) =
        changed("sd", "vae_encoder", |graph| set_axes(graph, "sample", &[-1, 3, 32, 32]));
    let (picture, wide) = (bundle("init.png").display().to_string(), ["--prompt", "", "--width", "64"]);
    let stderr = rejection(&encoder, &[&wide[..], &["--image", &picture]].concat());
    assert!(stderr.contains("the graph of the vae_encoder of sd only takes 32"), "{stderr}");
    // Another size than that of the network's own sample is the default.
    edit(&graph_of(&model, "vae_decoder"), |graph| set_axes(graph, "latent_sample", &[-1, 4, 24, 24]));
    let small = ["--width", "48", "--height", "48"];
    assert_eq!(sample_image(&model, &[]), sample_image(&bundle("sd"), &small));
    edit(&graph_of(&model, "unet"), |graph| set_axes(graph, "sample", &[-1, 4, 16, 16]));
    let stderr = refusal(&model, "but the other graphs have 16×16");
    assert!(stderr.contains("vae_decoder/model.onnx"), "{stderr}");
}

#[test]
fn positions_with_a_batch_axis_are_fed() {
    for first in [1, -1] {
        let (_directory, model) = changed("flux", "transformer", |graph| {
            graph.initializer.push(TensorProto { dims: Vec::new(), ..integers("first", &[0]) });
            for ids in ["img_ids", "txt_ids"] {
                let flat = format!("{ids}_flat");
                rename_in_nodes(graph, ids, &flat);
                graph.node.insert(0, node_with("Gather", &[ids, "first"], &flat, ("axis", 0)));
                set_axes(graph, ids, &[first, -1, 3]);
            }
        });
        for engine in ENGINES {
            let [with, without] =
                [&model, &bundle("flux")].map(|model| sample_image_on(engine, model, &["--count", "2"]));
            is_same_image(&with, &without);
        }
    }
}

#[test]
fn the_refiner_of_sdxl_is_refused_by_name() {
    let (_directory, model) = changed("sdxl", "unet", |graph| set_axes(graph, "time_ids", &[-1, 5]));
    let stderr = refusal(&model, "SDXL's refiner, which is not served");
    assert!(stderr.contains("time_ids float32[?, 5]"), "{stderr}");
}

#[test]
fn a_size_that_the_network_cannot_halve_is_refused_with_the_nearest_ones() {
    let stderr = rejection(&bundle("sd"), &["--prompt", "", "--width", "34"]);
    assert!(stderr.contains("width is 34, but this model needs a multiple of 4; use 32 or 36"), "{stderr}");
    // Where the configuration is wrong, the error of the engine names the size.
    let (_directory, model) = with_variants(&[]);
    set_key(&model, "unet/config.json", "down_block_types", json!(["DownBlock2D"]));
    for engine in ENGINES {
        let stderr = failure(engine, &model, &["--width", "34"]);
        assert!(
            stderr.contains("samples of 17×16 latents fail in the network, whose own are 16×16"),
            "{stderr}"
        );
    }
}

#[test]
fn the_prediction_is_found_among_several_outputs() {
    let (_directory, model) = changed("sd", "unet", |graph| {
        rename(graph, "out_sample", "y");
        graph.output.insert(0, value("text_copy", DataType::FLOAT, &[-1, -1, 16]));
        graph.node.push(node("Identity", &["encoder_hidden_states"], "text_copy"));
    });
    for engine in ENGINES {
        let expected = sample_image_on(engine, &bundle("sd"), &[]);
        assert_eq!(sample_image_on(engine, &model, &[]), expected, "{engine}");
    }
    edit(&graph_of(&model, "unet"), |graph| set_axes(graph, "y", &[-1, 3, -1, -1]));
    refusal(&model, "no output of the graph is a prediction with the axes [?, 4 or 8, ?, ?]");
}

#[test]
fn an_autoencoder_without_usual_names_is_read_by_its_axes() {
    let (_directory, model) = changed("sd", "vae_encoder", |graph| {
        rename(graph, "sample", "x");
        rename(graph, "latent_parameters", "moments");
    });
    edit(&graph_of(&model, "vae_decoder"), |graph| rename(graph, "latent_sample", "z"));
    let picture = ["--image", &bundle("init.png").display().to_string(), "--strength", "0.7"];
    assert_eq!(sample_image(&model, &picture), sample_image(&bundle("sd"), &picture));
}
