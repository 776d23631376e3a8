//! The images of a job as server-sent events, with previews while they are made.
//!
//! The events are those of OpenAI's image API: `image_generation.partial_image` and `image_generation.completed`, or
//! `image_edit` for edits. An error is the event `error`.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::error::ApiError;
use super::images::{RequestKind, SentJob, about_picture, hold, stopped};
use super::openai;
use super::router::AppState;
use crate::service::local::{LocalAnswer, Preview};

/// How often a client that waits gets a comment, which ends the connection of one that has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment, which clients ignore.
const COMMENT: &[u8] = b":\n\n";

/// Answers a request with the events of its job. Dropping the response does not cancel the job.
pub(super) fn events(app: AppState, sent: SentJob) -> Response {
    let events = Events { app, sent, partial_images: 0, has_ended: false, held: None };
    let body = stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}

/// What is left to send.
struct Events {
    app: AppState,
    sent: SentJob,
    /// The number of previews so far.
    partial_images: usize,
    has_ended: bool,
    /// The permit for the memory of the image that is being sent.
    held: Option<OwnedSemaphorePermit>,
}

/// What comes next.
enum Next {
    Answer(Option<LocalAnswer>),
    Preview,
    Nothing,
}

impl Events {
    /// The next event. `None` after the last one.
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let may_preview = self.sent.max_previews.is_none_or(|max| self.partial_images < max);
        let answers = &mut self.sent.answers;
        // An image is sent before a preview of the next one.
        let next = tokio::select! {
            biased;
            answer = answers.answers.recv() => Next::Answer(answer),
            Ok(()) = answers.preview.changed(), if may_preview => Next::Preview,
            () = tokio::time::sleep(KEEP_ALIVE) => Next::Nothing,
        };
        self.held = None;
        match next {
            Next::Answer(Some(LocalAnswer::Image { bytes, receipt })) => {
                // A preview that was not sent is older than the image.
                answers.preview.mark_unchanged();
                match hold(&self.app, 2 * bytes.len()) {
                    Ok(permit) => self.held = Some(permit),
                    Err(error) => return Some(self.end(error)),
                }
                let size = receipt.image.size.map(|[width, height]| format!("{width}x{height}"));
                Some(self.event("completed", &bytes, json!({"size": size, "denoised": receipt})))
            }
            Next::Answer(Some(LocalAnswer::Finished { .. })) => {
                self.has_ended = true;
                None
            }
            Next::Answer(Some(LocalAnswer::Failed(error))) => Some(self.end(error.into())),
            Next::Answer(None) => Some(self.end(stopped())),
            Next::Preview => {
                let Preview { index, bytes } = answers.preview.borrow_and_update().clone()?;
                let number = self.partial_images;
                self.partial_images += 1;
                Some(self.event(
                    "partial_image",
                    &bytes,
                    json!({"partial_image_index": number, "index": index}),
                ))
            }
            Next::Nothing => Some(Bytes::from_static(COMMENT)),
        }
    }

    /// The last event.
    fn end(&mut self, error: ApiError) -> Bytes {
        self.has_ended = true;
        let error = about_picture(error, self.sent.picture_size);
        to_event("error", &json!({"type": "error", "error": error.to_json()}))
    }

    fn event(&self, name: &str, file: &[u8], more: Value) -> Bytes {
        let kind = match self.sent.kind {
            RequestKind::Generation => "image_generation",
            RequestKind::Edit => "image_edit",
        };
        let name = format!("{kind}.{name}");
        let mut data = json!({
            "type": name, "b64_json": BASE64.encode(file), "created_at": openai::unix_time(),
            "output_format": self.sent.format, "background": "opaque", "quality": "auto",
        });
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        to_event(&name, &data)
    }
}

/// An event as it is sent. JSON has no line breaks outside of strings, and escapes them there.
fn to_event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
