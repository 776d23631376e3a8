//! Sampling steps do not allocate; a counting allocator checks it.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::gaussian_model::Exact;
use denoised::bundle::TimestepShape;
use denoised::job::{JobLimits, ModelCard, Request};
use denoised::pipeline::Pipeline;
use serde_json::json;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The only test of this file: a second one would allocate on its own thread.
#[test]
fn a_step_of_any_sampler_allocates_nothing() {
    let mut skipped = 0;
    for sampler in diffusion_samplers::sampler::names() {
        let (model, _) = Exact::model(&[1, 28, 28], 8, TimestepShape::PerSample);
        let mut pipeline = Pipeline::new(model);
        let card = ModelCard::new(pipeline.model());
        let request = json!({"id": "a", "sampler": sampler, "steps": 40, "count": 4, "seed": 1, "class": 2, "guidance": 2.0});
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
    assert_eq!(skipped, 8);
}
