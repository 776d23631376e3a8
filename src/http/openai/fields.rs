//! The fields of a request: OpenAI's, and those of a job that have no other name here.

use serde_json::{Map, Value};

use crate::http::error::{ApiError, openai_name};
use crate::json_input::{field_meant_by, unknown_field};

/// OpenAI's fields with an effect, and the fields of jobs that have the same name here.
const FIELDS: [&str; 37] = [
    "prompt",
    "model",
    "n",
    "size",
    "output_format",
    "output_compression",
    "response_format",
    "image",
    "mask",
    "sampler",
    "steps",
    "seed",
    "class",
    "guidance",
    "eta",
    "guidance_rescale",
    "cfg_normalization",
    "cfg_truncation",
    "negative_prompt",
    "prompt_2",
    "negative_prompt_2",
    "clip_skip",
    "max_sequence_length",
    "original_size",
    "crop",
    "target_size",
    "strength",
    "conditions",
    "noise",
    "preview_every",
    "deadline_ms",
    "priority",
    "exact",
    "loras",
    "controls",
    "guess_mode",
    "stream",
];

/// Fields of jobs that these requests do not have, and what to do instead.
const NOT_FOR_HTTP: [(&str, &str); 5] = [
    ("id", "is chosen by the daemon; remove it"),
    ("count", "is named n here; use n"),
    ("width", "is part of size here; use size, such as \"512x512\""),
    ("height", "is part of size here; use size, such as \"512x512\""),
    ("format", "is named output_format here; use output_format"),
];

/// Refuses fields that a request cannot have, of which `without_effect` are some that it can have.
pub(super) fn refuse_unknown(
    fields: &Map<String, Value>,
    is_without_effect: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    let is_known = |field: &str| FIELDS.contains(&field) || is_without_effect(field);
    let Some(field) = fields.keys().find(|field| !is_known(field)) else { return Ok(()) };
    if let Some((own, advice)) = NOT_FOR_HTTP.iter().find(|(own, _)| own == field) {
        return Err(ApiError::of_type(own, format!("{own} {advice}")));
    }
    let meant_by = |name: &str| field_meant_by(name).map(openai_name);
    Err(ApiError::of_type(field, unknown_field(field, &FIELDS, meant_by)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Request;

    #[test]
    fn each_field_of_a_job_has_a_name_or_is_refused_with_one() {
        let job = serde_json::to_value(Request::default()).unwrap();
        for field in job.as_object().unwrap().keys().map(String::as_str) {
            let is_refused = NOT_FOR_HTTP.iter().any(|(own, _)| *own == field);
            // The quality of JPEG images is output_compression, and quality is a field of OpenAI's.
            assert!(FIELDS.contains(&field) != is_refused || field == "quality", "{field}");
        }
    }

    /// The error listed and suggested fields that HTTP refuses, such as `count` and `width`.
    #[test]
    fn an_unknown_field_was_answered_with_names_that_http_refuses() {
        for (field, hint) in [
            ("num_images", "did you mean `n`?"),
            ("imagewidth", "did you mean `size`?"),
            ("num_inference_steps", "did you mean `steps`?"),
            ("fileformat", "did you mean `output_format`?"),
            ("samplr", "did you mean `sampler`?"),
            ("colour", "unknown field `colour` (the fields are: prompt, model, n, size"),
        ] {
            let fields = Map::from_iter([(field.to_owned(), Value::from(1))]);
            let error = refuse_unknown(&fields, |_| false).unwrap_err();
            assert_eq!((error.param.as_deref(), error.code), (Some(field), "bad_request"));
            assert!(error.message.contains(hint), "{}", error.message);
            for refused in ["count", "width", "height", "format", " id"] {
                assert!(!error.message.contains(&format!(" {refused},")), "{}", error.message);
            }
        }
    }
}
