//! The encoding thread: encodes finished images while the network evaluates the next batch.

use std::sync::mpsc as blocking;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::WorkerEvent;
use crate::image::{self, EmbeddedText, Encoding, Format, ImageError};
use crate::job::{ErrorCode, Job, JobError};
use crate::pipeline::{JobEvent, Sample};

#[derive(Debug)]
pub(in crate::service) struct EncodedImage {
    pub(in crate::service) format: Format,
    pub(in crate::service) bytes: Bytes,
}

/// Encodes the images of all events and forwards the events, until either queue is closed. Images contain their receipts
/// if `embeds_receipts`.
pub(super) fn run_encoder(
    embeds_receipts: bool,
    events: &blocking::Receiver<WorkerEvent<Sample>>,
    encoded: &mpsc::Sender<WorkerEvent<EncodedImage>>,
) {
    for event in events {
        let event = match event {
            WorkerEvent::Model(event) => WorkerEvent::Model(event),
            WorkerEvent::Job(job, event) => match encode_event(&job, event, embeds_receipts) {
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
fn encode_event(job: &Job, event: JobEvent<Sample>, embeds_receipts: bool) -> Option<JobEvent<EncodedImage>> {
    Some(match event {
        JobEvent::Preview { index, image } => {
            JobEvent::Preview { index, image: encode(job, Format::Png.into(), &image, None).ok()? }
        }
        JobEvent::Image { receipt, image } => {
            let has_text = embeds_receipts && job.encoding.format != Format::Npy;
            let text = has_text.then(|| receipt.image.to_text(&job.sizes));
            match encode(job, job.encoding, &image, text.as_ref()) {
                Ok(image) => JobEvent::Image { receipt, image },
                Err(error) => JobEvent::Failed(JobError::new(ErrorCode::Encoding, error)),
            }
        }
        JobEvent::Progress { step, of, eta_ms } => JobEvent::Progress { step, of, eta_ms },
        JobEvent::Finished { elapsed_ms } => JobEvent::Finished { elapsed_ms },
        JobEvent::Failed(error) => JobEvent::Failed(error),
    })
}

fn encode(
    job: &Job,
    encoding: Encoding,
    sample: &Sample,
    text: Option<&EmbeddedText>,
) -> Result<EncodedImage, ImageError> {
    let picture = &sample.picture;
    let description = &job.model.bundle.manifest.sample;
    let bytes = image::encode(encoding, &picture.data, &picture.shape, description, text)?;
    Ok(EncodedImage { format: encoding.format, bytes: bytes.into() })
}
