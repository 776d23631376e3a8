//! `GET /healthz`: whether the daemon accepts jobs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::http::router::{AppState, json_response};
use crate::service::status::Phase;

/// 200 if jobs are accepted, or else 503. A daemon without a broker is healthy: it draws, and delivers later.
pub(in crate::http) async fn healthz(State(app): State<AppState>) -> Response {
    let (phase, is_connected, is_alive) = match app.local.snapshot.borrow().as_ref() {
        Some(snapshot) => (snapshot.state.phase, snapshot.is_connected, snapshot.is_alive),
        None => (Phase::Starting, false, true),
    };
    let status = match phase == Phase::Ready && is_alive {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "phase": phase.name(),
        "broker": if is_connected { "connected" } else { "disconnected" },
        "worker": if is_alive { "alive" } else { "stuck" },
    });
    json_response(status, &body)
}
