//! A request for images in OpenAI's fields becomes a job in the fields of requests over MQTT.
//!
//! Free of I/O. OpenAI's API reference, "Images": <https://platform.openai.com/docs/api-reference/images>.

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::fields::refuse_unknown;
use crate::http::error::ApiError;
use crate::job::ErrorCode;
use crate::json_input::{Document, Json};
use crate::service::model_summary::ModelSummary;

/// The most images of a request, as in OpenAI's API. The response holds all of them.
const MAX_IMAGES: u64 = 10;

/// The most partial images, as in OpenAI's API.
const MAX_PARTIAL_IMAGES: u64 = 3;

/// The fields without effect, with the values that OpenAI documents; none stand for any string.
const WITHOUT_EFFECT: [(&str, &[&str]); 8] = [
    ("quality", &["auto", "low", "medium", "high", "xhigh", "max", "hd", "standard"]),
    ("style", &["vivid", "natural"]),
    ("background", &["auto", "opaque"]),
    ("complexity", &["low", "medium", "high"]),
    ("moderation", &["auto", "low"]),
    ("input_fidelity", &["high", "low"]),
    ("safety_identifier", &[]),
    ("user", &[]),
];

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct JobContext<'a> {
    /// The id of the job.
    pub(in crate::http) id: &'a str,
    /// The loaded models, the default one first.
    pub(in crate::http) models: &'a [ModelSummary],
    /// The daemon's own limit of the number of images, `limits.count`.
    pub(in crate::http) max_count: u64,
}

/// A job in JSON, and what the response needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct ImageJob {
    /// The job, as on the request topic.
    pub(in crate::http) payload: Bytes,
    /// The number of images.
    pub(in crate::http) count: usize,
    /// The format of the images.
    pub(in crate::http) format: &'static str,
    /// Whether the response is a stream of events.
    pub(in crate::http) is_streamed: bool,
    /// The most previews of all images; `None` without a bound.
    pub(in crate::http) max_previews: Option<usize>,
}

/// Reads the fields of a request in JSON.
pub(in crate::http) fn fields_of_json(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let invalid =
        |message: String| ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), message);
    let document = Document::parse(body)
        .map_err(|message| invalid(format!("the request is not valid JSON: {message}")))?;
    document.read("the request").map_err(|error| ApiError { param: error.field, ..invalid(error.message) })
}

/// Maps the fields of a request to a job.
pub(in crate::http) fn to_job(
    mut fields: Map<String, Value>,
    context: JobContext<'_>,
) -> Result<ImageJob, ApiError> {
    // OpenAI's clients send null for a field that is not set.
    fields.retain(|_, value| !value.is_null());
    let is_streamed = take_stream(&mut fields)?;
    let partial_images = take_partial_images(&mut fields)?;
    refuse_unknown(&fields, |field| WITHOUT_EFFECT.iter().any(|(own, _)| *own == field))?;
    remove_without_effect(&mut fields)?;
    remove_response_format(&mut fields)?;
    let count = take_count(&mut fields, context.max_count)?;
    let size = take_size(&mut fields)?;
    let format = take_format(&mut fields)?;
    let quality = take_compression(&mut fields)?;
    let summary = match fields.get("model").and_then(Value::as_str) {
        Some(name) => context.models.iter().find(|summary| summary.name == name),
        None => context.models.first(),
    };
    // OpenAI's clients always send a prompt.
    let takes_prompt = summary.is_some_and(|summary| summary.takes_prompt);
    if fields.get("prompt").and_then(Value::as_str) == Some("") && !takes_prompt {
        fields.remove("prompt");
    }
    if let Some(partial_images) =
        partial_images.filter(|_| is_streamed && !fields.contains_key("preview_every"))
    {
        let steps = fields.get("steps").and_then(Value::as_u64);
        let steps = steps.or(summary.map(|summary| summary.steps as u64)).unwrap_or_default();
        fields.insert("preview_every".to_owned(), steps.div_ceil(partial_images + 1).max(1).into());
    }
    let mut job = Map::new();
    job.insert("id".to_owned(), context.id.into());
    job.extend(fields);
    let mut insert = |field: &str, value: Option<Value>| {
        job.extend(value.map(|value| (field.to_owned(), value)));
    };
    insert("count", (count > 1).then(|| count.into()));
    insert("width", size.map(|[width, _]| width.into()));
    insert("height", size.map(|[_, height]| height.into()));
    insert("format", (format != "png").then(|| format.into()));
    insert("quality", quality.map(Value::from));
    let payload = Value::Object(job).to_string().into();
    let max_previews = partial_images.map(|number| (number * count) as usize);
    Ok(ImageJob { payload, count: count as usize, format, is_streamed, max_previews })
}

/// The value as an error message describes it: `3`, `the string "ten"`, `an object`.
fn shown(value: &Value) -> String {
    serde_json::from_value::<Json>(value.clone()).map_or_else(|_| value.to_string(), |json| json.to_string())
}

/// An error about a value. `is_type` says whether it is of the right type, and only out of range.
fn wrong(field: &str, value: &Value, is_type: fn(&Value) -> bool, expected: &str) -> ApiError {
    let message = format!("{field} is {}, but must be {expected}", shown(value));
    if is_type(value) { ApiError::of_field(field, message) } else { ApiError::of_type(field, message) }
}

/// Returns whether the images are to come as events while they are made.
fn take_stream(fields: &mut Map<String, Value>) -> Result<bool, ApiError> {
    match fields.remove("stream") {
        None => Ok(false),
        Some(Value::Bool(is_streamed)) => Ok(is_streamed),
        Some(Value::Object(_)) => {
            let message =
                "stream is an object, but jobs of many pictures are only taken over MQTT; use true or false";
            Err(ApiError::of_type("stream", message))
        }
        Some(value) => Err(wrong("stream", &value, Value::is_boolean, "true or false")),
    }
}

/// Returns the number of previews of each image, if there are to be any. They are sent as events only, as OpenAI's are.
fn take_partial_images(fields: &mut Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.remove("partial_images") else { return Ok(None) };
    match value.as_u64() {
        Some(number @ 0..=MAX_PARTIAL_IMAGES) => Ok(Some(number).filter(|number| *number > 0)),
        _ => {
            let expected =
                format!("a whole number from 0 to {MAX_PARTIAL_IMAGES}; use preview_every for more");
            Err(wrong("partial_images", &value, Value::is_number, &expected))
        }
    }
}

fn remove_without_effect(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    for (field, values) in WITHOUT_EFFECT {
        let Some(value) = fields.remove(field) else { continue };
        let text = value.as_str();
        if text.is_some_and(|text| values.is_empty() || values.contains(&text)) {
            continue;
        }
        return Err(match (field, text) {
            ("background", Some("transparent")) => {
                let message =
                    "background is transparent, but the images have no transparency; use opaque or auto";
                ApiError::of_field(field, message)
            }
            ("quality", None) => {
                let message = format!(
                    "quality is {}, but the quality of JPEG images is named output_compression here; use that",
                    shown(&value)
                );
                ApiError::of_type(field, message)
            }
            _ if values.is_empty() => wrong(field, &value, Value::is_string, "a string"),
            _ => wrong(field, &value, Value::is_string, &format!("one of {}", values.join(", "))),
        });
    }
    Ok(())
}

fn remove_response_format(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let field = "response_format";
    match fields.remove(field) {
        None => Ok(()),
        Some(Value::String(format)) if format == "b64_json" => Ok(()),
        Some(Value::String(format)) if format == "url" => {
            let message = "response_format is url, but images are not stored for download; use b64_json";
            Err(ApiError::of_field(field, message))
        }
        Some(value) => Err(wrong(field, &value, Value::is_string, "b64_json")),
    }
}

fn take_count(fields: &mut Map<String, Value>, max_count: u64) -> Result<u64, ApiError> {
    let Some(value) = fields.remove("n") else { return Ok(1) };
    let max = MAX_IMAGES.min(max_count);
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as u64);
    let count = value.as_u64().or_else(|| value.as_f64().and_then(whole));
    count.filter(|count| (1..=max).contains(count)).ok_or_else(|| {
        let key = if max < MAX_IMAGES { " (limits.count)" } else { "" };
        wrong("n", &value, Value::is_number, &format!("a whole number from 1 to {max}{key}"))
    })
}

/// Returns the width and the height.
fn take_size(fields: &mut Map<String, Value>) -> Result<Option<[u64; 2]>, ApiError> {
    let Some(value) = fields.remove("size") else { return Ok(None) };
    let side =
        |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if value == "auto" {
        return Ok(None);
    }
    let sides = value.as_str().and_then(|text| text.split_once(['x', '×']));
    match sides.and_then(|(width, height)| side(width).zip(side(height))) {
        Some((width, height)) => Ok(Some([width, height])),
        None => Err(wrong("size", &value, Value::is_string, "auto, or WIDTHxHEIGHT such as \"512x512\"")),
    }
}

fn take_format(fields: &mut Map<String, Value>) -> Result<&'static str, ApiError> {
    let Some(value) = fields.remove("output_format") else { return Ok("png") };
    let formats = ["png", "jpeg", "webp"];
    let found = formats.into_iter().find(|format| value.as_str() == Some(format));
    found.ok_or_else(|| wrong("output_format", &value, Value::is_string, "png, jpeg or webp"))
}

/// Returns the quality of JPEG images.
fn take_compression(fields: &mut Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.remove("output_compression") else { return Ok(None) };
    match value.as_u64() {
        // 1 is the lowest quality of a job.
        Some(quality @ 0..=100) => Ok(Some(quality.max(1))),
        _ => Err(wrong("output_compression", &value, Value::is_number, "a whole number from 0 to 100")),
    }
}

#[cfg(test)]
mod tests;
