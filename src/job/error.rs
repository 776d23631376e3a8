//! Why a job is refused or fails.

use serde::{Deserialize, Serialize};

/// The kind of an error, as the requester gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not valid JSON, or a field is unknown or of the wrong type.
    BadRequest,
    /// A field's value is not supported.
    OutOfRange,
    /// The model is not loaded.
    UnknownModel,
    /// The sampler does not exist, or does not support the model.
    UnknownSampler,
    /// A different request with this id was accepted before.
    Conflict,
    /// The queue is full.
    QueueFull,
    /// The daemon is starting or stopping.
    Unavailable,
    /// The job was cancelled.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// No picture arrived on a stream's topic in time.
    NoPicture,
    /// The output of a graph contained NaN or infinity.
    NonFinite,
    /// The inference engine failed.
    Engine,
    /// The image could not be encoded.
    Encoding,
    /// The broker does not allow the daemon to publish on the requester's response topic.
    Denied,
}

impl ErrorCode {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::OutOfRange => "out_of_range",
            Self::UnknownModel => "unknown_model",
            Self::UnknownSampler => "unknown_sampler",
            Self::Conflict => "conflict",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::NoPicture => "no_picture",
            Self::NonFinite => "non_finite",
            Self::Engine => "engine",
            Self::Encoding => "encoding",
            Self::Denied => "denied",
        }
    }
}

/// Why a job is refused or fails.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct JobError {
    /// The kind.
    pub code: ErrorCode,
    /// The field of the request that caused it, if a single one did.
    pub field: Option<String>,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl JobError {
    /// An error that no single field caused.
    pub fn new(code: ErrorCode, message: impl ToString) -> Self {
        Self { code, field: None, message: message.to_string() }
    }

    /// The error of a job that was cancelled.
    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "the job was cancelled")
    }

    /// An error that this field caused.
    pub(crate) fn of_field(code: ErrorCode, field: &str, message: impl ToString) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(code, message) }
    }

    /// The value of this field is not supported.
    pub(crate) fn out_of_range(field: &str, message: impl ToString) -> Self {
        Self::of_field(ErrorCode::OutOfRange, field, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_code_is_that_of_its_json() {
        for name in [
            "bad_request",
            "out_of_range",
            "unknown_model",
            "unknown_sampler",
            "conflict",
            "queue_full",
            "unavailable",
            "cancelled",
            "deadline",
            "no_picture",
            "non_finite",
            "engine",
            "encoding",
            "denied",
        ] {
            let code: ErrorCode = serde_json::from_value(name.into()).unwrap();
            assert_eq!(code.name(), name);
        }
    }
}
