//! What `denoised sample` says about names of other programs, addresses, and files that are damaged or of another kind.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::common::bundles::model;
use crate::common::commands::{denoised, fails};
use crate::common::pipelines::sample;

/// Runs a job that must be refused, and returns the error.
fn refusal(more: &[&str]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = sample("embedded", &model("digits"), &scratch.path().join("x.png"));
    fails(command.args(["--class", "3", "--steps", "2"]).args(more), 2)
}

/// Writes a file and returns its path.
fn written(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

/// `--guidance-scale` was taken for `--guidance-rescale`, which is spelt like it.
#[test]
fn a_flag_of_another_program_was_taken_for_the_one_that_is_spelt_like_it() {
    for (flag, ours) in [
        ("--guidance-scale", "--guidance"),
        ("--cfg-scale", "--guidance"),
        ("--num-inference-steps", "--steps"),
        ("--num_images_per_prompt", "--count"),
        ("--sampler-name", "--sampler"),
        ("--init-image", "--image"),
        ("--mask-image", "--mask"),
        ("--denoising-strength", "--strength"),
        ("--negative", "--negative-prompt"),
    ] {
        let error = refusal(&[flag, "5"]);
        assert!(error.starts_with(&format!("error: unexpected argument '{flag}' found\n")), "{error}");
        assert!(error.contains(&format!("a similar argument exists: '{ours}'\n")), "{error}");
    }
    // Another command, which has no such flag.
    let mut command = denoised();
    let error = fails(command.arg("inspect").arg(model("digits")).args(["--guidance-scale", "5"]), 2);
    assert!(!error.contains("'--guidance'"), "{error}");
}

#[test]
fn a_field_of_another_program_was_taken_for_the_one_that_is_spelt_like_it() {
    for (field, ours) in [
        ("guidance_scale", "guidance"),
        ("cfg_scale", "guidance"),
        ("num_inference_steps", "steps"),
        ("num_images_per_prompt", "count"),
        ("sampler_name", "sampler"),
        ("init_image", "image"),
        ("denoising_strength", "strength"),
        ("negativePrompt", "negative_prompt"),
        ("guidance_rescal", "guidance_rescale"),
    ] {
        let (_directory, job) = written("job.json", json!({ field: 5 }).to_string().as_bytes());
        let error = refusal(&["--job", &job.display().to_string()]);
        let expected = format!("unknown field `{field}`; did you mean `{ours}`? (the fields are: id, model");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn an_address_was_taken_for_the_name_of_a_picture() {
    let address = "https://example.org/fox.png";
    let error = refusal(&["--image", address]);
    let expected = format!(
        "{address} is an address, and addresses are not fetched; download the file and name its path"
    );
    assert!(error.ends_with(&format!("--image: {expected}\n")), "{error}");
    for (job, expected) in [
        (json!({"image": {"file": address}}), format!("image: {expected}")),
        (
            json!({ "image": address }),
            format!(
                "image is {address:?}, an address, and addresses are not fetched; download the file, and send it"
            ),
        ),
    ] {
        let (_directory, file) = written("job.json", job.to_string().as_bytes());
        let error = refusal(&["--job", &file.display().to_string()]);
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_damaged_picture_is_described() {
    let whole = |size: u32| {
        let mut file = std::io::Cursor::new(Vec::new());
        let picture = image::GrayImage::from_fn(size, size, |x, y| image::Luma([(x * 7 + y * 3) as u8]));
        picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let png = whole(28);
    let data = png.windows(4).position(|bytes| bytes == b"IDAT").unwrap();
    let with = |at: usize, byte: u8| {
        let mut file = png.clone();
        file[at] ^= byte;
        file
    };
    for (file, expected) in [
        (with(data + 6, 0xff), "the file is damaged: Corrupt deflate stream".to_owned()),
        (
            png[..png.len() / 2].to_vec(),
            format!(
                "the file is truncated: its {} bytes lack the end of the image; send the whole file",
                png.len() / 2
            ),
        ),
        (whole(16), "the picture has 16×16 pixels, but 28×28 are needed".to_owned()),
        (
            b"GIF89a".to_vec(),
            "the file is not PNG, JPEG or WebP; send one of these, or a .npy file".to_owned(),
        ),
    ] {
        let (_directory, path) = written("x.png", &file);
        let error = refusal(&["--image", &path.display().to_string(), "--strength", "0.5"]);
        assert!(error.ends_with(&format!("denoised: --image: {expected}\n")), "{error}");
    }
}

/// An empty picture was one of another format, and an empty path a file that is missing.
#[test]
fn an_empty_picture_was_of_another_format() {
    let expected = "it is empty; send a PNG, JPEG, WebP or .npy file";
    let (_directory, empty) = written("x.png", b"");
    let empty = empty.display().to_string();
    let error = refusal(&["--image", &empty]);
    assert!(error.ends_with(&format!("denoised: --image: {expected}\n")), "{error}");
    for (job, expected) in [
        (json!({"image": ""}), format!("image: {expected}")),
        (json!({"image": {"file": empty}}), format!("image: {expected}")),
        (
            json!({"image": {"file": ""}}),
            "image: \"file\" is empty; name a PNG, JPEG, WebP or .npy file".to_owned(),
        ),
    ] {
        let (_directory, file) = written("job.json", job.to_string().as_bytes());
        let error = refusal(&["--job", &file.display().to_string()]);
        assert!(error.ends_with(&format!("job.json: {expected}\n")), "{error}");
    }
    let error = refusal(&["--init-noise", &empty]);
    assert!(error.ends_with("x.png: it is empty; write a .npy file with numpy.save\n"), "{error}");
}

/// A fault in the JSON of a file was told in the words of the parser, such as "key must be a string at line 3 column 1".
#[test]
fn a_scheduler_file_that_is_not_json_had_the_message_of_the_parser() {
    for (text, expected) in [
        ("", "this file is empty; copy or download it again"),
        ("<!DOCTYPE html>", "this is a web page, not the file; download the file itself"),
        (
            "{\n  \"_class_name\": \"DDIMScheduler\",\n}",
            "line 3, column 1: a comma must be followed by another value, not `}`; remove the comma before it",
        ),
        (
            "{\"_class_name\": \"DDIMScheduler\", \"clip_sample\": True}",
            "line 1, column 49: no JSON value begins with `True`; write true",
        ),
    ] {
        let (_directory, file) = written("scheduler_config.json", text.as_bytes());
        let error = refusal(&["--scheduler", &file.display().to_string()]);
        assert_eq!(error, format!("denoised: --scheduler: {}: {expected}\n", file.display()));
    }
}

/// `--noise` names a generator; the file belongs to `--init-noise`.
#[test]
fn a_file_of_noise_for_the_generator_is_refused_with_the_flag_for_files() {
    let refusal = |generator: &str| {
        let mut command = denoised();
        command.arg("sample").arg(model("digits")).args(["--output", "x.png", "--class", "3"]);
        fails(command.args(["--noise", generator]).env("DENOISED_ENGINE__KIND", "embedded"), 2)
    };
    let error = refusal("noise.npy");
    let expected = "denoised: --noise: noise is \"noise.npy\", but must be one of: torch, philox; a file is given by \
                    --init-noise or --step-noise\n";
    assert!(error.ends_with(expected), "{error}");
    let error = refusal("pcg");
    assert!(error.ends_with("--noise: noise is \"pcg\", but must be one of: torch, philox\n"), "{error}");
}

#[test]
fn a_format_that_does_not_exist_is_refused_with_those_that_do() {
    let error = refusal(&["--format", "gif"]);
    let expected =
        "error: invalid value 'gif' for '--format <FORMAT>': expected one of: png, jpeg, webp, npy\n";
    assert!(error.starts_with(expected), "{error}");
    let (_directory, job) = written("job.json", b"{\"format\": \"gif\"}");
    let error = refusal(&["--job", &job.display().to_string()]);
    let expected = "format is the string \"gif\", but must be one of: png, jpeg, webp, npy";
    assert!(error.contains(expected), "{error}");
}

/// A picture, an archive and a program were read as protobuf, and the advice was to export them again.
#[test]
fn a_file_that_is_no_model_was_reported_as_a_damaged_one() {
    for (bytes, expected) in [
        (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "this is a picture, not an ONNX graph"),
        (b"\x7fELF\x02\x01\x01\0", "this is a program or a library, not an ONNX graph"),
        (b"\x93NUMPY\x01\0v\0", "this is an array of NumPy (.npy), not an ONNX graph"),
    ] {
        let (_directory, path) = written("model.onnx", bytes);
        let expected = format!("{}: {expected}; name the ONNX file of the model\n", path.display());
        let init = |file: &Path| fails(denoised().arg("init").arg(file), 1);
        let error = init(&path);
        assert!(error.ends_with(&expected), "{error}");
    }
}
