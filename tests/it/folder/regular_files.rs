//! Files of a folder that are FIFOs or devices.

use super::{folder, refusal};
use crate::common::commands::{denoised, fails};
use crate::common::pipelines::{PROMPT, bundle, sample};

/// A FIFO without a writer would be read for ever, and a device has no end.
#[test]
fn a_fifo_or_a_device_in_a_folder_is_refused_by_its_name() {
    for file in [
        "model_index.json",
        "denoised.toml",
        "unet/config.json",
        "vae_decoder/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
        "unet/model.onnx",
    ] {
        let (_directory, other) = folder("sd");
        let path = other.join(file);
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = refusal(&other);
        assert!(error.contains(&format!("{file}: it is a FIFO, not a regular file")), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = refusal(&other);
        assert!(error.contains(&format!("{file}: it is a device, not a regular file")), "{error}");
    }
}

/// The bundle had "none of unet/model.onnx, transformer/model.onnx, model.onnx".
#[test]
fn a_folder_in_place_of_a_graph_was_reported_as_a_missing_one() {
    for file in [
        "unet/model.onnx",
        "text_encoder/model.onnx",
        "vae_decoder/model.onnx",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
    ] {
        let (_directory, other) = folder("sd");
        let path = other.join(file);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = refusal(&other);
        let expected =
            format!("{}: it is a folder, not a regular file; put the file itself there", path.display());
        assert!(error.contains(&expected), "{error}");
    }
    let (_directory, other) = folder("sd");
    std::fs::create_dir(other.join("net")).unwrap();
    std::fs::write(other.join("denoised.toml"), "[graph]\nfile = \"net\"").unwrap();
    let error = refusal(&other);
    assert!(error.contains("net: it is a folder, not a regular file"), "{error}");
}

#[test]
fn a_device_as_a_scheduler_or_a_graph_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", &bundle("sd"), &scratch.path().join("x.png"));
    let error = fails(command.args(["--prompt", PROMPT, "--scheduler", "/dev/zero"]), 2);
    assert!(error.contains("--scheduler: /dev/zero: it is a device, not a regular file"), "{error}");
    let error = fails(denoised().args(["init", "/dev/zero"]), 1);
    assert!(error.contains("/dev/zero: it is a device, not a regular file"), "{error}");
}

/// A pipeline's network was "none of unet/model.onnx, transformer/model.onnx, model.onnx".
#[test]
fn a_link_to_a_missing_folder_was_taken_for_a_component_that_is_not_there() {
    for (name, component) in
        [("flux", "transformer"), ("sd", "unet"), ("sd", "tokenizer"), ("sd", "vae_encoder")]
    {
        let (_directory, other) = folder(name);
        let path = other.join(component);
        std::fs::remove_dir_all(&path).unwrap();
        std::os::unix::fs::symlink("missing", &path).unwrap();
        let error = refusal(&other);
        let expected = format!(
            "{}: this link leads to a folder that is missing; correct the link, or download the model again",
            path.display()
        );
        assert!(error.contains(&expected), "{error}");
    }
}
