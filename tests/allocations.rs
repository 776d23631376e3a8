//! Sampling steps do not allocate, and the rest of a job copies its samples a few times at most; a counting allocator
//! checks it.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use common::gaussian_model::Exact;
use denoised::bundle::{SampleDescription, TimestepShape};
use denoised::image::Format;
use denoised::job::{JobLimits, ModelCard, Request};
use denoised::pipeline::Pipeline;
use serde_json::json;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The only test of this file: a second one would allocate on its own thread.
#[test]
fn allocations_are_bounded() {
    a_step_of_any_sampler_allocates_nothing();
    a_job_of_one_step_copies_its_sample_a_few_times();
    an_encoder_copies_its_picture_a_few_times();
}

/// The times that the bytes which `work` allocates hold `unit` bytes.
fn copies(unit: usize, work: impl FnOnce()) -> f64 {
    let before = BYTES.load(Ordering::Relaxed);
    work();
    (BYTES.load(Ordering::Relaxed) - before) as f64 / unit as f64
}

/// With few steps, what a job does beside its evaluations counts.
fn a_job_of_one_step_copies_its_sample_a_few_times() {
    let (model, batches) = Exact::model(&[3, 64, 64], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    let request = json!({"id": "a", "sampler": "ddim", "steps": 1, "seed": 1, "class": 2, "guidance": 2.0});
    let request: Request = serde_json::from_value(request).unwrap();
    let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
    let mut run = || {
        let job = request.check(std::slice::from_ref(&card), limits, || 0).unwrap();
        pipeline.accept(job);
        while !pipeline.is_idle() {
            pipeline.step(&mut |_, _| {});
        }
    };
    run();
    let copies = copies(3 * 64 * 64 * size_of::<f32>(), run);
    assert_eq!(*batches.lock().unwrap(), [2, 2], "one evaluation a step, with and without the class");
    assert!(copies < 8.0, "a job of one step allocates {copies:.2} times its sample");
}

fn an_encoder_copies_its_picture_a_few_times() {
    let sample: Vec<f32> = (0..3 * 256 * 256).map(|i| (i as f32 * 0.37).sin()).collect();
    let description = Exact::model(&[3, 256, 256], 8, TimestepShape::PerSample).0.bundle.manifest.sample;
    let encode = |format: Format| {
        drop(denoised::image::encode(format, &sample, &[3, 256, 256], &description, None).unwrap());
    };
    // The encoders' own buffers are most of it.
    for (format, max) in [(Format::Png, 12.0), (Format::Jpeg, 4.0), (Format::Webp, 8.0), (Format::Npy, 9.0)] {
        let copies = copies(sample.len(), || encode(format));
        assert!(copies <= max, "{format:?} allocates {copies:.2} times the picture's bytes");
    }
}

/// A white picture of the samples' size.
fn picture() -> String {
    let description = SampleDescription::default();
    let white =
        denoised::image::encode(Format::Png, &[1.0; 28 * 28], &[1, 28, 28], &description, None).unwrap();
    base64::engine::general_purpose::STANDARD.encode(white)
}

fn a_step_of_any_sampler_allocates_nothing() {
    let mut skipped = 0;
    for sampler in diffusion_samplers::sampler::names() {
        let (model, _) = Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample);
        let mut pipeline = Pipeline::new(model);
        let card = ModelCard::new(pipeline.model());
        let mut request = json!({"id": "a", "sampler": sampler, "steps": 40, "count": 4, "seed": 1, "class": 2, "guidance": 2.0});
        if sampler == "repaint" {
            (request["image"], request["mask"]) = (picture().into(), picture().into());
        }
        let request: Request = serde_json::from_value(request).unwrap();
        let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
        let job = match request.check(std::slice::from_ref(&card), limits, || 0) {
            Ok(job) => job,
            // This sampler needs a network with another time conditioning. It shares its code with others.
            Err(error) => {
                assert!(error.message.contains("conditions the network on"), "{sampler}: {}", error.message);
                skipped += 1;
                continue;
            }
        };
        pipeline.accept(job);
        for _ in 0..10 {
            pipeline.step(&mut |_, _| {});
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..25 {
            pipeline.step(&mut |_, _| {});
        }
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{sampler}: {allocated} allocations in 25 evaluations");
        assert!(!pipeline.is_idle(), "{sampler} finished before the count ended");
    }
    assert_eq!(skipped, 10);
}
