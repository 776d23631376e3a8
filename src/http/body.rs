//! Reads the body of a request, within a size and a time.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::error::ApiError;
use crate::job::ErrorCode;

/// How long a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a body that is too large is read and dropped, in bytes. A client that is still sending would not read the
/// error.
const MAX_DROPPED: u64 = 64 << 20;

/// Reads a body of at most `limit` bytes that arrives within `timeout`.
pub(super) async fn read_body(body: Body, limit: u64, timeout: Duration) -> Result<Bytes, ApiError> {
    tokio::time::timeout(timeout, read_within(body, limit)).await.unwrap_or_else(|_| {
        let message = format!("the body of the request did not arrive within {timeout:?}");
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest.name(), message))
    })
}

async fn read_within(mut body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let (mut bytes, mut size) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the body of the request cannot be read: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), message)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len() as u64;
        if size <= limit {
            bytes.extend_from_slice(&data);
        } else if size > limit + MAX_DROPPED {
            break;
        } else {
            bytes = BytesMut::new();
        }
    }
    if size > limit {
        let message = format!("the request has more than {limit} bytes (limits.payload)");
        return Err(ApiError::too_large(message));
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    struct Silent;

    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_an_error() {
        let read = |text: &'static str, limit| read_body(Body::from(text), limit, BODY_TIMEOUT);
        assert_eq!(read("12345", 5).await.unwrap(), "12345");
        let error = read("123456", 5).await.unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.message.as_str()),
            (413, "the request has more than 5 bytes (limits.payload)")
        );
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_an_error() {
        let error = read_body(Body::new(Silent), 5, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.message.as_str()),
            (408, "the body of the request did not arrive within 10ms")
        );
    }
}
