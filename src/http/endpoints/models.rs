//! `GET /v1/models`: the loaded models.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::error::ApiError;
use crate::http::images::accepting;
use crate::http::router::{AppState, json_response};
use crate::job::{ErrorCode, JobError};

pub(in crate::http) async fn list(State(app): State<AppState>) -> Result<Response, ApiError> {
    let models: Vec<_> = names(&app)?.iter().map(|name| model(&app, name)).collect();
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": models})))
}

pub(in crate::http) async fn retrieve(
    State(app): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    if !names(&app)?.contains(&name) {
        let message = format!("the model {name:?} is not loaded; GET /v1/models lists those that are");
        return Err(JobError {
            field: Some("model".to_owned()),
            ..JobError::new(ErrorCode::UnknownModel, message)
        }
        .into());
    }
    Ok(json_response(StatusCode::OK, &model(&app, &name)))
}

fn names(app: &AppState) -> Result<Vec<String>, ApiError> {
    Ok(accepting(app)?.state.models.into_iter().map(|model| model.name).collect())
}

fn model(app: &AppState, name: &str) -> Value {
    json!({"id": name, "object": "model", "created": app.started, "owned_by": "denoised"})
}
