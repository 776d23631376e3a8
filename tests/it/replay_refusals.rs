//! What `denoised replay` refuses: files without receipts, damaged ones, and files that are not those of the job.

use std::path::Path;

use denoised::image::EmbeddedText;

use crate::common::bundles::model;
use crate::common::commands::{fails, succeeds};
use crate::common::pipelines::{PROMPT, bundle, sample};
use crate::replay::{Studio, sha256};

#[test]
fn the_files_that_a_picture_was_drawn_from_are_needed_by_their_digests() {
    let studio = Studio::new(&bundle("sd"));
    let [image, mask, other] =
        ["init.png", "mask.png", "tall.png"].map(|name| bundle(name).display().to_string());
    let flags = ["--image", image.as_str(), "--mask", mask.as_str()];
    let job = ["--prompt", PROMPT, "--seed", "3", "--steps", "6", "--strength", "0.5"];
    let file = studio.draw("fox.png", &[&job[..], &flags].concat());
    studio.check_same(&file, &flags);

    let refused = |more: &[&str]| fails(studio.replay(&file).args(more), 2);
    let missing = refused(&flags[2..]);
    let expected = format!("give it by --image FILE: its SHA-256 is {}\n", sha256(Path::new(&image)));
    assert!(missing.ends_with(&expected), "{missing}");
    let missing = refused(&flags[..2]);
    let expected = format!("give it by --mask FILE: its SHA-256 is {}\n", sha256(Path::new(&mask)));
    assert!(missing.ends_with(&expected), "{missing}");
    let wrong = refused(&["--image", &other, "--mask", &mask]);
    let (found, needed) = (sha256(Path::new(&other)), sha256(Path::new(&image)));
    let expected = format!(
        "--image: {other} has the SHA-256 {found}, but the picture was drawn with {needed}; give that file\n"
    );
    assert!(wrong.ends_with(&expected), "{wrong}");
    let plain = studio.draw("plain.png", &job[..6]);
    let unneeded = fails(studio.replay(&plain).args(flags), 2);
    assert!(
        unneeded.contains("--image: the picture was drawn without such a file; leave --image out"),
        "{unneeded}"
    );
}

#[test]
fn files_without_a_receipt_and_damaged_ones_are_errors_that_name_them() {
    let studio = Studio::new(&model("digits"));
    let file = studio.draw("a.png", &["--class", "3", "--steps", "2", "--seed", "7"]);
    let whole = std::fs::read(&file).unwrap();
    let plain = studio.path("plain.png");
    succeeds(
        sample("embedded", &studio.model, &plain)
            .args(["--steps", "1"])
            .env("DENOISED_RECEIPT__EMBED", "false"),
    );
    let plain = std::fs::read(plain).unwrap();
    let receipt = EmbeddedText::read(&whole).unwrap().receipt;
    let changed = |from: &str, to: &str| receipt.replace(from, to).into_bytes();
    for (bytes, expected) in [
        (&b""[..], "neither PNG, JPEG, WebP nor JSON"),
        (b"\x93NUMPY", "neither PNG, JPEG, WebP nor JSON"),
        (
            &plain,
            "the picture has no receipt; a receipt is in each picture of denoised, unless [receipt] embed is",
        ),
        (&whole[..40], "the picture is damaged: "),
        (b"{", "the file is not valid JSON: it ends before"),
        (b"[1]", "the file is an array, but must be"),
        (br#"{"data": []}"#, "the response has no images"),
        (br#"{"data": [{"b64_json": "QQ=="}]}"#, "data[0].denoised is missing"),
        (br#"{"class": 3}"#, "it is no receipt of denoised: it has no model; a receipt is in"),
        (br#"{"images": []}"#, "the result has no images"),
        (br#"{"images": [3]}"#, "images[0].receipt is missing"),
        (br#"{"images": [{"receipt": {"model": "a"}}]}"#, "images[0].receipt: it is no receipt"),
        (&b"{\"a\":".repeat(100_000), "the file is not valid JSON"),
        (&changed("\"steps\":2", "\"steps\":\"two\""), "steps is the string \"two\", but must be an integer"),
        (&changed("\"steps\":2", "\"steps\":1e9"), "steps is 1000000000, but must lie between 1 and 100000"),
        (&changed("\"class\":3", "\"class\":99"), "class is 99, but digits has classes"),
        (&changed("\"seed\":7", "\"seed\":null"), "it is no receipt of denoised: it has no seed"),
        (&changed("\"noise\":\"torch\"", "\"noise\":\"x\""), "noise is \"x\", but must be one of"),
        (
            &changed("DDPMScheduler", "Unknown"),
            "scheduler: _class_name is \"Unknown\", which is not supported",
        ),
        (
            &changed("\"class\":3", "\"class\":3,\"count\":100000000"),
            "count is 100000000, but must lie between 1 and 10000",
        ),
    ] {
        let path = studio.path("hostile");
        std::fs::write(&path, bytes).unwrap();
        let error = fails(studio.replay(&path).arg("--output").arg(studio.path("out.png")), 2);
        assert!(error.starts_with(&format!("denoised: {}", path.display())), "{error}");
        assert!(error.contains(expected), "{error}\n{expected}");
    }
    // The pixels are missing, so that there is nothing to compare with.
    let path = studio.path("cut.png");
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let error = fails(&mut studio.replay(&path), 2);
    assert!(error.contains("cut.png: ") && error.contains("truncated"), "{error}");
}
