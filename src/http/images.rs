//! Sends a job to the service, and answers with its images.

use std::time::Instant;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::error::TrySendError;

use super::error::ApiError;
use super::images_body::{BodyPart, ImagesBody};
use super::openai::{self, ImageJob, JobContext};
use super::router::AppState;
use crate::job::receipt::Receipt;
use crate::service::local::{LocalAnswer, LocalClient, LocalRequest, Snapshot};
use crate::service::status::Phase;

/// The most requests that wait for their images or send them. Fewer than the connections, so that the others can always be
/// asked for metrics.
pub(super) const MAX_WAITING: usize = 48;
/// The most requests whose body is read and parsed at once, which bounds the memory for them.
pub(super) const MAX_READING: usize = 8;
/// The most memory of images that wait for their clients, in KiB.
pub(super) const MAX_HELD_KIB: usize = 128 << 10;

/// An image, and the permit for the memory that it takes.
struct HeldImage {
    bytes: Bytes,
    receipt: Box<Receipt>,
    permit: OwnedSemaphorePermit,
}

/// Returns the state of the daemon, if it accepts jobs now.
pub(super) fn accepting(app: &AppState) -> Result<Snapshot, ApiError> {
    let snapshot = app.local.snapshot.borrow();
    match snapshot.as_ref() {
        Some(snapshot) if snapshot.state.phase == Phase::Ready => Ok(snapshot.clone()),
        Some(snapshot) if snapshot.state.phase == Phase::Draining => {
            Err(ApiError::unavailable("the daemon is stopping; try again later"))
        }
        _ => Err(ApiError::unavailable("the models are loading; try again later")),
    }
}

/// Waits until the body of one more request may be read. The permit is to be dropped once the job is sent.
pub(super) async fn may_read(app: &AppState) -> Result<OwnedSemaphorePermit, ApiError> {
    // The semaphore is never closed.
    app.reading.clone().acquire_owned().await.map_err(|error| ApiError::unavailable(error.to_string()))
}

/// Draws the images that these fields of OpenAI's API ask for. `reading` is the permit for the request's body.
pub(super) async fn draw(
    app: &AppState,
    fields: Map<String, Value>,
    reading: OwnedSemaphorePermit,
    Snapshot { state, text_models, limits, .. }: &Snapshot,
) -> Result<Response, ApiError> {
    let waiting = app.waiting.clone().try_acquire_owned();
    let Ok(slot) = waiting else {
        let message = format!("{MAX_WAITING} requests wait for their images; try again later");
        return Err(ApiError::too_many(message));
    };
    let id = format!("http-{:016x}", fastrand::u64(..));
    let default_model = state.models.first().map_or("", |model| &model.name);
    let context = JobContext { id: &id, default_model, text_models, max_count: limits.count.0 };
    let job = openai::to_job(fields, context)?;
    if job.payload.len() as u64 > limits.payload.0 {
        return Err(ApiError::too_large(format!(
            "the request is a job of {} bytes, with its pictures in base64; at most {} are accepted (limits.payload)",
            job.payload.len(),
            limits.payload.0
        )));
    }
    let format = job.format;
    let (images, elapsed_ms) = images_of(app, job, reading).await?;
    Ok(respond(&id, format, images, elapsed_ms, slot))
}

/// Sends the job, and waits for its images. Dropping this future does not cancel the job.
async fn images_of(
    app: &AppState,
    job: ImageJob,
    reading: OwnedSemaphorePermit,
) -> Result<(Vec<HeldImage>, u64), ApiError> {
    // Room for all answers, so that the service never has to drop one.
    let (client, mut answers) = LocalClient::new(job.count + 1);
    let request = LocalRequest { payload: job.payload, arrival: Instant::now(), client };
    let stopped = || {
        ApiError::unavailable(
            "the daemon has stopped; a job that was accepted continues after the next start, and its images are published \
             over MQTT",
        )
    };
    match app.local.requests.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return Err(ApiError::too_many("too many requests arrive at once; try again later"));
        }
        Err(TrySendError::Closed(_)) => {
            return Err(ApiError::unavailable("the daemon is stopping; try again later"));
        }
    }
    drop(reading);
    let mut images = Vec::with_capacity(job.count);
    loop {
        match answers.recv().await.ok_or_else(stopped)? {
            LocalAnswer::Image { bytes, receipt } => {
                images.push(HeldImage { permit: hold(app, bytes.len())?, bytes, receipt });
            }
            LocalAnswer::Finished { elapsed_ms } => {
                images.sort_by_key(|image| image.receipt.index);
                return Ok((images, elapsed_ms));
            }
            LocalAnswer::Failed(error) => return Err(error.into()),
        }
    }
}

/// Takes memory for an image of this size.
fn hold(app: &AppState, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = u32::try_from(bytes.div_ceil(1024))
        .ok()
        .and_then(|kib| app.held_kib.clone().try_acquire_many_owned(kib).ok());
    permit.ok_or_else(|| {
        ApiError::unavailable(format!(
            "the images that wait for their HTTP clients take more than {} MiB; the job continues, and its images are \
             published over MQTT",
            MAX_HELD_KIB >> 10
        ))
    })
}

fn respond(
    id: &str,
    format: &str,
    images: Vec<HeldImage>,
    elapsed_ms: u64,
    slot: OwnedSemaphorePermit,
) -> Response {
    let mut text =
        format!("{{\"created\":{},\"output_format\":{},\"data\":[", openai::unix_time(), json!(format));
    let (mut parts, mut permits) = (Vec::with_capacity(2 * images.len() + 1), vec![slot]);
    for (index, HeldImage { bytes, receipt, permit }) in images.into_iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        text.push_str(&format!("{separator}{{\"b64_json\":\""));
        parts.extend([BodyPart::Text(text), BodyPart::Base64(bytes)]);
        text = format!("\",\"denoised\":{}}}", json!(receipt));
        permits.push(permit);
    }
    let job = json!({"id": id, "elapsed_ms": elapsed_ms});
    text.push_str(&format!("],\"denoised\":{job}}}"));
    parts.push(BodyPart::Text(text));
    let body = Body::new(ImagesBody::new(parts, permits));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
