//! The endpoints and what is checked before them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use super::access::check_access;
use super::endpoints::{edits, generations, healthz, metrics, models, page, state};
use super::error::ApiError;
use super::images::{MAX_HELD_KIB, MAX_READING, MAX_WAITING};
use super::token::Token;
use crate::platform::Platform;
use crate::service::local::LocalHandle;

/// What the endpoints share.
#[derive(Debug, Clone)]
pub(super) struct AppState {
    /// The connection to the service.
    pub(super) local: LocalHandle,
    /// The token that requests must have, if any.
    pub(super) token: Option<Arc<Token>>,
    /// The machine, whose memory the metrics have.
    pub(super) platform: Platform,
    /// When the server was started, in seconds since 1970.
    pub(super) started: u64,
    /// Permits for requests whose body is read.
    pub(super) reading: Arc<Semaphore>,
    /// Permits for requests that wait for their images.
    pub(super) waiting: Arc<Semaphore>,
    /// Permits for the memory of images, in KiB.
    pub(super) held_kib: Arc<Semaphore>,
}

impl AppState {
    pub(super) fn new(local: LocalHandle, token: Option<Arc<Token>>, platform: Platform) -> Self {
        Self {
            local,
            token,
            platform,
            started: super::openai::unix_time(),
            reading: Arc::new(Semaphore::new(MAX_READING)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            held_kib: Arc::new(Semaphore::new(MAX_HELD_KIB)),
        }
    }
}

/// Builds the router. `/healthz` is answered without a token, so that any monitor can ask; and so is the page, which has
/// nothing secret.
pub(super) fn router(app: AppState) -> Router {
    Router::new()
        .route("/v1/images/generations", post(generations::generate))
        .route("/v1/images/edits", post(edits::edit))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::retrieve))
        .route("/metrics", get(metrics::metrics))
        .route("/state", get(state::state))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), check_access))
        .route("/healthz", get(healthz::healthz).fallback(wrong_method))
        .route("/", get(page::html).fallback(wrong_method))
        .route("/page.css", get(page::style).fallback(wrong_method))
        .route("/page.js", get(page::script).fallback(wrong_method))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        // The endpoints read bodies within `limits.payload`, which can change.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Counts the answered requests. Paths that are no endpoint share one label, so that their number is bounded.
async fn count(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let endpoint = path.as_ref().map_or("other", MatchedPath::as_str);
    app.local.metrics.on_http_request(endpoint, response.status().as_u16());
    response
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}; docs/http.md lists what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; docs/http.md lists what there is", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// A response in JSON.
pub(super) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body.to_string())).into_response()
}
