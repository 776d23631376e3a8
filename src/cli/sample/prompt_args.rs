//! What `sample` is told in words and pictures.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::job::{Attachment, Request};

/// What is to be drawn.
#[derive(Debug, clap::Args)]
pub(super) struct Prompts {
    /// What is to be drawn, in words
    #[arg(long)]
    prompt: Option<String>,
    /// What is not to be drawn
    #[arg(long)]
    negative_prompt: Option<String>,
    /// The prompt for the second text encoder
    #[arg(long)]
    prompt_2: Option<String>,
    /// What is not to be drawn, for the second text encoder
    #[arg(long)]
    negative_prompt_2: Option<String>,
    /// How much of a guided prediction's spread is brought back, 0 to 1
    #[arg(long)]
    guidance_rescale: Option<f64>,
    /// How many of CLIP's last layers are left out
    #[arg(long)]
    clip_skip: Option<u64>,
    /// How many tokens T5 takes
    #[arg(long)]
    max_sequence_length: Option<u64>,
}

/// The picture, and the one from which it begins.
#[derive(Debug, clap::Args)]
pub(super) struct PictureArguments {
    /// The picture's width in pixels
    #[arg(long)]
    width: Option<u64>,
    /// The picture's height in pixels
    #[arg(long)]
    height: Option<u64>,
    /// A picture from which to begin: PNG, JPEG or .npy
    #[arg(long)]
    image: Option<PathBuf>,
    /// Which part of the picture is drawn anew: white, or 1 in a .npy
    #[arg(long)]
    mask: Option<PathBuf>,
    /// How much of the way is gone from the picture, 0 to 1
    #[arg(long)]
    strength: Option<f64>,
    /// SDXL: HEIGHT,WIDTH that the picture is to look as if it had been
    #[arg(long, value_name = "H,W", value_parser = pair)]
    original_size: Option<[u64; 2]>,
    /// SDXL: TOP,LEFT at which it is to look cropped
    #[arg(long, value_name = "T,L", value_parser = pair)]
    crop: Option<[u64; 2]>,
    /// SDXL: HEIGHT,WIDTH that it is to look made for
    #[arg(long, value_name = "H,W", value_parser = pair)]
    target_size: Option<[u64; 2]>,
}

impl Prompts {
    pub(super) fn request(&self) -> Request {
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

impl PictureArguments {
    /// A request with these pictures too, read from their files.
    pub(super) fn request(&self, request: Request) -> anyhow::Result<Request> {
        Ok(Request {
            width: self.width,
            height: self.height,
            image: file("--image", self.image.as_deref())?,
            mask: file("--mask", self.mask.as_deref())?,
            strength: self.strength,
            original_size: self.original_size,
            crop: self.crop,
            target_size: self.target_size,
            ..request
        })
    }
}

/// Two numbers parted by a comma.
fn pair(text: &str) -> Result<[u64; 2], String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| <[u64; 2]>::try_from(numbers).ok());
    numbers.ok_or_else(|| "two whole numbers parted by a comma are needed, as 512,768".to_owned())
}

/// A file's bytes as a request has them.
fn file(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<Attachment>> {
    let Some(path) = path else { return Ok(None) };
    let bytes = std::fs::read(path).with_context(|| format!("{flag} {}", path.display()))?;
    Ok(Some(Attachment::from_bytes(&bytes)))
}
