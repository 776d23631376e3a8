//! Receipts in the files of pictures, as readers of other crates find them.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{ImageDecoder, ImageFormat, ImageReader};
use serde_json::{Value, json};

use crate::common::bundles::model;
use crate::common::commands::succeeds;
use crate::common::pipelines::{bundle, sample};

/// A command that draws a three by six steps of DDIM.
fn three(output: &Path) -> Command {
    let mut command = sample("embedded", &model("digits"), output);
    command.args(["--class", "3", "--seed", "7", "--steps", "6", "--sampler", "ddim"]);
    command
}

/// The texts of a PNG file, by the decoder of the crate `png`.
pub fn png_texts(file: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let texts = reader.info().utf8_text.iter();
    texts.map(|text| (text.keyword.clone(), text.get_text().unwrap())).collect()
}

/// The receipt in a picture, by the decoders of the crate `image`.
fn xmp_receipt(file: &[u8], format: ImageFormat) -> Value {
    let mut decoder = ImageReader::with_format(Cursor::new(file), format).into_decoder().unwrap();
    let xmp = String::from_utf8(decoder.xmp_metadata().unwrap().unwrap()).unwrap();
    let (_, rest) = xmp.split_once("<denoised:receipt>").unwrap();
    let (receipt, _) = rest.split_once("</denoised:receipt>").unwrap();
    let receipt = receipt.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&receipt).unwrap()
}

/// The comment in a picture's EXIF data.
fn comment(file: &[u8], format: ImageFormat) -> String {
    let mut decoder = ImageReader::with_format(Cursor::new(file), format).into_decoder().unwrap();
    let exif = decoder.exif_metadata().unwrap().unwrap();
    let start = exif.windows(8).position(|window| window == b"UNICODE\0").unwrap() + 8;
    let units = exif[start..].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    String::from_utf16(&units.collect::<Vec<_>>()).unwrap()
}

fn drawn(mut command: Command, path: &Path) -> Vec<u8> {
    succeeds(&mut command);
    std::fs::read(path).unwrap()
}

#[test]
fn a_png_file_has_its_parameters_and_its_receipt_before_the_pixels() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("three.png");
    let file = drawn(three(&path), &path);
    let [(first, parameters), (second, receipt)] = <[_; 2]>::try_from(png_texts(&file)).unwrap();
    assert_eq!((first.as_str(), second.as_str()), ("parameters", "denoised_receipt"));
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    let sha256 = receipt["model_sha256"].as_str().unwrap();
    assert_eq!(
        parameters,
        format!(
            "Steps: 6, Sampler: ddim, CFG scale: {}, Seed: 7, Size: 28x28, Model hash: {}, Model: digits, Class: 3, \
             Version: denoised {}",
            receipt["guidance"].as_f64().unwrap(),
            &sha256[..10],
            env!("CARGO_PKG_VERSION")
        )
    );
    for (key, value) in [
        ("class", json!(3)),
        ("seed", json!(7)),
        ("steps", json!(6)),
        ("sampler", json!("ddim")),
        ("engine", json!("embedded")),
        ("provider", json!("cpu")),
    ] {
        assert_eq!(receipt[key], value, "{key}");
    }
    assert_eq!(receipt["scheduler"]["_class_name"], "DDPMScheduler");
    // These may differ between pictures that are the same.
    for key in ["id", "index", "ignored", "provider_shares", "rejected_providers", "quality", "count"] {
        assert_eq!(receipt.get(key), None, "{key}");
    }
}

#[test]
fn jpeg_and_webp_files_have_a_comment_and_xmp() {
    let directory = tempfile::tempdir().unwrap();
    let prompt = "Füchse & \"Hasen\" <im> Schnee: 🦊";
    for (name, format, quality) in
        [("a.jpg", ImageFormat::Jpeg, Some("80")), ("a.webp", ImageFormat::WebP, None)]
    {
        let path = directory.path().join(name);
        let mut command = sample("embedded", &bundle("sd"), &path);
        command.args(["--prompt", prompt, "--negative-prompt", "rain", "--steps", "2", "--seed", "1"]);
        command.args(quality.iter().flat_map(|quality| ["--quality", quality]));
        let file = drawn(command, &path);
        let receipt = xmp_receipt(&file, format);
        assert_eq!((&receipt["prompt"], &receipt["negative_prompt"]), (&json!(prompt), &json!("rain")));
        assert_eq!(receipt.get("quality").cloned(), quality.map(|_| json!(80)));
        let comment = comment(&file, format);
        let expected = format!(
            "{prompt}\nNegative prompt: rain\nSteps: 2, Sampler: ddim, CFG scale: 7.5, Seed: 1, Size: 32x32"
        );
        assert!(comment.starts_with(&expected), "{comment}");
    }
}

#[test]
fn a_picture_without_embedding_has_the_same_pixels_and_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let configuration = path("c.toml");
    std::fs::write(&configuration, "[receipt]\nembed = false\n").unwrap();
    for ending in ["png", "jpg", "webp"] {
        let (with, plain) = (path(&format!("with.{ending}")), path(&format!("plain.{ending}")));
        let with = drawn(three(&with), &with);
        let mut command = three(&plain);
        command.arg("--config").arg(&configuration);
        let from_file = drawn(command, &plain);
        let mut command = three(&plain);
        command.env("DENOISED_RECEIPT__EMBED", "false");
        assert_eq!(drawn(command, &plain), from_file);
        assert_eq!(denoised::image::EmbeddedText::read(&from_file), None);
        let bytes = |file: &[u8], text: &[u8]| file.windows(text.len()).any(|window| window == text);
        for text in [&b"denoised"[..], b"Steps: 6", b"iTXt", b"Exif", b"XMP "] {
            assert!(!bytes(&from_file, text), "{ending}: {}", String::from_utf8_lossy(text));
        }
        let pixels = |file: &[u8]| image::load_from_memory(file).unwrap();
        assert_eq!(pixels(&with), pixels(&from_file), "{ending}");
    }
}

#[test]
fn each_file_of_a_directory_has_its_own_receipt_and_a_grid_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let (images, grid) = (directory.path().join("images"), directory.path().join("grid.png"));
    succeeds(three(&images).args(["--count", "3"]));
    let receipt = |path: PathBuf| -> Value {
        let texts = png_texts(&std::fs::read(path).unwrap());
        serde_json::from_str(&texts[1].1).unwrap()
    };
    for index in 0..3 {
        let receipt = receipt(images.join(format!("{index:04}-{}.png", 7 + index)));
        assert_eq!((&receipt["seed"], receipt.get("count")), (&json!(7 + index), None));
    }
    succeeds(three(&grid).args(["--count", "3"]));
    let texts = png_texts(&std::fs::read(&grid).unwrap());
    assert!(texts[0].1.contains(", Batch size: 3, "), "{texts:?}");
    let receipt = receipt(grid);
    assert_eq!((&receipt["seed"], &receipt["count"]), (&json!(7), &json!(3)));
}

/// Their noise is not in the receipt, so that it would draw another picture.
#[test]
fn a_picture_of_noise_from_a_file_has_no_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let [noise, path] = ["noise.npy", "a.png"].map(|name| directory.path().join(name));
    std::fs::write(&noise, denoised::npy::write(&[1, 1, 28, 28], &[0.5; 784]).unwrap()).unwrap();
    let mut command = three(&path);
    command.arg("--init-noise").arg(&noise);
    assert_eq!(png_texts(&drawn(command, &path)), []);
}
