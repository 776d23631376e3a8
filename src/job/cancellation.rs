//! The message that cancels a job.

use serde::Deserialize;

use super::request::parse_as;
use super::{ErrorCode, JobError, id_error, is_id};

const SUBJECT: &str = "the cancellation";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    #[serde(default)]
    id: Option<String>,
}

/// Returns the error of a cancellation. Its text names the cancellation, because the job itself continues.
pub fn invalid_cancellation(id: Option<&str>, error: JobError) -> JobError {
    let subject = id.map_or_else(|| SUBJECT.to_owned(), |id| format!("{SUBJECT} of {id}"));
    let message = match error.message.strip_prefix(SUBJECT) {
        Some(rest) => format!("{subject}{rest}"),
        None => format!("{subject} is not valid: {}", error.message),
    };
    JobError { message, ..error }
}

/// Parses a cancellation, and returns the id of the job. An error comes with the id as the sender wrote it.
pub fn parse_cancellation(payload: &[u8]) -> Result<String, (Option<String>, JobError)> {
    let invalid = |(id, error): (Option<String>, JobError)| {
        let error = invalid_cancellation(id.as_deref(), error);
        (id, error)
    };
    let Cancellation { id } = parse_as(payload, SUBJECT).map_err(invalid)?;
    let missing = || {
        let message = "the field `id` is missing; it names the job to cancel".to_owned();
        JobError { field: Some("id".to_owned()), ..JobError::new(ErrorCode::BadRequest, message) }
    };
    let id = id.ok_or_else(|| invalid((None, missing())))?;
    if is_id(&id) { Ok(id) } else { Err(invalid((Some(super::shortened_id(&id)), id_error(&id)))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_is_an_object_with_the_id_of_a_job() {
        assert_eq!(parse_cancellation(br#"{"id": "long"}"#), Ok("long".to_owned()));
        for (payload, id, field, message) in [
            (
                "stop!",
                None,
                None,
                "the cancellation is not valid JSON: no JSON value begins with `stop!` (character 1)",
            ),
            ("[]", None, None, "the cancellation is an array, but must be an object"),
            (
                "{}",
                None,
                Some("id"),
                "the cancellation is not valid: the field `id` is missing; it names the job to cancel",
            ),
            (
                "{\"id\": 7}",
                Some("7"),
                Some("id"),
                "the cancellation of 7 is not valid: id is 7, but must be a string",
            ),
            (
                "{\"id\": \"a\", \"why\": 1}",
                Some("a"),
                Some("why"),
                "the cancellation of a is not valid: unknown field `why` (the fields are: id)",
            ),
        ] {
            let (written, error) = parse_cancellation(payload.as_bytes()).unwrap_err();
            assert_eq!((written.as_deref(), error.field.as_deref()), (id, field), "{payload}");
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::BadRequest, message));
        }
        let (id, error) = parse_cancellation(br#"{"id": "a/b"}"#).unwrap_err();
        assert_eq!((id.as_deref(), error.code), (Some("a/b"), ErrorCode::OutOfRange));
    }
}
