//! `GET /`: a page for browsers, with its style and its script.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The page loads nothing from elsewhere, and no other page shows it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The page. It has no secrets, and asks for the token itself, so that it is shown without one.
pub(in crate::http) async fn html() -> Response {
    file("text/html; charset=utf-8", include_str!("../page/index.html"))
}

pub(in crate::http) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../page/page.css"))
}

pub(in crate::http) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/page.js"))
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Another version of the daemon has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
