//! The message that cancels a job.

use serde::Deserialize;

use super::request::parse_as;
use super::{JobError, id_error, is_id};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    id: String,
}

/// Parses a cancellation, and returns the id of the job. An error comes with the id as the sender wrote it.
pub fn parse_cancellation(payload: &[u8]) -> Result<String, (Option<String>, JobError)> {
    let Cancellation { id } = parse_as(payload, "the cancellation")?;
    if is_id(&id) { Ok(id) } else { Err((Some(super::shortened_id(&id)), id_error(&id))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ErrorCode;

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
            ("{}", None, None, "the cancellation: the field `id` is missing"),
            ("{\"id\": 7}", Some("7"), Some("id"), "id is 7, but must be a string"),
            (
                "{\"id\": \"a\", \"why\": 1}",
                Some("a"),
                Some("why"),
                "unknown field `why` (the fields are: id)",
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
