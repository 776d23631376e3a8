//! `GET /v1/models`: the loaded models.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::error::ApiError;
use crate::http::images::accepting;
use crate::http::router::{AppState, json_response};
use crate::job::{ErrorCode, JobError};
use crate::service::model_summary::ModelSummary;

pub(in crate::http) async fn list(State(app): State<AppState>) -> Result<Response, ApiError> {
    let snapshot = accepting(&app)?;
    let models: Vec<_> = snapshot.models.iter().map(|model| to_json(&app, model)).collect();
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": models})))
}

pub(in crate::http) async fn retrieve(
    State(app): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let snapshot = accepting(&app)?;
    let Some(model) = snapshot.models.iter().find(|model| model.name == name) else {
        let message = format!("the model {name:?} is not loaded; GET /v1/models lists those that are");
        let field = Some("model".to_owned());
        return Err(JobError { field, ..JobError::new(ErrorCode::UnknownModel, message) }.into());
    };
    Ok(json_response(StatusCode::OK, &to_json(&app, model)))
}

fn to_json(app: &AppState, model: &ModelSummary) -> Value {
    json!({"id": model.name, "object": "model", "created": app.started, "owned_by": "denoised", "denoised": model})
}
