//! The flags of `sample` for prompts and images.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::job::{Attachment, Request};

/// Flags for text-to-image models.
#[derive(Debug, clap::Args)]
pub(super) struct PromptArguments {
    /// The text that the image should follow
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The text that the image should avoid
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// The prompt of the second text encoder [default: --prompt]
    #[arg(long, value_name = "TEXT")]
    prompt_2: Option<String>,
    /// The negative prompt of the second text encoder [default: --negative-prompt]
    #[arg(long, value_name = "TEXT")]
    negative_prompt_2: Option<String>,
    /// Guidance rescale, 0 to 1; 0 turns it off
    #[arg(long, value_name = "FACTOR")]
    guidance_rescale: Option<f64>,
    /// The number of CLIP's last layers to skip
    #[arg(long, value_name = "LAYERS")]
    clip_skip: Option<u64>,
    /// The number of tokens for T5, 1 to 512
    #[arg(long, value_name = "TOKENS")]
    max_sequence_length: Option<u64>,
}

/// Flags for the image's size, img2img and inpainting.
#[derive(Debug, clap::Args)]
pub(super) struct ImageArguments {
    /// The image's width in pixels
    #[arg(long, value_name = "PIXELS")]
    width: Option<u64>,
    /// The image's height in pixels
    #[arg(long, value_name = "PIXELS")]
    height: Option<u64>,
    /// The image to start from: PNG, JPEG or .npy
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The inpainting mask: white, or 1 in a .npy, is repainted
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// img2img strength, 0 to 1: how much noise is added to the image; 1 ignores it
    #[arg(long, value_name = "FACTOR")]
    strength: Option<f64>,
    /// SDXL original_size micro-conditioning, in pixels
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = pair)]
    original_size: Option<[u64; 2]>,
    /// SDXL crop micro-conditioning, in pixels
    #[arg(long, value_name = "TOP,LEFT", value_parser = pair)]
    crop: Option<[u64; 2]>,
    /// SDXL target_size micro-conditioning, in pixels
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = pair)]
    target_size: Option<[u64; 2]>,
}

impl PromptArguments {
    pub(super) fn to_request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            prompt_2: self.prompt_2.clone(),
            negative_prompt_2: self.negative_prompt_2.clone(),
            guidance_rescale: self.guidance_rescale,
            clip_skip: self.clip_skip,
            max_sequence_length: self.max_sequence_length,
            ..Request::default()
        }
    }
}

impl ImageArguments {
    /// Adds these flags to a request, and reads the files.
    pub(super) fn add_to(&self, request: Request) -> anyhow::Result<Request> {
        Ok(Request {
            width: self.width,
            height: self.height,
            image: read("--image", self.image.as_deref())?,
            mask: read("--mask", self.mask.as_deref())?,
            strength: self.strength,
            original_size: self.original_size,
            crop: self.crop,
            target_size: self.target_size,
            ..request
        })
    }
}

/// Parses two numbers with a comma between them.
fn pair(text: &str) -> Result<[u64; 2], String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| <[u64; 2]>::try_from(numbers).ok());
    numbers.ok_or_else(|| "write two whole numbers with a comma between them, such as 512,768".to_owned())
}

fn read(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<Attachment>> {
    let Some(path) = path else { return Ok(None) };
    let bytes = std::fs::read(path).with_context(|| format!("{flag} {}", path.display()))?;
    Ok(Some(Attachment::from_bytes(&bytes)))
}
