//! Continuous batching: jobs in one batch give the same images as alone.

use crate::common::gaussian_model::Exact;
use crate::common::recorded_jobs::{Images, Recorded, job};
use crate::common::{bundles, commands, largest_difference};
use denoised::bundle::{Signature, TimestepShape};
use denoised::inference::{Backend, EngineKind, EngineOptions, EvaluationError};
use denoised::job::{ErrorCode, ModelCard};
use denoised::model::{Batch, Model, Predictor};
use denoised::pipeline::Pipeline;
use serde_json::json;

/// Returns requests that differ in every setting.
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

/// Runs each job without the others.
fn sample_separately(load: impl Fn() -> Model) -> Images {
    let mut images = Images::new();
    let mut pipeline = Pipeline::new(load());
    let card = ModelCard::new(pipeline.model());
    for request in requests() {
        let mut recorded = Recorded::default();
        pipeline.accept(job(&card, request));
        recorded.drain(&mut pipeline);
        images.extend(recorded.images);
    }
    images
}

/// Runs all jobs in one pipeline: first one half and a job that is cancelled later, then the other half.
fn sample_together(load: impl Fn() -> Model) -> Recorded {
    let mut pipeline = Pipeline::new(load());
    let card = ModelCard::new(pipeline.model());
    let mut recorded = Recorded::default();
    let (early, late) = (requests()[..3].to_vec(), requests()[3..].to_vec());
    early.into_iter().for_each(|request| pipeline.accept(job(&card, request)));
    pipeline.accept(job(
        &card,
        json!({"id": "doomed", "sampler": "ddpm", "steps": 500, "seed": 9, "class": 2, "count": 2}),
    ));
    for _ in 0..3 {
        pipeline.step(&mut |job, event| recorded.record(job, event));
    }
    late.into_iter().for_each(|request| pipeline.accept(job(&card, request)));
    for _ in 0..3 {
        pipeline.step(&mut |job, event| recorded.record(job, event));
    }
    assert!(pipeline.cancel("doomed", &mut |job, event| recorded.record(job, event)));
    assert!(!pipeline.cancel("doomed", &mut |_, _| panic!("the job has ended")));
    recorded.drain(&mut pipeline);
    recorded
}

fn check_jobs(recorded: &Recorded, alone: &Images) {
    assert_eq!(recorded.failed.len(), 1);
    assert_eq!((recorded.failed[0].0.as_str(), recorded.failed[0].1), ("doomed", ErrorCode::Cancelled));
    let mut finished = recorded.finished.clone();
    finished.sort_unstable();
    assert_eq!(finished, ["ddim", "ddpm", "exact", "heun", "noisy", "philox"]);
    assert_eq!(recorded.images.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
}

#[test]
fn batching_changes_no_byte_with_an_exact_network() {
    for (largest, time) in [
        (1, TimestepShape::PerSample),
        (5, TimestepShape::PerSample),
        (8, TimestepShape::PerSample),
        (64, TimestepShape::PerSample),
        (8, TimestepShape::Scalar),
        (3, TimestepShape::Single),
    ] {
        let load = || Exact::model(&[1, 4, 5], largest, time).0;
        let alone = sample_separately(load);
        let recorded = sample_together(load);
        check_jobs(&recorded, &alone);
        for (key, image) in &alone {
            assert_eq!(&recorded.images[key], image, "{key:?} with batches of {largest}, {time:?}");
        }
    }
}

/// A network whose batches are padded to powers of two.
struct Padded(Box<dyn Predictor>);

impl Predictor for Padded {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn backend(&self) -> &Backend {
        self.0.backend()
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        self.0.evaluate(batch, output)
    }

    fn padded_batch(&self, samples: usize, sample: &[usize]) -> usize {
        samples.next_power_of_two().min(self.largest_batch(sample))
    }
}

#[test]
fn padding_to_powers_of_two_changes_no_byte_with_an_exact_network() {
    for (largest, sizes) in [(8, vec![1, 2, 4, 8]), (5, vec![1, 2, 4, 5])] {
        let alone = sample_separately(|| Exact::model(&[1, 4, 5], largest, TimestepShape::PerSample).0);
        let batches = std::cell::RefCell::default();
        let recorded = sample_together(|| {
            let (model, own) = Exact::model(&[1, 4, 5], largest, TimestepShape::PerSample);
            *batches.borrow_mut() = own;
            Model { predictor: Box::new(Padded(model.predictor)), ..model }
        });
        check_jobs(&recorded, &alone);
        assert!(alone.iter().all(|(key, image)| recorded.images[key] == *image));
        let mut evaluated = batches.borrow().lock().unwrap().clone();
        evaluated.sort_unstable();
        evaluated.dedup();
        assert!(evaluated.len() > 1 && evaluated.iter().all(|size| sizes.contains(size)), "{evaluated:?}");
    }
}

fn onnxruntime() -> EngineOptions {
    EngineOptions {
        kind: EngineKind::OnnxRuntime,
        library: Some(commands::onnxruntime()),
        providers: vec![denoised::inference::Provider::Cpu],
        ..EngineOptions::default()
    }
}

/// Evaluates more batch sizes than bindings are cached, each three times: with outputs that ONNX Runtime allocates,
/// with cached bindings, and with new bindings.
#[cfg(feature = "system-tests")]
#[test]
fn bound_buffers_serve_batches_of_any_size_in_any_order() {
    let options = EngineOptions { batch: 12, ..onnxruntime() };
    let mut model = Model::load(&bundles::model("digits"), &options).unwrap();
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

#[cfg(feature = "system-tests")]
#[test]
fn batching_changes_images_only_slightly_with_both_engines() {
    let engines = [EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }, onnxruntime()];
    for options in engines {
        let load = || Model::load(&bundles::model("digits"), &options).unwrap();
        let alone = sample_separately(load);
        let recorded = sample_together(load);
        check_jobs(&recorded, &alone);
        let mut worst = 0.0_f32;
        for (key, image) in &alone {
            let difference = largest_difference(&recorded.images[key], image);
            println!("{:?} {key:?}: {difference:.1e}", options.kind);
            worst = worst.max(difference);
            if key.0 == "exact" {
                assert_eq!(&recorded.images[key], image, "exact images have batches of their own");
            }
        }
        assert!(worst < 1e-3, "{:?}: batching changes an image by {worst}", options.kind);
    }
}

#[test]
fn all_waiting_jobs_share_a_batch() {
    let (model, batches) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    for seed in 0..8 {
        pipeline.accept(job(
            &card,
            json!({"id": seed.to_string(), "sampler": "ddim", "steps": 10 + seed, "seed": seed}),
        ));
    }
    let mut recorded = Recorded::default();
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.finished, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    // Ten evaluations of all eight images, then one image fewer each time.
    let expected: Vec<usize> = std::iter::repeat_n(8, 10).chain((1..8).rev()).collect();
    assert_eq!(*batches.lock().unwrap(), expected);
}

#[test]
fn a_short_job_is_not_stuck_behind_a_long_one_and_priority_goes_first() {
    let (model, _) = Exact::model(&[1, 4, 5], 2, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    let request = |id: &str, steps, count, priority| json!({"id": id, "sampler": "ddpm", "steps": steps, "count": count, "seed": 1, "priority": priority});
    let mut recorded = Recorded::default();
    // More images than run at once.
    pipeline.accept(job(&card, request("long", 300, 20, 0)));
    pipeline.step(&mut |job, event| recorded.record(job, event));
    pipeline.accept(job(&card, request("short", 10, 1, 0)));
    pipeline.accept(job(&card, request("urgent", 10, 2, 5)));
    let mut steps = 0;
    while recorded.finished.len() < 2 {
        pipeline.step(&mut |job, event| recorded.record(job, event));
        steps += 1;
    }
    // Each of its ten evaluations waits for at most one evaluation of every other running image, two at a time.
    assert!(steps < 100, "the short job took {steps} steps");
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.finished, ["urgent", "short", "long"]);
}

#[test]
fn a_non_finite_output_is_reported_with_its_step() {
    let (model, _) = Exact::with_nan_from(&[1, 4, 5], 8, TimestepShape::PerSample, Some(4));
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    pipeline.accept(job(&card, json!({"id": "a", "sampler": "ddim", "steps": 10, "seed": 1, "count": 1})));
    let mut recorded = Recorded::default();
    recorded.drain(&mut pipeline);
    let (id, code, message) = &recorded.failed[0];
    assert_eq!((id.as_str(), *code), ("a", ErrorCode::NonFinite));
    assert!(message.contains("evaluation 4 of 10 (time step 600)"), "{message}");
}

/// A network whose predictions are the largest number.
struct Largest(Box<dyn Predictor>);

impl Predictor for Largest {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn backend(&self) -> &Backend {
        self.0.backend()
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        self.0.evaluate(batch, output)?;
        output.fill(f32::MAX);
        Ok(())
    }
}

#[test]
fn a_sample_that_overflows_in_the_sampler_is_no_image() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(Model { predictor: Box::new(Largest(model.predictor)), ..model });
    let card = ModelCard::new(pipeline.model());
    pipeline
        .accept(job(&card, json!({"id": "a", "sampler": "euler", "steps": 2, "seed": 1, "guidance": 1.0})));
    let mut recorded = Recorded::default();
    recorded.drain(&mut pipeline);
    let (id, code, message) = &recorded.failed[0];
    assert_eq!((id.as_str(), *code), ("a", ErrorCode::NonFinite));
    assert_eq!(
        message,
        "image 0 contains NaN or infinity, although the network's outputs are finite: they are too large for euler; \
         check prediction_type in the scheduler's configuration, or use another sampler"
    );
    assert!(recorded.images.is_empty());
}

#[test]
fn previews_are_as_frequent_as_requested() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    pipeline.accept(job(
        &card,
        json!({"id": "a", "sampler": "ddim", "steps": 10, "seed": 1, "count": 2, "preview_every": 3}),
    ));
    let mut recorded = Recorded::default();
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.previews, 2 * 3);
}
