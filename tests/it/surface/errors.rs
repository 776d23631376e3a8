//! The errors of invalid requests: code, field and message.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::snapshot::check;
use crate::common::bundles::model;
use crate::common::golden;
use crate::common::pipelines::bundle;
use denoised::bundle::{Condition, SchedulerConfig};
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{ErrorCode, JobError, JobLimits, ModelCard, parse};
use denoised::model::Model;

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// Formats an error as a line.
pub(crate) fn line(error: &JobError) -> String {
    let code = serde_json::to_value(error.code).unwrap();
    format!("{} {} {}", code.as_str().unwrap(), error.field.as_deref().unwrap_or("-"), error.message)
}

/// Formats each request, with long strings shortened, and its error below.
fn table(answers: impl IntoIterator<Item = (String, JobError)>) -> String {
    let mut text = String::new();
    for (request, error) in answers {
        let pieces = request.split('"').map(|piece| if piece.len() > 60 { "…" } else { piece });
        writeln!(text, "{}\n    {}", pieces.collect::<Vec<_>>().join("\""), line(&error)).unwrap();
    }
    text
}

fn card(bundle: &Path) -> Arc<ModelCard> {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    ModelCard::new(&Model::load(bundle, &options).unwrap())
}

/// Formats the errors of requests to a model.
fn answers(card: &Arc<ModelCard>, limits: JobLimits, requests: &[&str]) -> String {
    table(requests.iter().map(|request| {
        let parsed = parse(request.as_bytes()).unwrap_or_else(|(_, error)| panic!("{request}: {error}"));
        let error = parsed.check(std::slice::from_ref(card), limits, || 1).expect_err(request);
        ((*request).to_owned(), error)
    }))
}

fn with_scheduler(card: &Arc<ModelCard>, json: &str) -> Arc<ModelCard> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scheduler_config.json");
    std::fs::write(&path, json).unwrap();
    let mut changed = (*card.bundle).clone();
    changed.scheduler = SchedulerConfig::read(&path).unwrap();
    Arc::new(ModelCard { bundle: Arc::new(changed), ..(**card).clone() })
}

#[test]
fn every_error_code_has_a_stable_name() {
    use ErrorCode::*;
    let codes = [
        BadRequest,
        OutOfRange,
        UnknownModel,
        UnknownSampler,
        Conflict,
        QueueFull,
        Unavailable,
        Cancelled,
        Deadline,
        NonFinite,
        Engine,
        Encoding,
        Denied,
        NoPicture,
    ];
    // This match does not compile with a new code; add it here and above.
    for code in codes {
        match code {
            BadRequest | OutOfRange | UnknownModel | UnknownSampler | Conflict | QueueFull | Unavailable
            | Cancelled | Deadline | NonFinite | Engine | Encoding | Denied | NoPicture => {}
        }
    }
    check("errors-codes", &serde_json::to_string_pretty(&codes).unwrap());
}

#[test]
fn unreadable_requests_are_rejected() {
    let requests = [
        "draw me a three",
        "",
        "[]",
        "3",
        r#"{"id": "a"} {}"#,
        r#"{"id": 5}"#,
        r#"{"id": "a", "id": "b"}"#,
        r#"{"stepz": 5}"#,
        r#"{"steps": "ten"}"#,
        r#"{"steps": -1}"#,
        r#"{"steps": 1.5}"#,
        r#"{"seed": 18446744073709551616}"#,
        r#"{"priority": 2147483648}"#,
        r#"{"format": "gif"}"#,
        r#"{"exact": 1}"#,
        r#"{"crop": [1]}"#,
        r#"{"conditions": {"mood": "good"}}"#,
        r#"{"image": 5}"#,
        r#"{"mask": {"topic": "a", "qos": 1}}"#,
        r#"{"stream": "a"}"#,
        r#"{"stream": {"every_ms": 500}}"#,
        r#"{"stream": {"topic": "a", "fps": 2}}"#,
        r#"{"stream": {"topic": "a", "every_ms": -1}}"#,
    ];
    let answers = requests.map(|request| (request.to_owned(), parse(request.as_bytes()).expect_err(request)));
    check("errors-parse", &table(answers.map(|(request, (_, error))| (request, error))));
}

#[test]
fn requests_that_a_pixel_model_cannot_serve_are_rejected() {
    let digits = card(&model("digits"));
    let mut text = answers(
        &digits,
        LIMITS,
        &[
            r#"{"id": "no spaces"}"#,
            r#"{"model": "mona-lisa"}"#,
            r#"{"quality": 0}"#,
            r#"{"width": 500}"#,
            r#"{"height": 500}"#,
            r#"{"prompt": "a"}"#,
            r#"{"prompt_2": "a"}"#,
            r#"{"negative_prompt": "a"}"#,
            r#"{"negative_prompt_2": "a"}"#,
            r#"{"clip_skip": 1}"#,
            r#"{"max_sequence_length": 1}"#,
            r#"{"original_size": [1, 1]}"#,
            r#"{"crop": [1, 1]}"#,
            r#"{"target_size": [1, 1]}"#,
            r#"{"steps": 0}"#,
            r#"{"steps": 1001}"#,
            r#"{"count": 65}"#,
            r#"{"sampler": "magic"}"#,
            r#"{"sampler": "ncsn"}"#,
            r#"{"sampler": "ddpm_karras"}"#,
            r#"{"sampler": "pndm", "steps": 3}"#,
            r#"{"sampler": "ddpm", "eta": 0.5}"#,
            r#"{"sampler": "euler", "eta": 0.5}"#,
            r#"{"sampler": "ddim", "eta": 1.5}"#,
            r#"{"class": 10}"#,
            r#"{"class": -1}"#,
            r#"{"class": 1, "guidance": 101}"#,
            r#"{"guidance": 3}"#,
            r#"{"guidance_rescale": 2}"#,
            r#"{"noise": "dice"}"#,
            r#"{"preview_every": 0}"#,
            r#"{"conditions": {"mood": 1}}"#,
        ],
    );
    let steps = JobLimits { steps: 100_000, ..LIMITS };
    text += &answers(&digits, steps, &[r#"{"sampler": "ddim", "steps": 1001}"#]);
    text += &answers(&digits, JobLimits { memory: Some(0), ..LIMITS }, &["{}"]);

    text += "--- without classes\n";
    text += &answers(&card(&golden("gaussian")), LIMITS, &[r#"{"class": 3}"#]);
    text += "--- without a null class, with a condition\n";
    let mut changed = (*digits.bundle).clone();
    changed.manifest.classes.null = None;
    let mood = Condition { input: None, default: 0.5, min: 0.0, max: 1.0 };
    changed.manifest.conditions.insert("mood".to_owned(), mood);
    let changed = Arc::new(ModelCard { bundle: Arc::new(changed), ..(*digits).clone() });
    let requests = [
        "{}",
        r#"{"class": 1, "guidance": 2}"#,
        r#"{"class": 1, "conditions": {"mood": 2}}"#,
        r#"{"class": 1, "conditions": {"air": 2}}"#,
    ];
    text += &answers(&changed, LIMITS, &requests);
    text += "--- with samples that are not pictures\n";
    let mut planes = digits.clone();
    Arc::make_mut(&mut planes).signature.sample_shape = vec![4, 28, 28];
    text += &answers(&planes, LIMITS, &["{}"]);
    check("errors-pixels", &text);
}

#[test]
fn schedulers_that_a_sampler_cannot_serve_are_rejected() {
    let digits = card(&model("digits"));
    let mut text = String::new();
    for (scheduler, request) in [
        (r#"{"_class_name": "DDPMScheduler", "prediction_type": "sample"}"#, r#"{"sampler": "pndm"}"#),
        (r#"{"_class_name": "DDPMScheduler", "variance_type": "learned_range"}"#, r#"{"sampler": "ddpm"}"#),
        (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, r#"{"sampler": "ddim"}"#),
    ] {
        writeln!(text, "--- {scheduler}").unwrap();
        text += &answers(&with_scheduler(&digits, scheduler), LIMITS, &[request]);
    }
    check("errors-schedulers", &text);
}

/// Returns a request with this init image, as JSON.
fn with_image(bytes: &[u8], more: &str) -> String {
    format!(r#"{{{more}, "image": "{}"}}"#, STANDARD.encode(bytes))
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(width, height).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn unusable_init_images_are_rejected() {
    let digits = card(&model("digits"));
    let good = picture(28, 28);
    let requests = [
        r#"{"mask": ""}"#.to_owned(),
        r#"{"strength": 0.5}"#.to_owned(),
        r#"{"image": {"topic": "camera/front"}}"#.to_owned(),
        r#"{"image": "?"}"#.to_owned(),
        with_image(&good, r#""strength": 1.5"#),
        with_image(&good, r#""strength": 0.01, "sampler": "ddim", "steps": 10"#),
        with_image(&good, r#""sampler": "repaint""#),
        with_image(&good, r#""sampler": "heun", "mask": "?""#),
        with_image(&good, r#""sampler": "ddim_inverse""#),
        with_image(&good, r#""sampler": "pndm""#),
        with_image(&good, &format!(r#""mask": "{}""#, STANDARD.encode(picture(8, 8)))),
        with_image(b"GIF89a", r#""seed": 1"#),
        with_image(&picture(8, 16), r#""seed": 1"#),
        with_image(&denoised::npy::write(&[2, 2], &[0.0; 4]).unwrap(), r#""seed": 1"#),
        with_image(b"\x93NUMPY", r#""seed": 1"#),
    ];
    let mut text = answers(&digits, LIMITS, &requests.each_ref().map(String::as_str));
    let few = JobLimits { pixels: 100, ..LIMITS };
    text += &answers(&digits, few, &[&with_image(&good, r#""seed": 1"#)]);
    text += "--- swissroll\n";
    text += &answers(&card(&model("swissroll")), LIMITS, &[&with_image(&good, r#""seed": 1"#)]);
    text += "--- sd without vae_encoder\n";
    let without_encoder = Arc::new(ModelCard { has_vae_encoder: false, ..(*card(&bundle("sd"))).clone() });
    text += &answers(&without_encoder, LIMITS, &[&with_image(&good, r#""prompt": """#)]);
    check("errors-pictures", &text);
}

#[test]
fn unusable_retained_messages_are_rejected() {
    let found = [
        ("denied", Err("the broker refuses the subscription".to_owned())),
        ("large", Ok(Bytes::from_static(b"0123456789"))),
        ("empty", Ok(Bytes::new())),
    ];
    let found = found.map(|(topic, found)| (topic.to_owned(), found)).into();
    let requests = [
        r#"{"image": {"topic": "camera/+"}}"#,
        r#"{"image": {"topic": "denied"}}"#,
        r#"{"mask": {"topic": "large"}}"#,
        r#"{"mask": {"topic": "empty"}}"#,
    ];
    let answers = requests.map(|request| {
        let error = parse(request.as_bytes()).unwrap().attach(&found, 9).expect_err(request);
        (request.to_owned(), error)
    });
    check("errors-retained", &table(answers));
}

#[test]
fn requests_that_a_latent_model_cannot_serve_are_rejected() {
    let prompts = ["prompt", "negative_prompt"].map(|field| {
        let long = "a".repeat(20_001);
        format!(r#"{{"{field}": "{long}"}}"#)
    });
    let sd = card(&bundle("sd"));
    let mut text = String::from("--- sd\n");
    text += &answers(&sd, LIMITS, &prompts.each_ref().map(String::as_str));
    text += &answers(
        &sd,
        LIMITS,
        &[
            "{}",
            r#"{"prompt": "", "guidance": 101}"#,
            r#"{"prompt": "", "prompt_2": ""}"#,
            r#"{"prompt": "", "negative_prompt_2": ""}"#,
            r#"{"prompt": "", "max_sequence_length": 1}"#,
            r#"{"prompt": "", "original_size": [1, 1]}"#,
            r#"{"prompt": "", "crop": [1, 1]}"#,
            r#"{"prompt": "", "target_size": [1, 1]}"#,
            r#"{"prompt": "", "width": 33}"#,
            r#"{"prompt": "", "height": 0}"#,
            r#"{"prompt": "", "width": 4096, "height": 4096}"#,
            r#"{"prompt": "", "class": 1}"#,
        ],
    );
    text += &answers(&sd, LIMITS, &[r#"{"prompt": "", "clip_skip": 50}"#]);
    let mut fixed = sd.clone();
    Arc::make_mut(&mut fixed).signature.dynamic_size = false;
    text += "--- sd with a fixed size\n";
    text += &answers(&fixed, LIMITS, &[r#"{"prompt": "", "width": 64}"#]);
    text += "--- flux\n";
    text += &answers(&card(&bundle("flux")), LIMITS, &[r#"{"prompt": "", "clip_skip": 1}"#]);
    text += "--- sd3\n";
    let requests = [
        r#"{"prompt": "", "max_sequence_length": 513}"#,
        r#"{"prompt": "", "width": 33}"#,
        r#"{"prompt": "", "clip_skip": 50}"#,
    ];
    text += &answers(&card(&bundle("sd3")), LIMITS, &requests);
    text += "--- sd_inpaint\n";
    text += &answers(&card(&bundle("sd_inpaint")), LIMITS, &[r#"{"prompt": ""}"#]);
    check("errors-latents", &text);
}
