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
use super::events::events;
use super::images_body::{BodyPart, ImagesBody};
use super::openai::{self, ImageJob, JobContext};
use super::router::AppState;
use crate::job::receipt::Receipt;
use crate::service::local::{LocalAnswer, LocalAnswers, LocalClient, LocalRequest, Snapshot};
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

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Generation,
    Edit,
}

/// A request that was read.
pub(super) struct ImageRequest {
    pub(super) kind: RequestKind,
    /// The fields, which are OpenAI's and those of jobs.
    pub(super) fields: Map<String, Value>,
    /// The width and the height of the picture, if they are the images' because the request has no size.
    pub(super) picture_size: Option<[u32; 2]>,
    /// The permit for the request's body.
    pub(super) reading: OwnedSemaphorePermit,
    /// The state of the daemon when the request arrived.
    pub(super) snapshot: Snapshot,
}

/// A job that the service has.
pub(super) struct SentJob {
    pub(super) kind: RequestKind,
    id: String,
    count: usize,
    pub(super) format: &'static str,
    is_streamed: bool,
    /// The most previews of all images; `None` without a bound.
    pub(super) max_previews: Option<usize>,
    pub(super) picture_size: Option<[u32; 2]>,
    pub(super) answers: LocalAnswers,
    /// The permit to wait.
    slot: OwnedSemaphorePermit,
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

/// Draws the images of a request, which is read first.
pub(super) async fn draw(
    app: &AppState,
    request: impl Future<Output = Result<ImageRequest, ApiError>>,
) -> Result<Response, ApiError> {
    let sent = async { send(app, request.await?) }.await;
    // The service counts those that it rejects itself.
    let sent = sent.inspect_err(|error| app.local.metrics.on_rejected(error.code))?;
    if sent.is_streamed {
        return Ok(events(app.clone(), sent));
    }
    let picture_size = sent.picture_size;
    sent.respond(app).await.map_err(|error| about_picture(error, picture_size))
}

/// An error about the size, which is the picture's if the request has none.
pub(super) fn about_picture(error: ApiError, picture_size: Option<[u32; 2]>) -> ApiError {
    match picture_size {
        Some([width, height]) if error.param.as_deref() == Some("size") => ApiError {
            message: format!(
                "the picture has {width}×{height} pixels, which the images have too unless size says otherwise: {}",
                error.message
            ),
            param: Some("image".to_owned()),
            ..error
        },
        _ => error,
    }
}

/// Sends the job of a request to the service.
fn send(
    app: &AppState,
    ImageRequest { kind, fields, picture_size, reading, snapshot }: ImageRequest,
) -> Result<SentJob, ApiError> {
    let waiting = app.waiting.clone().try_acquire_owned();
    let Ok(slot) = waiting else {
        let message = format!("{MAX_WAITING} requests wait for their images; try again later");
        return Err(ApiError::too_many(message));
    };
    let id = format!("http-{:016x}", fastrand::u64(..));
    let Snapshot { models, limits, .. } = &snapshot;
    let context = JobContext { id: &id, models, max_count: limits.count.0 };
    let ImageJob { payload, count, format, is_streamed, max_previews } = openai::to_job(fields, context)?;
    if payload.len() as u64 > limits.payload.0 {
        return Err(ApiError::too_large(format!(
            "the request is a job of {} bytes, with its pictures in base64; at most {} are accepted (limits.payload)",
            payload.len(),
            limits.payload.0
        )));
    }
    // Room for all answers, so that the service never has to drop one.
    let (client, answers) = LocalClient::new(count + 1);
    let request = LocalRequest { payload, arrival: Instant::now(), client };
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
    Ok(SentJob { kind, id, count, format, is_streamed, max_previews, picture_size, answers, slot })
}

impl SentJob {
    /// Waits for the images. Dropping this future does not cancel the job.
    async fn respond(mut self, app: &AppState) -> Result<Response, ApiError> {
        let mut images = Vec::with_capacity(self.count);
        loop {
            match self.answers.answers.recv().await.ok_or_else(stopped)? {
                LocalAnswer::Image { bytes, receipt } => {
                    images.push(HeldImage { permit: hold(app, bytes.len())?, bytes, receipt });
                }
                LocalAnswer::Finished { elapsed_ms } => {
                    images.sort_by_key(|image| image.receipt.index);
                    return Ok(respond(&self.id, self.format, images, elapsed_ms, self.slot));
                }
                LocalAnswer::Failed(error) => return Err(error.into()),
            }
        }
    }
}

/// The error of a client whose job has not ended.
pub(super) fn stopped() -> ApiError {
    ApiError::unavailable(
        "the daemon has stopped; a job that was accepted continues after the next start, and its images are published \
         over MQTT",
    )
}

/// Takes memory for an image of this size.
pub(super) fn hold(app: &AppState, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
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
