//! The pictures and results that the daemon publishes, drawn again by the command line.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use denoised::image::EmbeddedText;
use serde_json::{Value, json};

use crate::common::broker::{Broker, publish};
use crate::common::commands::{denoised, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::pipelines::{PROMPT, bundle};
use crate::common::subscriber::Subscriber;
use crate::embedded_receipts::png_texts;

fn replay(file: &Path, model: &Path) -> Command {
    let mut command = denoised();
    command.arg("replay").arg(file).arg("--model").arg(model);
    command
}

/// Runs a job of three JPEG pictures that start from a picture. Returns the result, the pictures and the previews.
fn published(more: &str) -> (Value, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let text = format!("[engine]\nkind = \"embedded\"\n{more}");
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&bundle("sd")], &text));
    subscriber.wait_for_phase("ready");
    let image = base64::engine::general_purpose::STANDARD.encode(std::fs::read(bundle("init.png")).unwrap());
    let request = json!({"id": "a", "prompt": PROMPT, "seed": 3, "steps": 4, "count": 3, "exact": true,
        "strength": 0.5, "image": image, "format": "jpeg", "quality": 70, "preview_every": 1});
    publish(&broker, "denoised/test/request", &request.to_string(), &[]);
    let images = (0..3).map(|_| subscriber.on("denoised/test/image").payload).collect();
    let result = subscriber.on("denoised/test/result/a").json();
    let previews = subscriber.seen.iter().filter(|message| message.topic.contains("/preview/"));
    (result, images, previews.map(|message| message.payload.clone()).collect())
}

#[test]
fn a_published_picture_has_its_receipt_and_its_result_draws_it_again() {
    let (result, images, previews) = published("");
    assert!(!previews.is_empty() && previews.iter().all(|preview| png_texts(preview).is_empty()));
    let directory = tempfile::tempdir().unwrap();
    let (model, again) = (bundle("sd"), directory.path().join("again"));
    let [picture, file] = ["a.jpg", "result.json"].map(|name| directory.path().join(name));
    for (index, image) in images.iter().enumerate() {
        let text = EmbeddedText::read(image).unwrap();
        let receipt: Value = serde_json::from_str(&text.receipt).unwrap();
        let own = &result["images"][index]["receipt"];
        for (key, value) in receipt.as_object().unwrap() {
            assert_eq!(&own[key], value, "{key}");
        }
        assert_eq!((&receipt["seed"], &receipt["quality"]), (&json!(3 + index), &json!(70)));
        std::fs::write(&picture, image).unwrap();
        succeeds(replay(&picture, &model).arg("--image").arg(bundle("init.png")));
    }
    std::fs::write(&file, result.to_string()).unwrap();
    let mut command = replay(&file, &model);
    let output = succeeds(command.arg("--image").arg(bundle("init.png")).arg("--output").arg(&again));
    let lines = (0..3).map(|index| format!("{}: image {index}: the same bytes\n", file.display()));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines.collect::<String>());
    for (index, image) in images.iter().enumerate() {
        let path = again.join(format!("{index:04}-{}.jpeg", 3 + index));
        assert!(std::fs::read(&path).unwrap() == *image, "{}", path.display());
    }
}

#[test]
fn a_daemon_that_does_not_embed_publishes_pictures_that_its_results_draw_again() {
    let (result, images, _previews) = published("[receipt]\nembed = false\n");
    assert!(images.iter().all(|image| EmbeddedText::read(image).is_none()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("result.json");
    std::fs::write(&file, result.to_string()).unwrap();
    let output = succeeds(replay(&file, &bundle("sd")).arg("--image").arg(bundle("init.png")));
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches(": the same bytes\n").count(), 3);
}
