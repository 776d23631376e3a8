//! What the reference pipelines do outside the graphs: prompts as people type them, pictures as cameras store them, and
//! the parameters that a pipeline passes to its scheduler.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};

use crate::common::commands::succeeds;
use crate::common::pipelines::{bundle, rejection, sample, sample_image, values};

fn of_prompt(prompt: &str) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.npy");
    succeeds(
        sample("onnxruntime", &bundle("sd"), &file).args(["--steps", "5", "--seed", "3", "--prompt", prompt]),
    );
    values(&file).1
}

#[test]
fn a_prompt_with_typographic_characters_makes_the_picture_of_the_plain_one() {
    let plain = of_prompt("a cat's \"red\" hat, fine & plain");
    for prompt in [
        "a cat’s “red” hat, fine & plain",
        "\u{feff}a cat's \"red\" hat, ﬁne &amp; plain",
        "ａ　ｃａｔ＇ｓ　＂ｒｅｄ＂　ｈａｔ，　ｆｉｎｅ　＆　ｐｌａｉｎ",
        "a catâ€™s â€œredâ€\u{9d} hat, fine & plain",
        "a cat's\u{b} \u{1b}[31m\"red\"\u{1b}[0m hat,\r\nfine & plain",
    ] {
        assert_eq!(of_prompt(prompt), plain, "{prompt:?}");
    }
    assert_ne!(of_prompt("a cats red hat, fine and plain"), plain);
}

/// The TIFF file of EXIF data with this orientation.
fn exif(orientation: u8) -> Vec<u8> {
    [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// Writes a picture as PNG, with EXIF data after its header.
fn write_png(file: &Path, picture: &DynamicImage, orientation: u8) {
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    let data = [&b"eXIf"[..], &exif(orientation)].concat();
    let bit = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
    let sum = data.iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum)));
    let length = u32::try_from(data.len() - 4).unwrap().to_be_bytes();
    png.splice(33..33, [&length[..], &data, &(!sum).to_be_bytes()].concat());
    std::fs::write(file, png).unwrap();
}

#[test]
fn a_picture_and_a_mask_are_turned_as_their_exif_data_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| image::open(bundle(name)).unwrap();
    let upright = sample_image(&bundle("sd"), &arguments(&bundle("init.png"), Some(&bundle("mask.png"))));
    // A viewer turns each of these back.
    write_png(&path("init.png"), &open("init.png").rotate270(), 6);
    write_png(&path("mask.png"), &open("mask.png").fliph(), 2);
    let tagged = sample_image(&bundle("sd"), &arguments(&path("init.png"), Some(&path("mask.png"))));
    assert_eq!(tagged, upright);
    write_png(&path("init.png"), &open("init.png").rotate270(), 1);
    let lying = sample_image(&bundle("sd"), &arguments(&path("init.png"), Some(&path("mask.png"))));
    assert_ne!(lying, upright);
}

fn arguments<'a>(image: &'a Path, mask: Option<&'a PathBuf>) -> Vec<&'a str> {
    let mask = mask.map(|mask| ["--mask", mask.to_str().unwrap()]);
    ["--image", image.to_str().unwrap(), "--strength", "0.6"]
        .into_iter()
        .chain(mask.into_iter().flatten())
        .collect()
}

#[test]
fn a_portrait_that_is_stored_lying_has_the_size_that_viewers_show() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tall.png");
    let tall = image::open(bundle("tall.png")).unwrap();
    write_png(&file, &tall.rotate90(), 8);
    let size = ["--width", "32", "--height", "48"];
    let of = |file: &Path| sample_image(&bundle("sd"), &[&arguments(file, None)[..], &size].concat());
    assert_eq!(of(&file), of(&bundle("tall.png")));
    let lying = ["--prompt", "a", "--width", "48", "--height", "32"];
    let message = rejection(&bundle("sd"), &[&arguments(&file, None)[..], &lying].concat());
    assert!(
        message.contains("32×48 pixels in the orientation of its EXIF data, but 48×32 are needed"),
        "{message}"
    );
}

#[test]
fn a_truncated_jpeg_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.jpg");
    let picture = image::open(bundle("init.png")).unwrap();
    picture.to_rgb8().save(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for length in [whole.len() - 1, whole.len() * 3 / 4] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let message = rejection(&bundle("sd"), &[&arguments(&file, None)[..], &["--prompt", "a"]].concat());
        let expected = format!("image: the file is truncated: its {length} bytes lack the end of the image");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn tcd_has_the_eta_that_the_pipeline_passes() {
    let of = |more: &[&str]| sample_image(&bundle("sd"), &[&["--sampler", "tcd"], more].concat());
    let default = of(&[]);
    assert_eq!(default, of(&["--eta", "0"]));
    assert_ne!(default, of(&["--eta", "0.3"]));
}
