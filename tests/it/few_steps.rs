//! What a job of few steps does beside its evaluations, in counts.

use std::path::Path;
use std::sync::{Arc, Mutex};

use denoised::bundle::Signature;
use denoised::inference::{Backend, EngineKind, EngineOptions, EvaluationError, SessionPool};
use denoised::job::{JobError, JobLimits, ModelCard, Request};
use denoised::model::{Batch, Model, Predictor};
use denoised::pipeline::{JobEvent, Pipeline};
use serde_json::json;

use crate::common::pipelines::{PROMPT, folder};

/// A network that records the sizes of the batches that it is evaluated on.
struct Recorded {
    predictor: Box<dyn Predictor>,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl Predictor for Recorded {
    fn signature(&self) -> &Signature {
        self.predictor.signature()
    }

    fn backend(&self) -> &Backend {
        self.predictor.backend()
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        self.batches.lock().unwrap().push(batch.size());
        self.predictor.evaluate(batch, output)
    }
}

/// Loads a bundle with memory for one session at a time, so that each use of another graph opens it again.
fn pipeline(bundle: &Path) -> (Pipeline, Arc<Mutex<Vec<usize>>>) {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    let unlimited = Model::load(bundle, &options).unwrap();
    let largest = unlimited.session_sizes.iter().map(|session| session.bytes).max();
    let model = Model::open(&SessionPool::with_budget(largest), bundle, &options, Arc::new(|_| {})).unwrap();
    let batches = Arc::<Mutex<Vec<usize>>>::default();
    let predictor = Recorded { predictor: model.predictor, batches: Arc::clone(&batches) };
    (Pipeline::new(Model { predictor: Box::new(predictor), ..model }), batches)
}

/// Draws an image of two steps, and returns its picture.
fn draw(pipeline: &mut Pipeline, prompt: &str) -> Result<Vec<f32>, JobError> {
    let request = json!({"prompt": prompt, "sampler": "ddim", "steps": 2, "seed": 3});
    let request: Request = serde_json::from_value(request).unwrap();
    let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
    pipeline.accept(request.check(&[ModelCard::new(pipeline.model())], limits, || 1).unwrap());
    let mut outcome = None;
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Image { image, .. } => outcome = Some(Ok(image.picture.data)),
            JobEvent::Failed(error) => outcome = Some(Err(error)),
            JobEvent::Progress { .. } | JobEvent::Preview { .. } | JobEvent::Finished { .. } => {}
        });
    }
    outcome.unwrap()
}

#[test]
fn a_job_evaluates_the_network_once_a_step_and_no_text_encoder_for_a_known_prompt() {
    let (_directory, bundle) = folder("sd");
    let (mut pipeline, batches) = pipeline(&bundle);
    let first = draw(&mut pipeline, PROMPT).unwrap();
    assert_eq!(*batches.lock().unwrap(), [2, 2], "one evaluation a step, with and without the prompt");
    // Any use of the text encoder would have to open it again.
    std::fs::remove_file(bundle.join("text_encoder/model.onnx")).unwrap();
    assert_eq!(draw(&mut pipeline, PROMPT).unwrap(), first);
    assert_eq!(batches.lock().unwrap().len(), 4);
    let error = draw(&mut pipeline, "another prompt").unwrap_err().message;
    assert!(error.contains("text_encoder"), "{error}");
}
