//! `denoised fit-preview`: how a bundle's latents are shown before they are finished.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::Failure;
use super::stdout::Stdout;
use crate::bundle::Projection;
use crate::inference::EngineKind;
use crate::model::{LatentPipeline, Model};
use crate::tensor::Tensor;
use diffusion_samplers::rng::Generator;

/// What `fit-preview` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle's directory, in whose denoised.toml the result is written
    model: PathBuf,
    /// How many latents are decoded
    #[arg(long, default_value_t = 16)]
    count: u64,
    /// The engine
    #[arg(long, value_parser = super::engine_kind())]
    engine: Option<EngineKind>,
}

/// Latents of this height and width are decoded.
const SIDE: usize = 16;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let engine = super::engine(&arguments.model, arguments.engine)?;
    let model = Model::load(&arguments.model, &engine)?;
    let latent =
        model.latent.as_ref().context("this bundle draws no latents, so that nothing is to be fitted")?;
    if model.bundle.manifest.preview.is_some() {
        return Err(anyhow::anyhow!("denoised.toml has a [preview] already; remove it first").into());
    }
    let projection = fit(latent, arguments.count)?;
    let section = std::collections::BTreeMap::from([("preview", &projection)]);
    let text = format!("\n{}", toml::to_string(&section).context("the result can't be written")?);
    let path = arguments.model.join("denoised.toml");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())?;
    let (path, count) = (path.display(), arguments.count);
    Ok(writeln!(Stdout, "{path}: [preview] was added, fitted to {count} pictures")?)
}

fn fit(latent: &LatentPipeline, count: u64) -> anyhow::Result<Projection> {
    let shape = [latent.components.vae.channels, SIDE, SIDE];
    let mut pairs = Vec::new();
    for seed in 0..count {
        // Of coarse patches, since what varies from pixel to pixel is no picture.
        let mut coarse = vec![0.0; shape[0] * SIDE / 4 * SIDE / 4];
        Generator::Philox.seeded(seed).fill(&mut coarse);
        let at = |i: usize| {
            let (channel, row, column) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
            coarse[channel * SIDE / 4 * SIDE / 4 + row / 4 * SIDE / 4 + column / 4]
        };
        let sample = Tensor::new(shape, (0..shape.iter().product()).map(at).collect());
        let picture = latent.decode(&sample.data, &shape)?;
        pairs.push((sample, smaller(&picture)));
    }
    match Projection::fit(&pairs) {
        Some(projection) => Ok(projection),
        None => bail!("the decoder's pictures say too little; take a larger --count"),
    }
}

/// A picture at the latents' size: the mean of each square.
fn smaller(picture: &Tensor) -> Tensor {
    let (height, width) = (picture.shape[1], picture.shape[2]);
    let (rows, columns) = (height / SIDE, width / SIDE);
    let mean = |i: usize| {
        let (color, row, column) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        let start = color * height * width + row * rows * width + column * columns;
        let square = (0..rows).flat_map(|y| &picture.data[start + y * width..][..columns]);
        square.sum::<f32>() / (rows * columns) as f32
    };
    Tensor::new([3, SIDE, SIDE], (0..3 * SIDE * SIDE).map(mean).collect())
}
