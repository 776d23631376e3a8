//! Deadlines: jobs with one come first, run in fewer steps, or fail.

use std::time::{Duration, Instant};

use crate::common::gaussian_model::{Delayed, Exact};
use crate::common::recorded_jobs::{Recorded, job};
use denoised::bundle::TimestepShape;
use denoised::job::{ErrorCode, ModelCard};
use denoised::pipeline::Pipeline;
use serde_json::json;

#[test]
fn a_deadline_reduces_the_steps_and_the_image_is_that_of_the_reduced_steps() {
    let delay = Duration::from_millis(10);
    let mut pipeline = Pipeline::new(Delayed::model(&[1, 4, 5], 8, delay));
    let card = ModelCard::new(pipeline.model());
    let request = |steps: usize, deadline: Option<u64>| json!({"id": "a", "sampler": "heun", "steps": steps, "seed": 1, "class": 3, "guidance": 2.0, "deadline_ms": deadline});
    let mut recorded = Recorded::default();
    pipeline.accept(job(&card, request(1000, Some(1500))));
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.failed, []);
    // Heun evaluates twice in every step except the last one.
    assert!(recorded.steps > 10 && recorded.steps <= 75, "{} steps of 20 ms in 1.5 s", recorded.steps);

    let mut same = Recorded::default();
    pipeline.accept(job(&card, request(recorded.steps, None)));
    same.drain(&mut pipeline);
    assert_eq!(same.images, recorded.images);
    // A job that fits keeps its steps.
    let mut few = Recorded::default();
    pipeline.accept(job(&card, request(2, Some(60_000))));
    few.drain(&mut pipeline);
    assert_eq!(few.steps, 2);
}

#[test]
fn a_job_with_a_deadline_runs_before_one_without() {
    let (model, _) = Exact::model(&[1, 4, 5], 1, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    let request = |id: &str, deadline: Option<u64>| json!({"id": id, "sampler": "ddim", "steps": 10, "seed": 1, "class": 1, "guidance": 1, "deadline_ms": deadline});
    let mut recorded = Recorded::default();
    pipeline.accept(job(&card, request("patient", None)));
    pipeline.step(&mut |job, event| recorded.record(job, event));
    pipeline.accept(job(&card, request("hurried", Some(60_000))));
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.finished, ["hurried", "patient"]);
}

/// The step was taken because none fitted, and its image was published after the deadline.
#[test]
fn a_job_whose_only_step_ended_after_its_deadline_succeeded() {
    let mut pipeline = Pipeline::new(Delayed::model(&[1, 4, 5], 8, Duration::from_millis(20)));
    let card = ModelCard::new(pipeline.model());
    for (id, limit) in [("a", 1), ("b", 5)] {
        let request = json!({"id": id, "sampler": "ddim", "steps": 20, "seed": 1, "class": 3, "guidance": 2.0, "deadline_ms": limit});
        let mut recorded = Recorded::default();
        pipeline.accept(job(&card, request));
        recorded.drain(&mut pipeline);
        let message =
            format!("the deadline of {limit} ms passed after 1 of 1 evaluations; give it more time");
        assert_eq!(recorded.failed, [(id.to_owned(), ErrorCode::Deadline, message)]);
        assert!(recorded.images.is_empty() && recorded.finished.is_empty());
    }
}

/// The time that a request waited for the evaluation in progress did not count.
#[test]
fn a_deadline_began_when_the_worker_took_the_job() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    let arrived = |seconds: u64| {
        let request = json!({"id": "a", "steps": 1, "seed": 1, "class": 3, "deadline_ms": 30_000});
        let arrival = Instant::now().checked_sub(Duration::from_secs(seconds));
        job(&card, request).with_arrival(arrival.unwrap())
    };
    for (seconds, succeeds) in [(1, true), (31, false)] {
        let mut recorded = Recorded::default();
        pipeline.accept(arrived(seconds));
        recorded.drain(&mut pipeline);
        assert_eq!((recorded.finished.len() == 1, recorded.failed.is_empty()), (succeeds, succeeds));
    }
}

#[test]
fn a_job_of_a_paused_pipeline_outlived_its_deadline() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    pipeline.set_paused(true);
    let request = |limit: u64| json!({"id": "a", "steps": 1, "seed": 1, "class": 3, "deadline_ms": limit});
    pipeline.accept(job(&card, request(60_000)));
    assert!(!pipeline.has_work());
    pipeline.accept(job(&card, request(0)));
    assert!(pipeline.has_work());
    let mut recorded = Recorded::default();
    pipeline.step(&mut |job, event| recorded.record(job, event));
    assert_eq!(recorded.failed[0].1, ErrorCode::Deadline);
    assert!(pipeline.job_count() == 1 && !pipeline.has_work());
}

#[test]
fn a_passed_deadline_fails_the_job() {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let card = ModelCard::new(pipeline.model());
    pipeline.accept(job(
        &card,
        json!({"id": "late", "sampler": "ddpm", "steps": 1000, "seed": 1, "count": 64, "deadline_ms": 0}),
    ));
    let mut recorded = Recorded::default();
    recorded.drain(&mut pipeline);
    assert_eq!(recorded.failed[0].1, ErrorCode::Deadline);
    assert!(recorded.images.is_empty());
}
