//! The heart: jobs in one another's company give the same images as alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::gaussian_model::{Exact, Sleeping};
use common::{daemon, largest_difference};
use denoised::bundle::TimestepShape;
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{ErrorCode, Job, JobLimits, ModelCard, Request};
use denoised::model::{Batch, Model};
use denoised::pipeline::{Event, Pipeline};
use serde_json::json;

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

fn job(card: &ModelCard, request: serde_json::Value) -> Job {
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(std::slice::from_ref(card), LIMITS, || panic!("nothing is left open")).unwrap()
}

/// Jobs that differ in everything that a job can differ in.
fn requests() -> Vec<serde_json::Value> {
    vec![
        json!({"id": "ddim", "sampler": "ddim", "steps": 10, "seed": 1, "class": 3, "guidance": 2.5, "count": 3}),
        json!({"id": "ddpm", "sampler": "ddpm", "steps": 17, "seed": 2, "class": 7, "guidance": 1.0, "count": 2}),
        json!({"id": "heun", "sampler": "heun", "steps": 6, "seed": 3, "guidance": 1.0}),
        json!({"id": "noisy", "sampler": "ddim", "steps": 9, "eta": 1.0, "seed": 4, "class": 0, "guidance": 0.5}),
        json!({"id": "philox", "sampler": "ddpm", "steps": 5, "seed": 5, "noise": "philox", "class": 9, "guidance": 4.0}),
        json!({"id": "exact", "sampler": "heun", "steps": 4, "seed": 6, "class": 1, "guidance": 3.0, "exact": true}),
    ]
}

type Images = BTreeMap<(String, usize), Vec<f32>>;

#[derive(Default)]
struct Seen {
    images: Images,
    finished: Vec<String>,
    failed: Vec<(String, ErrorCode, String)>,
    previews: usize,
    /// Of the last image.
    steps: usize,
}

impl Seen {
    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Image { job, receipt, sample, .. } => {
                self.steps = receipt.steps;
                assert!(self.images.insert((job.id.clone(), receipt.index), sample).is_none());
            }
            Event::Finished { job, .. } => self.finished.push(job.id.clone()),
            Event::Failed { job, error } => self.failed.push((job.id.clone(), error.code, error.message)),
            Event::Preview { .. } => self.previews += 1,
            Event::Progress { step, of, .. } => assert!(step <= of),
        }
    }

    fn drain(&mut self, pipeline: &mut Pipeline) {
        while !pipeline.is_idle() {
            pipeline.turn(&mut |event| self.note(event));
        }
    }
}

fn alone(load: impl Fn() -> Model) -> Images {
    let mut images = Images::new();
    let mut pipeline = Pipeline::new(load());
    let card = ModelCard::of(pipeline.model());
    for request in requests() {
        let mut seen = Seen::default();
        pipeline.accept(job(&card, request));
        seen.drain(&mut pipeline);
        images.extend(seen.images);
    }
    images
}

/// All together: the first half at once, one more to be cancelled, the rest joining late.
fn together(load: impl Fn() -> Model) -> Seen {
    let mut pipeline = Pipeline::new(load());
    let card = ModelCard::of(pipeline.model());
    let mut seen = Seen::default();
    let (early, late) = (requests()[..3].to_vec(), requests()[3..].to_vec());
    early.into_iter().for_each(|request| pipeline.accept(job(&card, request)));
    pipeline.accept(job(
        &card,
        json!({"id": "doomed", "sampler": "ddpm", "steps": 500, "seed": 9, "class": 2, "count": 2}),
    ));
    for _ in 0..3 {
        pipeline.turn(&mut |event| seen.note(event));
    }
    late.into_iter().for_each(|request| pipeline.accept(job(&card, request)));
    for _ in 0..3 {
        pipeline.turn(&mut |event| seen.note(event));
    }
    assert!(pipeline.cancel("doomed", &mut |event| seen.note(event)));
    assert!(!pipeline.cancel("doomed", &mut |_| panic!("it is gone")));
    seen.drain(&mut pipeline);
    seen
}

fn check_company(seen: &Seen, alone: &Images) {
    assert_eq!(seen.failed.len(), 1);
    assert_eq!((seen.failed[0].0.as_str(), seen.failed[0].1), ("doomed", ErrorCode::Cancelled));
    let mut finished = seen.finished.clone();
    finished.sort_unstable();
    assert_eq!(finished, ["ddim", "ddpm", "exact", "heun", "noisy", "philox"]);
    assert_eq!(seen.images.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
}

#[test]
fn company_changes_no_byte_with_an_exact_network() {
    for (largest, time) in [
        (1, TimestepShape::PerSample),
        (5, TimestepShape::PerSample),
        (8, TimestepShape::PerSample),
        (64, TimestepShape::PerSample),
        (8, TimestepShape::Scalar),
        (3, TimestepShape::Single),
    ] {
        let load = || Exact::model(&[1, 4, 5], largest, time).0;
        let alone = alone(load);
        let seen = together(load);
        check_company(&seen, &alone);
        for (key, image) in &alone {
            assert_eq!(&seen.images[key], image, "{key:?} with batches of {largest}, {time:?}");
        }
    }
}

fn onnxruntime() -> EngineOptions {
    EngineOptions {
        kind: EngineKind::OnnxRuntime,
        library: Some(daemon::onnxruntime()),
        providers: vec![denoised::inference::Provider::Cpu],
        ..EngineOptions::default()
    }
}

/// More sizes than there are buffers for, each three times: with outputs that the library makes, with those bound
/// since, and with what was bound anew.
#[test]
fn bound_buffers_serve_batches_of_any_size_in_any_order() {
    let options = EngineOptions { batch: 12, ..onnxruntime() };
    let mut model = Model::load(&daemon::model("digits"), &options).unwrap();
    let manifest = model.bundle.manifest.clone();
    let mut evaluate = |samples: usize| {
        let mut batch = Batch { shape: vec![1, 28, 28], ..Batch::default() };
        for i in 0..samples {
            let value = |k: usize| ((i * 784 + k) as f32 * 0.37).sin();
            batch.push(|x| x.extend((0..784).map(value)), 400.0 + i as f64, i as i64 % 10, &manifest);
        }
        let mut output = vec![f32::NAN; 5];
        model.predictor.evaluate(&batch, &mut output).unwrap();
        assert_eq!(output.len(), samples * 784);
        output
    };
    let first: Vec<Vec<f32>> = (1..=12).map(&mut evaluate).collect();
    for round in 0..2 {
        for samples in (1..=12).rev() {
            assert_eq!(evaluate(samples), first[samples - 1], "round {round}, {samples} samples");
            assert_eq!(evaluate(samples), first[samples - 1], "round {round}, {samples} samples again");
        }
    }
    for (i, alone) in first[11].chunks(784).enumerate().take(6) {
        assert!(largest_difference(alone, &first[5][i * 784..][..784]) < 1e-4, "sample {i}");
    }
}

#[test]
fn company_is_measured_with_both_engines() {
    let engines = [EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }, onnxruntime()];
    for options in engines {
        let load = || Model::load(&daemon::model("digits"), &options).unwrap();
        let alone = alone(load);
        let seen = together(load);
        check_company(&seen, &alone);
        let mut worst = 0.0_f32;
        for (key, image) in &alone {
            let difference = largest_difference(&seen.images[key], image);
            println!("{:?} {key:?}: {difference:.1e}", options.kind);
            worst = worst.max(difference);
            if key.0 == "exact" {
                assert_eq!(&seen.images[key], image, "exact images ride alone");
            }
        }
        assert!(worst < 1e-3, "{:?}: company changes an image by {worst}", options.kind);
    }
}

#[test]
fn batches_are_shared_by_all_who_wait() {
    let (model, batches) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    for seed in 0..8 {
        pipeline.accept(job(
            &card,
            json!({"id": seed.to_string(), "sampler": "ddim", "steps": 10 + seed, "seed": seed}),
        ));
    }
    let mut seen = Seen::default();
    seen.drain(&mut pipeline);
    assert_eq!(seen.finished, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    // Ten evaluations of all eight, then one fewer rides each time.
    let expected: Vec<usize> = std::iter::repeat_n(8, 10).chain((1..8).rev()).collect();
    assert_eq!(*batches.lock().unwrap(), expected);
}

#[test]
fn a_short_job_is_not_stuck_behind_a_long_one_and_priority_goes_first() {
    let (model, _) = Exact::model(&[1, 4, 5], 2, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    let request = |id: &str, steps, count, priority| json!({"id": id, "sampler": "ddpm", "steps": steps, "count": count, "seed": 1, "priority": priority});
    let mut seen = Seen::default();
    // More images than ride at once.
    pipeline.accept(job(&card, request("long", 300, 20, 0)));
    pipeline.turn(&mut |event| seen.note(event));
    pipeline.accept(job(&card, request("short", 10, 1, 0)));
    pipeline.accept(job(&card, request("urgent", 10, 2, 5)));
    let mut turns = 0;
    while seen.finished.len() < 2 {
        pipeline.turn(&mut |event| seen.note(event));
        turns += 1;
    }
    // Each of its ten evaluations waits for the other riders' one at most, two at a time.
    assert!(turns < 100, "the short job took {turns} turns");
    seen.drain(&mut pipeline);
    assert_eq!(seen.finished, ["urgent", "short", "long"]);
}

#[test]
fn a_network_that_gives_nan_is_named_with_the_step() {
    let (model, _) = Exact::breaking(&[1, 4, 5], 8, TimestepShape::PerSample, Some(4));
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    pipeline.accept(job(&card, json!({"id": "a", "sampler": "ddim", "steps": 10, "seed": 1, "count": 1})));
    let mut seen = Seen::default();
    seen.drain(&mut pipeline);
    let (id, code, message) = &seen.failed[0];
    assert_eq!((id.as_str(), *code), ("a", ErrorCode::NonFinite));
    assert!(message.contains("evaluation 4 of 10 (time step 600)"), "{message}");
}

#[test]
fn previews_come_as_often_as_asked() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    pipeline.accept(job(
        &card,
        json!({"id": "a", "sampler": "ddim", "steps": 10, "seed": 1, "count": 2, "preview_every": 3}),
    ));
    let mut seen = Seen::default();
    seen.drain(&mut pipeline);
    assert_eq!(seen.previews, 2 * 3);
}

#[test]
fn a_job_takes_as_many_steps_as_fit_into_its_time_and_is_the_job_of_those_steps() {
    let nap = Duration::from_millis(10);
    let mut pipeline = Pipeline::new(Sleeping::model(&[1, 4, 5], 8, nap));
    let card = ModelCard::of(pipeline.model());
    let request = |steps: usize, deadline: Option<u64>| json!({"id": "a", "sampler": "heun", "steps": steps, "seed": 1, "class": 3, "guidance": 2.0, "deadline_ms": deadline});
    let mut seen = Seen::default();
    pipeline.accept(job(&card, request(1000, Some(1500))));
    seen.drain(&mut pipeline);
    assert_eq!(seen.failed, []);
    // Heun evaluates twice a step, but for the last one.
    assert!(seen.steps > 10 && seen.steps <= 75, "{} steps of 20 ms in 1.5 s", seen.steps);

    let mut same = Seen::default();
    pipeline.accept(job(&card, request(seen.steps, None)));
    same.drain(&mut pipeline);
    assert_eq!(same.images, seen.images);
    // What fits anyway is left as it is.
    let mut few = Seen::default();
    pipeline.accept(job(&card, request(2, Some(60_000))));
    few.drain(&mut pipeline);
    assert_eq!(few.steps, 2);
}

#[test]
fn who_has_a_deadline_rides_before_who_has_none() {
    let (model, _) = Exact::model(&[1, 4, 5], 1, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    let request = |id: &str, deadline: Option<u64>| json!({"id": id, "sampler": "ddim", "steps": 10, "seed": 1, "class": 1, "guidance": 1, "deadline_ms": deadline});
    let mut seen = Seen::default();
    pipeline.accept(job(&card, request("patient", None)));
    pipeline.turn(&mut |event| seen.note(event));
    pipeline.accept(job(&card, request("hurried", Some(60_000))));
    seen.drain(&mut pipeline);
    assert_eq!(seen.finished, ["hurried", "patient"]);
}

#[test]
fn a_deadline_that_passed_ends_the_job() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::of(pipeline.model());
    pipeline.accept(job(
        &card,
        json!({"id": "late", "sampler": "ddpm", "steps": 1000, "seed": 1, "count": 64, "deadline_ms": 0}),
    ));
    let mut seen = Seen::default();
    seen.drain(&mut pipeline);
    assert_eq!(seen.failed[0].1, ErrorCode::Deadline);
    assert!(seen.images.is_empty());
}
