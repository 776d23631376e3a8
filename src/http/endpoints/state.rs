//! `GET /state`: the daemon's state, as it is published over MQTT.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::http::error::ApiError;
use crate::http::router::{AppState, json_response};

pub(in crate::http) async fn state(State(app): State<AppState>) -> Result<Response, ApiError> {
    match app.local.snapshot.borrow().as_ref() {
        Some(snapshot) => Ok(json_response(StatusCode::OK, &json!(snapshot.state))),
        None => Err(ApiError::unavailable("the daemon is starting; try again later")),
    }
}
