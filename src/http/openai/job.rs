//! A request for images in OpenAI's fields becomes a job in the fields of requests over MQTT.
//!
//! Free of I/O. OpenAI's API reference, "Images": <https://platform.openai.com/docs/api-reference/images>.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::job::ErrorCode;
use crate::json_input::{Document, Json};

/// The most images of a request, as in OpenAI's API. The response holds all of them.
const MAX_IMAGES: u64 = 10;

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

/// Fields of jobs that these requests do not have, and what to do instead.
const NOT_FOR_HTTP: [(&str, &str); 5] = [
    ("id", "is chosen by the daemon; remove it"),
    ("count", "is named n here; use n"),
    ("width", "is part of size here; use size, such as \"512x512\""),
    ("height", "is part of size here; use size, such as \"512x512\""),
    ("format", "is named output_format here; use output_format"),
];

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct JobContext<'a> {
    /// The id of the job.
    pub(in crate::http) id: &'a str,
    /// The name of the model of requests without one.
    pub(in crate::http) default_model: &'a str,
    /// The names of the models that take a prompt.
    pub(in crate::http) text_models: &'a BTreeSet<String>,
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
}

/// Reads the fields of a request in JSON.
pub(in crate::http) fn fields_of_json(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let invalid =
        |message: String| ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), message);
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(value) => Err(invalid(format!("the request is {}, but must be an object", shown(&value)))),
        Err(error) => {
            let message = Document::parse(body).err().unwrap_or_else(|| error.to_string());
            Err(invalid(format!("the request is not valid JSON: {message}")))
        }
    }
}

/// Maps the fields of a request to a job.
pub(in crate::http) fn to_job(
    mut fields: Map<String, Value>,
    context: JobContext<'_>,
) -> Result<ImageJob, ApiError> {
    // OpenAI's clients send null for a field that is not set.
    fields.retain(|_, value| !value.is_null());
    refuse_streaming(&mut fields)?;
    if let Some((field, advice)) = NOT_FOR_HTTP.iter().find(|(field, _)| fields.contains_key(*field)) {
        return Err(ApiError::of_field(field, format!("{field} {advice}")));
    }
    remove_without_effect(&mut fields)?;
    remove_response_format(&mut fields)?;
    let count = take_count(&mut fields, context.max_count)?;
    let size = take_size(&mut fields)?;
    let format = take_format(&mut fields)?;
    let quality = take_compression(&mut fields)?;
    let model = fields.get("model").and_then(Value::as_str).unwrap_or(context.default_model);
    // OpenAI's clients always send a prompt.
    if fields.get("prompt").and_then(Value::as_str) == Some("") && !context.text_models.contains(model) {
        fields.remove("prompt");
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
    Ok(ImageJob { payload: Value::Object(job).to_string().into(), count: count as usize, format })
}

/// The value as an error message describes it: `3`, `the string "ten"`, `an object`.
fn shown(value: &Value) -> String {
    serde_json::from_value::<Json>(value.clone()).map_or_else(|_| value.to_string(), |json| json.to_string())
}

fn wrong(field: &str, value: &Value, expected: &str) -> ApiError {
    ApiError::of_field(field, format!("{field} is {}, but must be {expected}", shown(value)))
}

/// Refuses partial images and events, which OpenAI's API sends while an image is made.
fn refuse_streaming(fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    match fields.remove("stream") {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            let message = "stream is true, but partial images are not sent over HTTP; remove it, or use previews over MQTT";
            return Err(ApiError::of_field("stream", message));
        }
        Some(Value::Object(_)) => {
            let message =
                "stream is an object, but jobs of many pictures are only taken over MQTT; remove it";
            return Err(ApiError::of_field("stream", message));
        }
        Some(value) => return Err(wrong("stream", &value, "true or false")),
    }
    match fields.remove("partial_images") {
        Some(value) if value.as_u64() != Some(0) => Err(wrong("partial_images", &value, "0")),
        _ => Ok(()),
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
                ApiError::of_field(field, message)
            }
            _ if values.is_empty() => wrong(field, &value, "a string"),
            _ => wrong(field, &value, &format!("one of {}", values.join(", "))),
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
        Some(value) => Err(wrong(field, &value, "b64_json")),
    }
}

fn take_count(fields: &mut Map<String, Value>, max_count: u64) -> Result<u64, ApiError> {
    let Some(value) = fields.remove("n") else { return Ok(1) };
    let max = MAX_IMAGES.min(max_count);
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as u64);
    let count = value.as_u64().or_else(|| value.as_f64().and_then(whole));
    count.filter(|count| (1..=max).contains(count)).ok_or_else(|| {
        let key = if max < MAX_IMAGES { " (limits.count)" } else { "" };
        wrong("n", &value, &format!("a whole number from 1 to {max}{key}"))
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
        None => Err(wrong("size", &value, "auto, or WIDTHxHEIGHT such as \"512x512\"")),
    }
}

fn take_format(fields: &mut Map<String, Value>) -> Result<&'static str, ApiError> {
    let Some(value) = fields.remove("output_format") else { return Ok("png") };
    let formats = ["png", "jpeg", "webp"];
    let found = formats.into_iter().find(|format| value.as_str() == Some(format));
    found.ok_or_else(|| wrong("output_format", &value, "png, jpeg or webp"))
}

/// Returns the quality of JPEG images.
fn take_compression(fields: &mut Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.remove("output_compression") else { return Ok(None) };
    match value.as_u64() {
        // 1 is the lowest quality of a job.
        Some(quality @ 0..=100) => Ok(Some(quality.max(1))),
        _ => Err(wrong("output_compression", &value, "a whole number from 0 to 100")),
    }
}

#[cfg(test)]
mod tests;
