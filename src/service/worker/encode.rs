//! The encoding thread: what was finished becomes bytes while the network goes on.

use std::sync::mpsc as blocking;

use tokio::sync::mpsc;

use super::{News, Raw, What, WorkerEvent};
use crate::image::{self, Format};
use crate::job::{ErrorCode, Job, JobError};

/// Encode what comes and pass it on, until nobody listens.
pub(super) fn encode(raw: &blocking::Receiver<Raw>, tidings: &mpsc::Sender<WorkerEvent>) {
    for item in raw {
        let told = match item {
            Raw::WorkerEvent(told) => told,
            Raw::Image { job, receipt, sample } => {
                let format = job.format;
                let what = match encode_as(format, &sample, &job.sizes.image, &job) {
                    Ok(bytes) => What::Image { receipt, format, bytes },
                    Err(error) => What::Failed(JobError::new(ErrorCode::Encoding, error)),
                };
                WorkerEvent::Job(News { id: job.id, what })
            }
            Raw::Preview { job, index, x0, shape } => match encode_as(Format::Png, &x0, &shape, &job) {
                Ok(png) => WorkerEvent::Job(News { id: job.id, what: What::Preview { index, png } }),
                Err(_) => continue, // what is no picture has no preview
            },
        };
        if tidings.blocking_send(told).is_err() {
            return;
        }
    }
}

fn encode_as(
    format: Format,
    sample: &[f32],
    shape: &[usize],
    job: &Job,
) -> Result<Vec<u8>, image::ImageError> {
    image::encode(format, sample, shape, &job.model.bundle.manifest.sample)
}
