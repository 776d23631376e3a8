//! Who may send requests: whoever has the token, or without one the programs and pages of this machine.
//!
//! Without a token, any page that a browser of this machine shows could send requests. A page of another site has an
//! `Origin` that is not the `Host`. A site whose name is resolved to this machine has a name as its `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::router::AppState;
use super::token::Token;

/// Lets a request pass, or answers it with an error.
pub(super) async fn check_access(State(app): State<AppState>, request: Request, next: Next) -> Response {
    match check(app.token.as_deref(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(token: Option<&Token>, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = token {
        let sent = text(header::AUTHORIZATION).and_then(bearer);
        if sent.is_some_and(|sent| token.is(sent)) {
            return Ok(());
        }
        let message = match sent {
            Some(_) => "the token is not the one in http.token_file",
            None => {
                "a token is required; send the header Authorization: Bearer TOKEN, with the token in http.token_file"
            }
        };
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    }
    let forbidden = |message: &str| Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    let host = text(header::HOST).unwrap_or_default();
    if !host.is_empty() && !is_local_name(host) {
        return forbidden(
            "the Host is a name that any site can have; use http://localhost or an address, or set http.token_file",
        );
    }
    if headers.contains_key(header::ORIGIN) && text(header::ORIGIN).and_then(authority) != Some(host) {
        return forbidden(
            "pages of other sites may not send requests; set http.token_file, and send the token",
        );
    }
    Ok(())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The host and port of an origin.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// Returns whether a `Host` is an address or `localhost`, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split(']').next().is_some_and(|name| name.parse::<Ipv6Addr>().is_ok()),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(token: Option<&Token>, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        check(token, &map).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_pages_of_other_sites_are_refused() {
        for (host, origin, expected) in [
            ("127.0.0.1:8188", None, 200),
            ("localhost:8188", None, 200),
            ("[::1]:8188", None, 200),
            ("192.168.1.5", None, 200),
            ("localhost:8188", Some("http://localhost:8188"), 200),
            ("localhost:8188", Some("http://localhost:3000"), 403),
            ("localhost:8188", Some("https://evil.example"), 403),
            ("localhost:8188", Some("null"), 403),
            ("evil.example:8188", None, 403),
            ("[evil]", None, 403),
            ("127.0.0.1.evil.example", None, 403),
        ] {
            let headers: Vec<_> = [("host", host)].into_iter().chain(origin.map(|o| ("origin", o))).collect();
            assert_eq!(status(None, &headers), expected, "{host} {origin:?}");
        }
        assert_eq!(status(None, &[]), 200);
    }

    #[test]
    fn a_token_must_be_sent_and_lets_every_host_pass() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "0123456789abcdef").unwrap();
        let token = Token::read(&path).unwrap();
        let host = ("host", "board.example");
        for (authorization, expected) in [
            ("Bearer 0123456789abcdef", 200),
            ("bearer 0123456789abcdef", 200),
            ("Bearer 0123456789abcdeX", 401),
            ("0123456789abcdef", 401),
            ("Basic 0123456789abcdef", 401),
        ] {
            assert_eq!(
                status(Some(&token), &[host, ("authorization", authorization)]),
                expected,
                "{authorization}"
            );
        }
        assert_eq!(status(Some(&token), &[host]), 401);
    }
}
