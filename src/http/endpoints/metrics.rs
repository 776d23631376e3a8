//! `GET /metrics`: metrics in Prometheus' text format.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::http::router::AppState;

/// The content type of version 0.0.4, which every version of Prometheus reads.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(in crate::http) async fn metrics(State(app): State<AppState>) -> Response {
    let snapshot = app.local.snapshot.borrow().clone();
    let text = app.local.metrics.to_text(snapshot.as_ref(), app.platform.resident_memory());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}
