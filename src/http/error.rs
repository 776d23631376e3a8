//! Errors of the server, and errors as OpenAI's API has them.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::router::json_response;
use crate::job::{ErrorCode, JobError};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The token cannot be used.
    #[error("http.token_file {}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("http.listen: cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl HttpError {
    pub(super) fn from_listen(address: SocketAddr, error: &std::io::Error) -> Self {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; stop the program that uses the port, or choose another port",
            std::io::ErrorKind::AddrNotAvailable => {
                "; use an address of this machine, or 0.0.0.0 for all of them"
            }
            std::io::ErrorKind::PermissionDenied => "; use a port above 1023",
            _ => "",
        };
        Self::Listen { address, reason: format!("{}{advice}", error.kind()) }
    }
}

/// The seconds after which a client is to try again if the daemon is busy.
const RETRY_AFTER_S: u64 = 5;

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// What is wrong, and what to do about it.
    pub(super) message: String,
    /// The field of the request that caused it.
    pub(super) param: Option<String>,
    /// OpenAI's name of the error if there is one, or else that of [`ErrorCode`].
    pub(super) code: &'static str,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    /// A field of the request has a value that is not supported.
    pub(super) fn of_field(field: &str, message: impl Into<String>) -> Self {
        let code = ErrorCode::OutOfRange.name();
        Self { param: Some(field.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// A field of the request is unknown, or its value has another type.
    pub(super) fn of_type(field: &str, message: impl Into<String>) -> Self {
        let code = ErrorCode::BadRequest.name();
        Self { param: Some(field.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// The request is too large.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::OutOfRange.name(), message)
    }

    /// The daemon cannot answer now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable.name(), message)
    }

    /// Too many requests wait.
    pub(super) fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::QueueFull.name(), message)
    }

    /// OpenAI's class of the error.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// The fields of a job that have another name in OpenAI's API.
const FIELD_NAMES: [(&str, &str); 5] = [
    ("count", "n"),
    ("width", "size"),
    ("height", "size"),
    ("format", "output_format"),
    ("quality", "output_compression"),
];

/// OpenAI's name of a field of a job.
pub(super) fn openai_name(field: &'static str) -> &'static str {
    FIELD_NAMES.iter().find(|(own, _)| *own == field).map_or(field, |(_, name)| name)
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let status = match error.code {
            ErrorCode::BadRequest | ErrorCode::OutOfRange | ErrorCode::UnknownSampler => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::UnknownModel => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // OpenAI's clients repeat requests after 408, 409, 429 and 5xx, and a cancelled job must not come back.
            ErrorCode::Cancelled => StatusCode::GONE,
            ErrorCode::Deadline => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::NoPicture
            | ErrorCode::NonFinite
            | ErrorCode::Engine
            | ErrorCode::Encoding
            | ErrorCode::Denied => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = match error.code {
            ErrorCode::UnknownModel => "model_not_found",
            code => code.name(),
        };
        let renamed = |field: String| {
            FIELD_NAMES.iter().find(|(own, _)| *own == field).map_or(field, |(_, name)| (*name).to_owned())
        };
        Self { status, message: error.message, param: error.field.map(renamed), code }
    }
}

impl ApiError {
    /// The error as OpenAI's API has it.
    pub(super) fn to_json(&self) -> Value {
        json!({"message": self.message, "type": self.kind(), "param": self.param, "code": self.code})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &json!({"error": self.to_json()}));
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_names_the_field_of_openai() {
        for (code, field, status, param) in [
            (ErrorCode::BadRequest, "steps", 400, "steps"),
            (ErrorCode::OutOfRange, "width", 400, "size"),
            (ErrorCode::OutOfRange, "count", 400, "n"),
            (ErrorCode::UnknownModel, "model", 404, "model"),
            (ErrorCode::QueueFull, "", 429, ""),
            (ErrorCode::Unavailable, "", 503, ""),
            (ErrorCode::Cancelled, "", 410, ""),
            (ErrorCode::Deadline, "", 504, ""),
            (ErrorCode::Engine, "", 500, ""),
        ] {
            let field = Some(field.to_owned()).filter(|field| !field.is_empty());
            let error = ApiError::from(JobError { code, field, message: "x".to_owned() });
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref().unwrap_or("")),
                (status, param),
                "{code:?}"
            );
            let response = error.clone().into_response();
            assert_eq!(response.headers().contains_key("retry-after"), [429, 503].contains(&status));
        }
    }

    #[test]
    fn an_error_has_openais_class_and_code() {
        let unknown = ApiError::from(JobError::new(ErrorCode::UnknownModel, "x"));
        assert_eq!((unknown.kind(), unknown.code), ("invalid_request_error", "model_not_found"));
        assert_eq!(ApiError::too_many("x").kind(), "rate_limit_error");
        assert_eq!(ApiError::unavailable("x").kind(), "server_error");
    }
}
