//! The encoding thread: encodes finished images while the network evaluates the next batch.

use std::sync::mpsc as blocking;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::WorkerEvent;
use crate::image::{self, Encoding, Format, ImageError};
use crate::job::{ErrorCode, Job, JobError};
use crate::pipeline::{JobEvent, Sample};

#[derive(Debug)]
pub(in crate::service) struct EncodedImage {
    pub(in crate::service) format: Format,
    pub(in crate::service) bytes: Bytes,
}

/// Encodes the images of all events and forwards the events, until either queue is closed.
pub(super) fn run_encoder(
    events: &blocking::Receiver<WorkerEvent<Sample>>,
    encoded: &mpsc::Sender<WorkerEvent<EncodedImage>>,
) {
    for event in events {
        let event = match event {
            WorkerEvent::Model(event) => WorkerEvent::Model(event),
            WorkerEvent::Job(job, event) => match encode_event(&job, event) {
                Some(event) => WorkerEvent::Job(job, event),
                None => continue,
            },
        };
        if encoded.blocking_send(event).is_err() {
            return;
        }
    }
}

/// Encodes the image of an event. A preview that PNG cannot hold is dropped; an image fails its job.
fn encode_event(job: &Job, event: JobEvent<Sample>) -> Option<JobEvent<EncodedImage>> {
    Some(match event {
        JobEvent::Preview { index, image } => {
            JobEvent::Preview { index, image: encode(job, Format::Png.into(), &image).ok()? }
        }
        JobEvent::Image { receipt, image } => match encode(job, job.encoding, &image) {
            Ok(image) => JobEvent::Image { receipt, image },
            Err(error) => JobEvent::Failed(JobError::new(ErrorCode::Encoding, error)),
        },
        JobEvent::Progress { step, of, eta_ms } => JobEvent::Progress { step, of, eta_ms },
        JobEvent::Finished { elapsed_ms } => JobEvent::Finished { elapsed_ms },
        JobEvent::Failed(error) => JobEvent::Failed(error),
    })
}

fn encode(job: &Job, encoding: Encoding, sample: &Sample) -> Result<EncodedImage, ImageError> {
    let picture = &sample.picture;
    let bytes = image::encode(encoding, &picture.data, &picture.shape, &job.model.bundle.manifest.sample)?;
    Ok(EncodedImage { format: encoding.format, bytes: bytes.into() })
}
