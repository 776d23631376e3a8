//! `denoised fit-preview`: fits the linear map from latents to colors that previews use.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};

use super::CommandError;
use super::engine_argument::EngineArguments;
use super::flag_values::whole_number;
use super::open_model::open_model;
use super::output::check_file;
use super::progress::ProgressDisplay;
use super::stdout::Stdout;
use crate::bundle::Projection;
use crate::model::LatentPipeline;
use crate::tensor::Tensor;
use diffusion_samplers::rng::Generator;

#[derive(Debug, clap::Args)]
pub(super) struct FitPreviewArguments {
    /// The model's directory; the result is added to its denoised.toml
    model: PathBuf,
    /// The number of latents to decode for the fit
    #[arg(long, value_name = "LATENTS", default_value_t = 16, value_parser = whole_number, allow_negative_numbers = true)]
    count: u64,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The height and width of the decoded latents.
const SIDE: usize = 16;

pub(super) fn run(arguments: &FitPreviewArguments) -> Result<(), CommandError> {
    let engine = arguments.engine.options(&arguments.model)?;
    if arguments.count == 0 {
        return Err(CommandError::usage(anyhow!(
            "--count is 0, but must be at least 1; 16 is enough for most models"
        )));
    }
    let path = arguments.model.join("denoised.toml");
    if arguments.model.is_dir() {
        check_file("fit-preview", &path).map_err(CommandError::usage)?;
    }
    let (model, _) = open_model(&arguments.model, &engine)?;
    let latent = model.latent.as_ref().context("the model has no VAE, so its previews need no fit")?;
    if model.bundle.manifest.preview.is_some() {
        return Err(anyhow!("{} already has a [preview]; remove it to fit a new one", path.display()).into());
    }
    let projection = fit(&model.bundle.name, latent, arguments.count)?;
    let section = std::collections::BTreeMap::from([("preview", &projection)]);
    let text = format!("\n{}", toml::to_string(&section).context("cannot write the result as TOML")?);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let (path, count) = (path.display(), arguments.count);
    Ok(writeln!(Stdout, "{path}: added [preview], fitted to {count} decoded latents")?)
}

fn fit(title: &str, latent: &LatentPipeline, count: u64) -> anyhow::Result<Projection> {
    let mut progress = ProgressDisplay::new(title);
    let shape = [latent.components.vae.channels, SIDE, SIDE];
    let mut pairs = Vec::new();
    for seed in 0..count {
        // Coarse patches: noise that varies per pixel does not look like an image's latents.
        let mut coarse = vec![0.0; shape[0] * SIDE / 4 * SIDE / 4];
        Generator::Philox.seeded(seed).fill(&mut coarse);
        let at = |i: usize| {
            let (channel, row, column) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
            coarse[channel * SIDE / 4 * SIDE / 4 + row / 4 * SIDE / 4 + column / 4]
        };
        let sample = Tensor::new(shape, (0..shape.iter().product()).map(at).collect());
        let image = latent.decode(&sample.data, &shape)?;
        pairs.push((sample, downscale(&image)));
        progress.count(pairs.len(), usize::try_from(count).unwrap_or(usize::MAX));
    }
    progress.end();
    match Projection::fit(&pairs) {
        Some(projection) => Ok(projection),
        None => bail!("the decoded latents do not determine the fit; use a larger --count"),
    }
}

/// Averages an image down to the latents' size.
fn downscale(image: &Tensor) -> Tensor {
    let (height, width) = (image.shape[1], image.shape[2]);
    let (rows, columns) = (height / SIDE, width / SIDE);
    let mean = |i: usize| {
        let (color, row, column) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        let start = color * height * width + row * rows * width + column * columns;
        let square = (0..rows).flat_map(|y| &image.data[start + y * width..][..columns]);
        square.sum::<f32>() / (rows * columns) as f32
    };
    Tensor::new([3, SIDE, SIDE], (0..3 * SIDE * SIDE).map(mean).collect())
}
