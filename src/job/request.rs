//! A job as the requester describes it, in JSON.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::id::written_id;
use super::{Attachment, ErrorCode, JobError, seed};
use crate::image::Format;
use crate::json_input::Document;

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
    /// The number of tokens for T5, 1 to 512.
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
    /// The init image of img2img or inpainting.
    pub image: Option<Attachment>,
    /// The inpainting mask: white pixels are repainted.
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
}

/// Parses a request. An error names the field, and comes with the request's id as the sender wrote it, if it can be
/// read; it may be no valid one.
pub fn parse(payload: &[u8]) -> Result<Request, (Option<String>, JobError)> {
    parse_as(payload, "the request")
}

/// Parses a message that a requester sends; `subject` is its name in errors.
pub(super) fn parse_as<T: DeserializeOwned>(
    payload: &[u8],
    subject: &str,
) -> Result<T, (Option<String>, JobError)> {
    let parsed = Document::parse(payload).map_err(|message| {
        JobError::new(ErrorCode::BadRequest, format!("{subject} is not valid JSON: {message}"))
    });
    let read = parsed.and_then(|document| {
        document.read(subject).map_err(|error| JobError {
            code: ErrorCode::BadRequest,
            field: error.field,
            message: error.message,
        })
    });
    read.map_err(|error| (written_id(payload), error))
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "image: an image is a string, a PNG, JPEG or WebP file in base64, or {\"topic\": \"…\"}, the topic of a \
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
