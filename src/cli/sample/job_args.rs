//! The flags of `sample` for the fields of a request.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::flag_values::{named_number, number, pair, whole_number};
use crate::cli::picture_file;
use crate::image::Format;
use crate::job::{Attachment, Request};

/// Flags for the sampler and the conditions of every model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// The sampler's name; `inspect` lists them [default: the model's]
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,
    /// The number of sampling steps, 1 to 100000 [default: the model's]
    #[arg(long, value_name = "STEPS", value_parser = whole_number, allow_negative_numbers = true)]
    steps: Option<u64>,
    /// The seed of the first image; image i has seed + i [default: random]
    #[arg(long, value_name = "SEED", value_parser = whole_number, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// The number of images, 1 to 10000 [default: 1, or as in --init-noise]
    #[arg(long, value_name = "COUNT", value_parser = whole_number, allow_negative_numbers = true)]
    count: Option<u64>,
    /// The class, for a class-conditional model: its number from 0, or its name in denoised.toml
    #[arg(long, value_name = "CLASS", allow_negative_numbers = true)]
    pub(super) class: Option<String>,
    /// Further conditions of the model, by their names in denoised.toml
    #[arg(long, value_name = "NAME=NUMBER,…", value_parser = named_number, value_delimiter = ',')]
    conditions: Vec<(String, f64)>,
    /// The guidance scale, 0 to 100; 1 turns guidance off [default: the model's]
    #[arg(long, value_name = "SCALE", value_parser = number, allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Guidance rescale, 0 to 1; 0 turns it off [default: 0]
    #[arg(long, value_name = "FACTOR", value_parser = number, allow_negative_numbers = true)]
    guidance_rescale: Option<f64>,
    /// The largest norm of a guided prediction, in norms of the one with the prompt; 0 bounds nothing (Z-Image)
    /// [default: 0]
    #[arg(long, value_name = "FACTOR", value_parser = number, allow_negative_numbers = true)]
    cfg_normalization: Option<f64>,
    /// The share of the way from noise to the image after which guidance ends, 0 to 1 (Z-Image) [default: 1]
    #[arg(long, value_name = "SHARE", value_parser = number, allow_negative_numbers = true)]
    cfg_truncation: Option<f64>,
    /// The noise of a stochastic sampler, 0 (none) to 1 (all) [default: the sampler's]
    #[arg(long, value_name = "FACTOR", value_parser = number, allow_negative_numbers = true)]
    eta: Option<f64>,
    /// The noise generator: torch or philox [default: torch]
    #[arg(long, value_name = "GENERATOR")]
    noise: Option<String>,
    /// Evaluate each image in a batch of its own
    #[arg(long)]
    exact: bool,
    /// Reduce the steps to what fits into this time, and fail after it
    #[arg(long, value_name = "MILLISECONDS", value_parser = whole_number, allow_negative_numbers = true)]
    deadline_ms: Option<u64>,
    /// The format of the files in a directory: png, jpeg, webp or npy [default: png]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// The quality of JPEG files, 1 to 100 [default: 95]
    #[arg(long, value_name = "QUALITY", value_parser = whole_number, allow_negative_numbers = true)]
    quality: Option<u64>,
}

/// Flags for text-to-image models.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Text")]
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
    /// The number of CLIP's last layers to skip [default: 0]
    #[arg(long, value_name = "LAYERS", value_parser = whole_number, allow_negative_numbers = true)]
    clip_skip: Option<u64>,
    /// The number of tokens for T5 or a language model, 1 to 512 [default: the model's]
    #[arg(long, value_name = "TOKENS", value_parser = whole_number, allow_negative_numbers = true)]
    max_sequence_length: Option<u64>,
}

/// Flags for the image's size, img2img and inpainting.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub(super) struct ImageArguments {
    /// The image's width in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = whole_number, allow_negative_numbers = true)]
    width: Option<u64>,
    /// The image's height in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = whole_number, allow_negative_numbers = true)]
    height: Option<u64>,
    /// The image to start from: PNG, JPEG, WebP, or .npy of float32 from -1 (black) to 1 (white)
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The inpainting mask: white, or 1 in a .npy, is repainted
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// img2img strength, 0 to 1: how much noise is added to the image; 1 leaves almost nothing of it [default: the model's]
    #[arg(long, value_name = "FACTOR", value_parser = number, allow_negative_numbers = true)]
    strength: Option<f64>,
    /// SDXL original_size micro-conditioning, in pixels [default: the image's size]
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = pair)]
    original_size: Option<[u64; 2]>,
    /// SDXL crop micro-conditioning, in pixels [default: 0,0]
    #[arg(long, value_name = "TOP,LEFT", value_parser = pair)]
    crop: Option<[u64; 2]>,
    /// SDXL target_size micro-conditioning, in pixels [default: the image's size]
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = pair)]
    target_size: Option<[u64; 2]>,
}

/// Returns the fields that have a flag, and reads the pictures. A class may be a name that only the model knows.
pub(super) fn to_request(
    sampling: &SamplingArguments,
    prompts: &PromptArguments,
    image: &ImageArguments,
) -> anyhow::Result<Request> {
    Ok(Request {
        sampler: sampling.sampler.clone(),
        steps: sampling.steps,
        seed: sampling.seed,
        count: sampling.count,
        conditions: (!sampling.conditions.is_empty()).then(|| sampling.conditions.iter().cloned().collect()),
        guidance: sampling.guidance,
        guidance_rescale: sampling.guidance_rescale,
        cfg_normalization: sampling.cfg_normalization,
        cfg_truncation: sampling.cfg_truncation,
        eta: sampling.eta,
        noise: sampling.noise.clone(),
        exact: sampling.exact.then_some(true),
        deadline_ms: sampling.deadline_ms,
        format: sampling.format,
        quality: sampling.quality,
        prompt: prompts.prompt.clone(),
        negative_prompt: prompts.negative_prompt.clone(),
        prompt_2: prompts.prompt_2.clone(),
        negative_prompt_2: prompts.negative_prompt_2.clone(),
        clip_skip: prompts.clip_skip,
        max_sequence_length: prompts.max_sequence_length,
        width: image.width,
        height: image.height,
        image: read("--image", image.image.as_deref())?,
        mask: read("--mask", image.mask.as_deref())?,
        strength: image.strength,
        original_size: image.original_size,
        crop: image.crop,
        target_size: image.target_size,
        ..Request::default()
    })
}

/// Parses the name of a format.
fn format(name: &str) -> Result<Format, String> {
    let names = Format::ALL.map(Format::name);
    Format::from_name(name).ok_or_else(|| format!("expected one of: {}", names.join(", ")))
}

fn read(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<Attachment>> {
    let Some(path) = path else { return Ok(None) };
    let bytes = picture_file::read(path).with_context(|| flag.to_owned())?;
    Ok(Some(Attachment::from_bytes(&bytes)))
}
