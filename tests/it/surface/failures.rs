//! The errors of accepted jobs that fail: code, field and message.

use std::sync::Arc;
use std::time::Duration;

use super::errors::line;
use super::snapshot::check;
use crate::common::gaussian_model::{Delayed, Exact};
use denoised::bundle::{SampleDescription, Signature, TimestepShape};
use denoised::image::Format;
use denoised::inference::{Backend, EvaluationError};
use denoised::job::{ErrorCode, Job, JobError, JobLimits, ModelCard, Request};
use denoised::model::{Batch, Model, Predictor};
use denoised::pipeline::{JobEvent, Pipeline, Sample};
use serde_json::{Value, json};

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// Returns the error of a request that must fail. `before` is called between accepting the job and running it.
fn failure(
    model: Model,
    request: Value,
    before: impl FnOnce(&mut Pipeline, &mut dyn FnMut(&Arc<Job>, JobEvent<Sample>)),
) -> String {
    let mut pipeline = Pipeline::new(model);
    let request: Request = serde_json::from_value(request).unwrap();
    let card = ModelCard::new(pipeline.model());
    pipeline.accept(request.check(&[card], LIMITS, || 1).unwrap());
    let mut failed = None;
    let mut record = |_: &Arc<Job>, event: JobEvent<Sample>| {
        if let JobEvent::Failed(error) = event {
            failed = Some(line(&error));
        }
    };
    before(&mut pipeline, &mut record);
    while !pipeline.is_idle() {
        pipeline.step(&mut record);
    }
    failed.expect("the job did not fail")
}

fn exact() -> Model {
    Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample).0
}

/// A network whose evaluations fail with an error.
struct Failing(Box<dyn Predictor>, fn() -> EvaluationError);

impl Predictor for Failing {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn backend(&self) -> &Backend {
        self.0.backend()
    }

    fn evaluate(&mut self, _: &Batch, _: &mut Vec<f32>) -> Result<(), EvaluationError> {
        Err(self.1())
    }
}

fn failing(error: fn() -> EvaluationError) -> Model {
    let model = exact();
    Model { predictor: Box::new(Failing(model.predictor, error)), ..model }
}

#[test]
fn failed_jobs_report_code_field_and_message() {
    let job = json!({"id": "a", "sampler": "ddim", "steps": 5, "seed": 1});
    let mut lines = Vec::new();
    lines.push(failure(exact(), job.clone(), |pipeline, on| assert!(pipeline.cancel("a", on))));
    let late = json!({"id": "a", "sampler": "ddim", "steps": 5, "seed": 1, "deadline_ms": 1});
    let delayed = Delayed::model(&[1, 4, 5], 8, Duration::from_millis(1));
    lines.push(failure(delayed, late, |_, _| std::thread::sleep(Duration::from_millis(5))));
    let (non_finite, _) = Exact::with_nan_from(&[1, 4, 5], 8, TimestepShape::PerSample, Some(2));
    lines.push(failure(non_finite, job.clone(), |_, _| {}));
    let errors: [fn() -> EvaluationError; 5] = [
        || EvaluationError::Engine { engine: "embedded", reason: "out of memory".to_owned() },
        || EvaluationError::OutputLength { expected: 20, found: 7 },
        || EvaluationError::Closed,
        || EvaluationError::OutputShape {
            output: "sample".to_owned(),
            expected: "[1, 4, 5]".to_owned(),
            found: vec![7],
        },
        || EvaluationError::OutputType,
    ];
    lines.extend(errors.map(|error| failure(failing(error), job.clone(), |_, _| {})));
    let error =
        denoised::image::encode(Format::Png, &[0.0; 4], &[4, 1, 1], &SampleDescription::default(), None)
            .unwrap_err();
    lines.push(line(&JobError::new(ErrorCode::Encoding, error)));
    check("errors-failures", &lines.join("\n"));
}
