//! Runs jobs in a pipeline, and records their events.

use std::collections::BTreeMap;
use std::sync::Arc;

use denoised::job::{ErrorCode, Job, JobLimits, ModelCard, Request};
use denoised::pipeline::{JobEvent, Pipeline, Sample};

const LIMITS: JobLimits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };

/// A job of a request that has a seed.
pub fn job(card: &Arc<ModelCard>, request: serde_json::Value) -> Job {
    let request: Request = serde_json::from_value(request).unwrap();
    request.check(std::slice::from_ref(card), LIMITS, || panic!("every request has a seed")).unwrap()
}

/// The samples of jobs, by the job's id and the image's index.
pub type Images = BTreeMap<(String, usize), Vec<f32>>;

/// The events of a pipeline's jobs.
#[derive(Default)]
pub struct Recorded {
    pub images: Images,
    pub finished: Vec<String>,
    pub failed: Vec<(String, ErrorCode, String)>,
    pub previews: usize,
    /// The steps of the latest image.
    pub steps: usize,
}

impl Recorded {
    pub fn record(&mut self, job: &Job, event: JobEvent<Sample>) {
        match event {
            JobEvent::Image { receipt, image } => {
                self.steps = receipt.image.steps;
                let key = (job.id.clone(), receipt.index);
                assert!(self.images.insert(key, image.picture.data).is_none());
            }
            JobEvent::Finished { .. } => self.finished.push(job.id.clone()),
            JobEvent::Failed(error) => self.failed.push((job.id.clone(), error.code, error.message)),
            JobEvent::Preview { .. } => self.previews += 1,
            JobEvent::Progress { step, of, .. } => assert!(step <= of),
        }
    }

    pub fn drain(&mut self, pipeline: &mut Pipeline) {
        while !pipeline.is_idle() {
            pipeline.step(&mut |job, event| self.record(job, event));
        }
    }
}
