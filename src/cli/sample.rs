//! `denoised sample`: one job without MQTT.

mod given_noise;
mod output;
mod prompt_args;

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::Failure;
use super::progress::Progress;
use crate::bundle::SchedulerConfig;
use crate::inference::EngineKind;
use crate::job::{Job, JobLimits, ModelCard, Request};
use crate::model::Model;
use crate::pipeline::{Event, Pipeline};
use given_noise::GivenNoise;
use output::Output;
use prompt_args::{PictureArguments, Prompts};

/// What one may ask for where nobody else waits.
const LIMITS: JobLimits = JobLimits { steps: 100_000, count: 10_000, pixels: 1 << 28, memory: None };

/// What `sample` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle's directory
    model: PathBuf,
    /// .png: one image, or a grid; .npy: raw float32 samples; a directory: one PNG each
    #[arg(long)]
    output: PathBuf,
    /// The sampler's name, as `inspect` lists them
    #[arg(long)]
    sampler: Option<String>,
    /// The number of steps
    #[arg(long)]
    steps: Option<u64>,
    /// The first image's seed; image i uses seed + i [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// How many images
    #[arg(long)]
    count: Option<u64>,
    /// The class
    #[arg(long)]
    class: Option<i64>,
    /// The weight of guidance; 1 is none
    #[arg(long)]
    guidance: Option<f64>,
    /// How much noise a stochastic sampler adds: 0 is none, 1 the whole of it
    #[arg(long)]
    eta: Option<f64>,
    /// Another scheduler_config.json than the bundle's
    #[arg(long)]
    scheduler: Option<PathBuf>,
    /// Standard normal noise [N, …] in place of the seed's, as .npy
    #[arg(long)]
    init_noise: Option<PathBuf>,
    /// Noise [K, N, …] fed in the order in which the sampler draws it, as .npy
    #[arg(long)]
    step_noise: Option<PathBuf>,
    #[command(flatten)]
    words: Prompts,
    #[command(flatten)]
    picture: PictureArguments,
    /// Write the final latents [N, C, H, W] too, as .npy
    #[arg(long)]
    latents: Option<PathBuf>,
    /// The generator behind a seed: torch or philox
    #[arg(long)]
    noise: Option<String>,
    /// The engine
    #[arg(long, value_parser = super::engine_kind())]
    engine: Option<EngineKind>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let engine = super::engine(&arguments.model, arguments.engine)?;
    let output = Output::of(&arguments.output).map_err(Failure::usage)?;
    let mut model = Model::load(&arguments.model, &engine)?;
    if let Some(path) = &arguments.scheduler {
        model.bundle.scheduler = SchedulerConfig::read(path)?;
        // The file's own class counts, not the bundle's default.
        model.bundle.manifest.default.sampler = None;
    }
    let job = job(arguments, &ModelCard::of(&model)).map_err(Failure::usage)?;
    let noise = GivenNoise::read(arguments.init_noise.as_deref(), arguments.step_noise.as_deref(), &job)
        .map_err(Failure::usage)?;
    let Drawn { samples, latents, cut } = draw(model, &job, &noise)?;
    noise.check()?;
    output.write(&samples, &job)?;
    if let Some(path) = &arguments.latents {
        let shape = [&[job.count], &job.sizes.latent[..]].concat();
        output::raw(path, &shape, &latents.concat())?;
    }
    for words in cut {
        eprintln!("the text encoder has no room for: {words}");
    }
    let origin = &job.model.origin;
    eprintln!(
        "{} × {} by {} in {} steps (NFE {}), seed {}, on {} {} ({}) -> {}",
        job.count,
        job.model.bundle.name,
        job.sampler_name,
        job.options.steps,
        job.sampler.evaluations(),
        job.seed,
        origin.engine,
        origin.version,
        origin.provider,
        arguments.output.display()
    );
    Ok(())
}

fn job(arguments: &Arguments, card: &ModelCard) -> anyhow::Result<Job> {
    let request = Request {
        sampler: arguments.sampler.clone(),
        steps: arguments.steps,
        seed: arguments.seed,
        count: arguments.count,
        class: arguments.class,
        guidance: arguments.guidance,
        eta: arguments.eta,
        noise: arguments.noise.clone(),
        format: Some(Output::of(&arguments.output)?.format()),
        ..arguments.picture.request(arguments.words.request())?
    };
    request.check(std::slice::from_ref(card), LIMITS, || fastrand::u64(..)).map_err(|error| {
        match error.field {
            Some(field) => anyhow!("--{}: {}", field.replace('_', "-"), error.message),
            None => anyhow!(error.message),
        }
    })
}

/// What came of a job.
struct Drawn {
    samples: Vec<Vec<f32>>,
    /// The samples before they were decoded; the samples themselves where they were not.
    latents: Vec<Vec<f32>>,
    cut: Vec<String>,
}

fn draw(model: Model, job: &Job, noise: &GivenNoise) -> anyhow::Result<Drawn> {
    let none = vec![Vec::new(); job.count];
    let mut drawn = Drawn { samples: none.clone(), latents: none, cut: Vec::new() };
    let mut failure = None;
    let mut progress = Progress::begin(&model.bundle.name);
    let mut pipeline = Pipeline::new(model).with_given_noise(noise.source());
    pipeline.accept(job.clone());
    while !pipeline.is_idle() {
        pipeline.turn(&mut |event| match event {
            Event::Progress { step, of, eta_ms, .. } => progress.show(step, of, eta_ms),
            Event::Image { receipt, sample, latents, .. } => {
                drawn.latents[receipt.index] = latents.unwrap_or_else(|| sample.clone());
                drawn.samples[receipt.index] = sample;
                drawn.cut = receipt.cut;
            }
            Event::Failed { error, .. } => failure = Some(error),
            Event::Preview { .. } | Event::Finished { .. } => {}
        });
    }
    progress.end();
    match failure {
        Some(error) => {
            // Noise that ran out is why the network's output was not finite.
            noise.check()?;
            Err(error).context("sampling failed")
        }
        None => Ok(drawn),
    }
}
