//! `POST /v1/images/edits`: images from a picture, and a mask if there is one.

use axum::body::Body;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::http::body::{BODY_TIMEOUT, read_body};
use crate::http::error::ApiError;
use crate::http::images::{ImageRequest, RequestKind, accepting, draw, may_read};
use crate::http::openai::{Form, FormPart, fields_of_form};
use crate::http::router::AppState;
use crate::job::ErrorCode;

/// The most parts of a form.
const MAX_PARTS: usize = 100;

pub(in crate::http) async fn edit(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    draw(&app, read_request(&app, request)).await
}

async fn read_request(app: &AppState, request: Request) -> Result<ImageRequest, ApiError> {
    let snapshot = accepting(app)?;
    let reading = may_read(app).await?;
    let (parts, body) = request.into_parts();
    let body = read_body(body, snapshot.limits.payload.0, BODY_TIMEOUT).await?;
    let parts = read_form(Request::from_parts(parts, Body::from(body))).await?;
    let max_pixels = snapshot.limits.pixels.0;
    // A picture is decoded, which takes too long for a thread that serves connections.
    let form = tokio::task::spawn_blocking(move || fields_of_form(parts, max_pixels)).await;
    let Form { fields, picture_size } = form.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Encoding.name(), error.to_string())
    })??;
    Ok(ImageRequest { kind: RequestKind::Edit, fields, picture_size, reading, snapshot })
}

fn bad_form(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), message)
}

async fn read_form(request: Request) -> Result<Vec<FormPart>, ApiError> {
    let fault = |error: MultipartError| bad_form(format!("the form cannot be read: {}", error.body_text()));
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| {
        bad_form("the request is not a form; send multipart/form-data with its boundary".to_owned())
    })?;
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(fault)? {
        if parts.len() == MAX_PARTS {
            return Err(bad_form(format!("the form has more than {MAX_PARTS} parts")));
        }
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(bad_form("a part of the form has no name".to_owned()));
        };
        let is_file = field.file_name().is_some();
        parts.push(FormPart { name, is_file, bytes: field.bytes().await.map_err(fault)? });
    }
    Ok(parts)
}
