//! A job as the requester describes it, in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Attachment, ErrorCode, JobError};
use crate::image::Format;
use crate::serde_message::{DocumentFormat, without_rust_types};

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
    /// The seed of the first image; image i has seed + i. Default: random.
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
    /// Publish a preview of x̂₀ after every n evaluations.
    pub preview_every: Option<u64>,
    /// Reduce the steps to what fits into this many milliseconds, and fail after them.
    pub deadline_ms: Option<u64>,
    /// Jobs with a higher priority enter a full batch first.
    pub priority: Option<i32>,
    /// Evaluate each image in a batch of its own.
    pub exact: Option<bool>,
}

/// Parses a request. An error names the field, and comes with the request's id if that can be read.
pub fn parse(payload: &[u8]) -> Result<Request, (Option<String>, JobError)> {
    parse_fields(payload).map_err(|error| (readable_id(payload), error))
}

fn parse_fields(payload: &[u8]) -> Result<Request, JobError> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let request = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let reason = without_rust_types(&error.inner().to_string(), DocumentFormat::Json);
        if field == "." {
            JobError::new(ErrorCode::BadRequest, format!("the request is not valid JSON: {reason}"))
        } else {
            JobError::of_field(ErrorCode::BadRequest, &field, format!("{field}: {reason}"))
        }
    })?;
    json.end()
        .map_err(|error| JobError::new(ErrorCode::BadRequest, format!("after the request: {error}")))?;
    Ok(request)
}

fn readable_id(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: String,
    }
    let OnlyId { id } = serde_json::from_slice(payload).ok()?;
    is_id(&id).then_some(id)
}

/// Returns whether this is a valid job id.
pub fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_is_reported_without_rust_types() {
        let (id, error) = parse(br#"{"id": "a", "steps": "ten"}"#).unwrap_err();
        assert_eq!((id.as_deref(), error.field.as_deref()), (Some("a"), Some("steps")));
        assert!(error.message.contains("expected a whole number, 0 or more"), "{error}");
        let (id, error) = parse(b"3").unwrap_err();
        assert_eq!((id, error.code), (None, ErrorCode::BadRequest));
        assert!(error.message.contains("expected an object"), "{error}");
    }
}
