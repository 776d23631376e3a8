//! Receipts as JSON.

use std::sync::Arc;

use super::snapshot::check_json;
use crate::common::bundles::model;
use crate::common::pipelines::{PROMPT, bundle};
use denoised::inference::{Backend, EngineKind, EngineOptions, ProviderShare, RejectedProvider};
use denoised::job::receipt::{ImageReceipt, Receipt, ReceiptLora};
use denoised::job::{Job, JobLimits, ModelCard, Request, Sizes};
use denoised::model::Model;
use denoised::pipeline::{JobEvent, Pipeline};
use serde_json::{Value, json};

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

fn job(card: &Arc<ModelCard>, request: Value) -> Job {
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(std::slice::from_ref(card), LIMITS, || panic!("the request has a seed")).unwrap()
}

/// Runs a request on the embedded engine, and returns the receipts of its images.
fn receipts(bundle: &std::path::Path, request: Value) -> Vec<Receipt> {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let mut pipeline = Pipeline::new(Model::load(bundle, &options).unwrap());
    let job = job(&ModelCard::new(pipeline.model()), request);
    pipeline.accept(job);
    let mut receipts = Vec::new();
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Image { receipt, .. } => receipts.push(*receipt),
            JobEvent::Failed(error) => panic!("{error}"),
            _ => {}
        });
    }
    receipts
}

#[test]
fn receipts_of_pixel_models_match_their_snapshots() {
    let request = json!({"id": "three", "class": 3, "seed": 7, "steps": 2, "guidance": 3.0, "sampler": "ddim",
        "eta": 0.5, "guidance_rescale": 0.25, "exact": true});
    check_json("receipt-digits", &receipts(&model("digits"), request));
    let request = json!({"id": "plain", "seed": 1, "steps": 2});
    check_json("receipt-swissroll", &receipts(&model("swissroll"), request));
}

#[test]
fn receipts_of_latent_models_match_their_snapshots() {
    let long_prompt = "word ".repeat(100);
    let request =
        json!({"id": "fox", "prompt": PROMPT, "negative_prompt": long_prompt, "seed": 1, "steps": 2});
    check_json("receipt-sd", &receipts(&bundle("sd"), request));
    let request = json!({"id": "flux", "prompt": PROMPT, "prompt_2": "Another fox.", "seed": 1, "steps": 2,
        "max_sequence_length": 16, "width": 16, "height": 16});
    check_json("receipt-flux", &receipts(&bundle("flux"), request));
}

/// The receipt of an img2img request with conditions, on ONNX Runtime with a rejected provider.
fn receipt_with_every_field() -> Receipt {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let mut card = Arc::unwrap_or_clone(ModelCard::new(&Model::load(&bundle("sdxl"), &options).unwrap()));
    let mut changed = (*card.bundle).clone();
    let mood = denoised::bundle::Condition { input: None, default: 0.5, min: 0.0, max: 1.0 };
    changed.manifest.conditions.insert("mood".to_owned(), mood);
    card.bundle = Arc::new(changed);
    let card = Arc::new(card);
    let image = base64::engine::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        std::fs::read(bundle("init.png")).unwrap(),
    );
    let request = json!({"id": "all", "prompt": PROMPT, "prompt_2": "b", "negative_prompt": "c",
        "negative_prompt_2": "d", "clip_skip": 1, "seed": 1, "count": 2, "steps": 4, "strength": 0.5,
        "image": image, "noise": "philox", "guidance_rescale": 0.5, "conditions": {"mood": 0.25}});
    let backend = Backend {
        provider_shares: vec![
            ProviderShare { provider: "cuda".to_owned(), nodes: 40, percent: 97.5 },
            ProviderShare { provider: "cpu".to_owned(), nodes: 1, percent: 2.5 },
        ],
        rejected_providers: vec![RejectedProvider {
            provider: "tensorrt".to_owned(),
            reason: "libnvinfer.so.10".to_owned(),
        }],
        ..Backend::new("onnxruntime", "1.23.2".to_owned(), "cuda".to_owned())
    };
    let receipt = Receipt::new(&job(&card, request), 1, &backend).unwrap();
    let image = ImageReceipt { truncated: vec!["the rest".to_owned()], ..receipt.image };
    Receipt { image, ..receipt }
}

#[test]
fn a_receipt_with_every_field_matches_its_snapshot() {
    check_json("receipt-all", &receipt_with_every_field());
}

#[test]
fn the_parameters_of_a_receipt_are_those_of_the_web_ui() {
    let Receipt { image, .. } = receipt_with_every_field();
    let lora = ReceiptLora { name: "style".to_owned(), weight: 0.5, sha256: String::new() };
    let image = ImageReceipt { model: "a, b".to_owned(), count: Some(4), loras: vec![lora], ..image };
    let sizes = Sizes { sample: vec![4, 4, 6], latent: vec![4, 4, 6], image: vec![3, 32, 48] };
    let expected = "A red fox, in the snow! <lora:style:0.5>\nNegative prompt: c\nSteps: 4, Sampler: euler, CFG scale: 5, \
        Seed: 2, Size: 48x32, Model hash: 2c2f284da0, Model: \"a, b\", Denoising strength: 0.5, Clip skip: 2, \
        Batch size: 4, Version: denoised ";
    assert_eq!(image.to_text(&sizes).parameters, format!("{expected}{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_receipt_has_the_eta_that_the_sampler_got() {
    let eta = |sampler: &str, eta: Option<f64>| {
        let request = json!({"id": "a", "prompt": "", "seed": 1, "steps": 2, "sampler": sampler, "eta": eta});
        receipts(&bundle("sd"), request)[0].image.eta
    };
    // The pipeline passes 0 to TCD; DDIM keeps its default.
    assert_eq!((eta("tcd", None), eta("tcd", Some(0.5))), (Some(0.0), Some(0.5)));
    assert_eq!((eta("ddim", None), eta("ddim", Some(0.5))), (None, Some(0.5)));
}

/// Receipts had two keys `version`: the program's, and the engine's.
#[test]
fn a_receipt_has_each_key_once() {
    let json = serde_json::to_string_pretty(&receipt_with_every_field()).unwrap();
    let mut keys: Vec<_> = json
        .lines()
        .filter_map(|line| line.strip_prefix("  \"")?.split_once('"'))
        .map(|(key, _)| key)
        .collect();
    assert!(keys.contains(&"version") && keys.contains(&"engine_version"), "{keys:?}");
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "{json}");
}

/// Images of other micro-conditionings had the same receipt.
#[test]
fn a_receipt_has_the_sizes_that_the_network_got() {
    let sizes = |more: serde_json::Value| {
        let mut request = json!({"id": "a", "prompt": "", "seed": 1, "steps": 1, "width": 48});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let receipt = serde_json::to_value(&receipts(&bundle("sdxl"), request)[0]).unwrap();
        ["original_size", "crop", "target_size"].map(|key| receipt[key].clone())
    };
    assert_eq!(sizes(json!({})), [json!([32, 48]), json!([0, 0]), json!([32, 48])]);
    let given = json!({"original_size": [40, 44], "crop": [1, 2], "target_size": [3, 4]});
    assert_eq!(sizes(given), [json!([40, 44]), json!([1, 2]), json!([3, 4])]);
}
