//! `POST /v1/images/generations`: images from a prompt.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;

use crate::http::body::{BODY_TIMEOUT, read_body};
use crate::http::error::ApiError;
use crate::http::images::{ImageRequest, RequestKind, accepting, draw, may_read};
use crate::http::openai::fields_of_json;
use crate::http::router::AppState;

pub(in crate::http) async fn generate(State(app): State<AppState>, body: Body) -> Result<Response, ApiError> {
    let request = async {
        let snapshot = accepting(&app)?;
        let reading = may_read(&app).await?;
        let fields = fields_of_json(&read_body(body, snapshot.limits.payload.0, BODY_TIMEOUT).await?)?;
        Ok(ImageRequest { kind: RequestKind::Generation, fields, picture_size: None, reading, snapshot })
    };
    draw(&app, request).await
}
