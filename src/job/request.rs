//! A job as the requester describes it, in JSON.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::id::written_id;
use super::prompt::MAX_SEQUENCE_LENGTH;
use super::stream::{MAX_EVERY_MS, MAX_SILENCE_MS};
use super::validate::limit_key;
use super::{Attachment, ControlRequest, ErrorCode, JobError, JobLimits, LoraRequest, StreamRequest, seed};
use crate::image::Format;
use crate::json_input::{Document, InputError, MAX_EXACT_INTEGER};

/// A request for images. Every field has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The job's name in every response; `[A-Za-z0-9._-]{1,64}`. Default: random.
    pub id: Option<String>,
    /// The model's name. Default: the first model of the configuration.
    pub model: Option<String>,
    /// The sampler's name. Default: the bundle's.
    pub sampler: Option<String>,
    /// The number of sampling steps.
    pub steps: Option<u64>,
    /// The seed of the first image; image i has seed + i. In JSON a number or a string of digits. Default: random,
    /// below 2^53.
    #[serde(default, deserialize_with = "seed::deserialize")]
    pub seed: Option<u64>,
    /// The number of images.
    pub count: Option<u64>,
    /// The class label, for a class-conditional model.
    pub class: Option<i64>,
    /// The guidance scale of classifier-free guidance; 1 turns it off.
    pub guidance: Option<f64>,
    /// The noise of a stochastic sampler, 0 to 1 (η of DDIM).
    pub eta: Option<f64>,
    /// Guidance rescale φ, 0 to 1 (Lin et al. 2024, section 3.4); 0 turns it off.
    pub guidance_rescale: Option<f64>,
    /// The largest norm of a guided prediction, in norms of the prediction with the prompt; 0 bounds nothing (Z-Image).
    pub cfg_normalization: Option<f64>,
    /// The share of the way from noise to the image after which guidance ends; 1 never ends it (Z-Image).
    pub cfg_truncation: Option<f64>,
    /// The text that the image should follow.
    pub prompt: Option<String>,
    /// The text that the image should avoid.
    pub negative_prompt: Option<String>,
    /// The prompt of the second text encoder. Default: `prompt`.
    pub prompt_2: Option<String>,
    /// The negative prompt of the second text encoder. Default: `negative_prompt`.
    pub negative_prompt_2: Option<String>,
    /// The number of CLIP's last layers to skip.
    pub clip_skip: Option<u64>,
    /// The number of tokens for T5 or a language model, 1 to 512.
    pub max_sequence_length: Option<u64>,
    /// The image's width in pixels.
    pub width: Option<u64>,
    /// The image's height in pixels.
    pub height: Option<u64>,
    /// SDXL `original_size` micro-conditioning: height, width.
    pub original_size: Option<[u64; 2]>,
    /// SDXL `crops_coords_top_left` micro-conditioning: top, left.
    pub crop: Option<[u64; 2]>,
    /// SDXL `target_size` micro-conditioning: height, width.
    pub target_size: Option<[u64; 2]>,
    /// The init image of img2img or inpainting. An array has float32 values from -1 (black) to 1 (white), or those of
    /// `sample.range`.
    pub image: Option<Attachment>,
    /// The inpainting mask: white pixels are repainted, and in an array those of 1.
    pub mask: Option<Attachment>,
    /// img2img strength, 0 to 1: how much noise is added to the image; 1 ignores it.
    pub strength: Option<f64>,
    /// The values of the model's further conditions.
    pub conditions: Option<BTreeMap<String, f64>>,
    /// The noise generator: `torch` or `philox`.
    pub noise: Option<String>,
    /// The format of the images.
    pub format: Option<Format>,
    /// The quality of JPEG images, 1 to 100.
    pub quality: Option<u64>,
    /// Publish a preview of x̂₀ after every n evaluations.
    pub preview_every: Option<u64>,
    /// Reduce the steps to what fits into this many milliseconds, and fail after them.
    pub deadline_ms: Option<u64>,
    /// Jobs with a higher priority enter a full batch first.
    pub priority: Option<i32>,
    /// Evaluate each image in a batch of its own.
    pub exact: Option<bool>,
    /// The LoRAs that change the model, at most 16.
    pub loras: Option<Vec<LoraRequest>>,
    /// The pictures that steer the job through ControlNets, at most 8.
    pub controls: Option<Vec<ControlRequest>>,
    /// Control only the evaluations with the prompt, and the middle of the network more than its first levels; the prompt may
    /// then be empty.
    pub guess_mode: Option<bool>,
    /// The topic whose pictures the job draws from until it is cancelled or its deadline passes.
    pub stream: Option<StreamRequest>,
}

/// Parses a request. An error names the field, and comes with the request's id as the sender wrote it, if it can be
/// read; it may be no valid one.
pub fn parse(payload: &[u8]) -> Result<Request, (Option<String>, JobError)> {
    parse_with(payload, "the request", |document, subject| read_request(document, subject, None))
}

/// Parses a request of a daemon with these limits, which an error about a number states.
pub fn parse_within(payload: &[u8], limits: JobLimits) -> Result<Request, (Option<String>, JobError)> {
    parse_with(payload, "the request", |document, subject| read_request(document, subject, Some(limits)))
}

/// Parses a message that a requester sends; `subject` is its name in errors.
pub(super) fn parse_as<T: DeserializeOwned>(
    payload: &[u8],
    subject: &str,
) -> Result<T, (Option<String>, JobError)> {
    parse_with(payload, subject, |document, subject| document.read(subject).map_err(bad_request))
}

fn parse_with<T>(
    payload: &[u8],
    subject: &str,
    read: impl FnOnce(&Document, &str) -> Result<T, JobError>,
) -> Result<T, (Option<String>, JobError)> {
    let parsed = Document::parse(payload).map_err(|message| {
        JobError::new(ErrorCode::BadRequest, format!("{subject} is not valid JSON: {message}"))
    });
    parsed.and_then(|document| read(&document, subject)).map_err(|error| (written_id(payload), error))
}

fn bad_request(error: InputError) -> JobError {
    JobError { code: ErrorCode::BadRequest, field: error.field, message: error.message }
}

/// Reads a request; `subject` is its name in errors.
pub(crate) fn read_request(
    document: &Document,
    subject: &str,
    limits: Option<JobLimits>,
) -> Result<Request, JobError> {
    document.read(subject).map_err(|error| {
        let field = error.field.clone().unwrap_or_default();
        let found = document.at(&field).filter(|value| value.is_no_count());
        match found.zip(range(&field, limits)) {
            Some((found, (min, max))) => {
                let is_negative = found.to_string().starts_with('-');
                let key = limits.filter(|_| !is_negative).map_or("", |_| limit_key(&field, max));
                let message = format!("{field} is {found}, but must lie between {min} and {max}{key}");
                JobError::out_of_range(&field, message)
            }
            None => bad_request(error),
        }
    })
}

/// The range of a field that counts something.
fn range(field: &str, limits: Option<JobLimits>) -> Option<(u64, u64)> {
    let most = |limit: fn(JobLimits) -> u64| limits.map_or(MAX_EXACT_INTEGER, limit);
    match field {
        "steps" => Some((1, most(|limits| limits.steps))),
        "count" => Some((1, most(|limits| limits.count))),
        "width" | "height" => Some((1, most(|limits| limits.pixels))),
        "max_sequence_length" => Some((1, MAX_SEQUENCE_LENGTH)),
        "preview_every" => Some((1, MAX_EXACT_INTEGER)),
        "stream.every_ms" => Some((0, MAX_EVERY_MS)),
        "stream.silence_ms" => Some((1, MAX_SILENCE_MS)),
        "clip_skip" | "deadline_ms" | "class" => Some((0, MAX_EXACT_INTEGER)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The range was that of a 64-bit number.
    #[test]
    fn a_number_out_of_range_was_reported_with_the_range_of_the_type() {
        let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
        for (payload, message) in [
            (r#"{"steps": -1}"#, "steps is -1, but must lie between 1 and 1000"),
            (r#"{"steps": 1e30}"#, "steps is 1e30, but must lie between 1 and 1000 (limits.steps)"),
            (r#"{"count": -2}"#, "count is -2, but must lie between 1 and 64"),
            (
                r#"{"preview_every": 1e30}"#,
                "preview_every is 1e30, but must lie between 1 and 9007199254740991",
            ),
            (r#"{"deadline_ms": -1}"#, "deadline_ms is -1, but must lie between 0 and 9007199254740991"),
            (
                r#"{"stream": {"topic": "a", "every_ms": -1}}"#,
                "stream.every_ms is -1, but must lie between 0 and 3600000",
            ),
            (r#"{"max_sequence_length": -1}"#, "max_sequence_length is -1, but must lie between 1 and 512"),
        ] {
            let (_, error) = parse_within(payload.as_bytes(), limits).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::OutOfRange, message));
        }
        let (_, error) = parse(br#"{"steps": 1.5}"#).unwrap_err();
        assert_eq!(error.message, "steps is 1.5, but must be an integer, 0 or more");
    }

    #[test]
    fn an_error_names_the_field_and_has_the_id_that_the_sender_wrote() {
        for (payload, id, field, message) in [
            ("{", None, None, "the request is not valid JSON: it ends before an object is closed by `}`"),
            ("3", None, None, "the request is 3, but must be an object"),
            (
                r#"{"id": "a", "steps": "ten"}"#,
                Some("a"),
                Some("steps"),
                "steps is the string \"ten\", but must be an integer, 0 or more",
            ),
            (r#"{"id": ["x"]}"#, Some("[\"x\"]"), Some("id"), "id is an array, but must be a string"),
            (
                r#"{"image": 3}"#,
                None,
                Some("image"),
                "image: an image is a string, a PNG, JPEG, WebP or .npy file in base64, or {\"topic\": \"…\"}, the topic of a \
                 retained message with such a file",
            ),
        ] {
            let (written, error) = parse(payload.as_bytes()).unwrap_err();
            assert_eq!((written.as_deref(), error.field.as_deref()), (id, field), "{payload}");
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::BadRequest, message));
        }
    }

    #[test]
    fn whole_floats_are_integers_in_every_field() {
        let floats =
            br#"{"steps": 3.0, "seed": 7.0, "count": 1e1, "class": 2.0, "clip_skip": 1.0, "width": 64.0,
            "original_size": [64.0, 64.0], "quality": 80.0, "preview_every": 5.0, "deadline_ms": 1.5e3, "priority": -1.0}"#;
        let integers = br#"{"steps": 3, "seed": 7, "count": 10, "class": 2, "clip_skip": 1, "width": 64,
            "original_size": [64, 64], "quality": 80, "preview_every": 5, "deadline_ms": 1500, "priority": -1}"#;
        assert_eq!(parse(floats).unwrap(), parse(integers).unwrap());
    }
}
