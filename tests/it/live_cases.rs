//! LoRAs and ControlNets on plain exports that `denoised init --live` changed, against diffusers and LyCORIS: several at once,
//! windows in the middle of a run, guess mode, pictures of other sizes, inpainting and SDXL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::ModelCard;
use denoised::model::Model;
use denoised::pipeline::Pipeline;
use serde_json::json;

use crate::common::largest_difference;
use crate::common::live_fixtures::{Fixtures, made_live};
use crate::common::recorded_jobs::{Recorded, job};

fn fixtures() -> Fixtures {
    Fixtures::new("live_more")
}

/// A folder of the fixtures with inputs for LoRAs at all layers.
fn live_folder(name: &str) -> (tempfile::TempDir, PathBuf) {
    let (directory, path, _) = made_live(&fixtures().file(name), &["--lora", "all"]);
    (directory, path)
}

fn check_cases(engine: &str) {
    let folders: BTreeMap<_, _> =
        ["sd", "sd_inpaint", "xl"].into_iter().map(|name| (name, live_folder(name))).collect();
    let cases = fixtures().cases();
    for case in &cases {
        let (_, model) = &folders[case["folder"].as_str().unwrap()];
        fixtures().check(engine, case, model, engine);
    }
    assert_eq!(cases.len(), 18);
}

#[cfg(feature = "system-tests")]
#[test]
fn plain_exports_reproduce_the_references_on_onnx_runtime() {
    check_cases("onnxruntime");
}

#[test]
fn plain_exports_reproduce_the_references_on_the_embedded_engine() {
    check_cases("embedded");
}

/// The default preset of LyCORIS also changes the first and the last convolution and the embedding of the time step.
#[test]
fn files_of_lycoris_were_refused_although_all_layers_had_inputs() {
    let (_directory, model) = live_folder("sd");
    for name in ["locon", "loha", "lokr"] {
        fixtures().check("embedded", &fixtures().case(name), &model, name);
    }
}

fn pipeline(model: &std::path::Path, batch: usize) -> (Pipeline, Arc<ModelCard>) {
    let options = EngineOptions { kind: EngineKind::Embedded, batch, ..EngineOptions::default() };
    let mut model = Model::load(model, &options).unwrap();
    model.lora_directories.push(fixtures().file("loras"));
    let card = ModelCard::new(&model);
    (Pipeline::new(model), card)
}

/// Jobs differ in controls, scales, windows, LoRAs, their ranks and kinds, guidance, and the task.
#[test]
fn each_job_of_a_mixed_batch_gives_its_own_reference() {
    let fixtures = fixtures();
    let (_directory, model) = live_folder("sd");
    for batch in fixtures.batches() {
        let names: Vec<_> = batch.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let (mut pipeline, card) = pipeline(&model, 16);
        names.iter().for_each(|name| pipeline.accept(job(&card, fixtures.request(&fixtures.case(name)))));
        let mut recorded = Recorded::default();
        recorded.drain(&mut pipeline);
        assert_eq!(recorded.failed, []);
        for name in names {
            let image = &recorded.images[&(name.to_owned(), 0)];
            fixtures.check_image(&fixtures.case(name), image, &batch.to_string());
        }
    }
}

/// The rows of one evaluation change while jobs come and end: at each step another set of LoRAs and controls is active.
#[test]
fn jobs_that_join_and_leave_a_batch_give_what_they_give_alone() {
    let fixtures = fixtures();
    let (_directory, model) = live_folder("sd");
    let names = ["two_controls", "lokr", "plain", "two_loras"];
    let request = |place: usize, name: &str| {
        let mut request = fixtures.request(&fixtures.case(name));
        request["steps"] = json!(3 + 2 * place);
        request["count"] = json!(1 + place % 2);
        request
    };
    let (mut together, card) = pipeline(&model, 4);
    let mut found = Recorded::default();
    for (place, name) in names.into_iter().enumerate() {
        together.accept(job(&card, request(place, name)));
        together.step(&mut |job, event| found.record(job, event));
    }
    found.drain(&mut together);
    let mut alone = Recorded::default();
    for (place, name) in names.into_iter().enumerate() {
        let (mut pipeline, card) = pipeline(&model, 16);
        pipeline.accept(job(&card, request(place, name)));
        alone.drain(&mut pipeline);
    }
    assert_eq!((found.images.len(), found.failed, alone.failed), (6, vec![], vec![]));
    for (key, image) in &alone.images {
        let difference = largest_difference(image, &found.images[key]);
        assert!(difference < 1e-4, "{key:?}: {difference}");
    }
}
