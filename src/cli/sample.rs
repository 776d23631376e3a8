//! `denoised sample`: one job without MQTT.

mod noise_files;
mod output;
mod prompt_args;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::CommandError;
use super::progress::ProgressDisplay;
use crate::bundle::SchedulerConfig;
use crate::inference::EngineKind;
use crate::job::{Job, JobLimits, ModelCard, Request};
use crate::model::Model;
use crate::pipeline::{JobEvent, Pipeline, Sample};
use noise_files::NoiseFiles;
use output::OutputTarget;
use prompt_args::{ImageArguments, PromptArguments};

/// Wider limits than the daemon's, because no other requester waits.
const LIMITS: JobLimits = JobLimits { steps: 100_000, count: 10_000, pixels: 1 << 28, memory: None };

#[derive(Debug, clap::Args)]
pub(super) struct SampleArguments {
    /// The bundle's directory
    model: PathBuf,
    /// .png: one image or a grid; .npy: raw float32 samples; a directory: one PNG per image
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// The sampler's name; `inspect` lists them [default: the bundle's]
    #[arg(long, value_name = "NAME")]
    sampler: Option<String>,
    /// The number of sampling steps, 1 to 100000 [default: the bundle's]
    #[arg(long)]
    steps: Option<u64>,
    /// The seed of the first image; image i has seed + i [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// The number of images, 1 to 10000 [default: 1]
    #[arg(long)]
    count: Option<u64>,
    /// The class label, from 0, for a class-conditional model
    #[arg(long, value_name = "LABEL")]
    class: Option<i64>,
    /// The guidance scale, 0 to 100; 1 turns guidance off
    #[arg(long, value_name = "SCALE")]
    guidance: Option<f64>,
    /// The noise of a stochastic sampler, 0 (none) to 1 (all)
    #[arg(long)]
    eta: Option<f64>,
    /// A scheduler_config.json to use instead of the bundle's
    #[arg(long, value_name = "FILE")]
    scheduler: Option<PathBuf>,
    /// A .npy file with standard normal initial noise, [images, …], instead of the seed's
    #[arg(long, value_name = "FILE")]
    init_noise: Option<PathBuf>,
    /// A .npy file with the sampler's noise, [draws, images, …], in the order of the draws
    #[arg(long, value_name = "FILE")]
    step_noise: Option<PathBuf>,
    #[command(flatten)]
    prompts: PromptArguments,
    #[command(flatten)]
    image: ImageArguments,
    /// Also write the final latents, [images, channels, height, width], as .npy
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// The noise generator: torch or philox
    #[arg(long, value_name = "GENERATOR")]
    noise: Option<String>,
    /// The inference engine [default: as configured]
    #[arg(long, value_parser = super::engine_argument::engine_kind())]
    engine: Option<EngineKind>,
}

pub(super) fn run(arguments: &SampleArguments) -> Result<(), CommandError> {
    let engine = super::engine(&arguments.model, arguments.engine)?;
    let output = OutputTarget::from_path(&arguments.output).map_err(CommandError::usage)?;
    let mut model = Model::load(&arguments.model, &engine)?;
    if let Some(path) = &arguments.scheduler {
        model.bundle.scheduler = SchedulerConfig::read(path)?;
        // The file's class decides on the sampler, not the bundle's default.
        model.bundle.manifest.default.sampler = None;
    }
    let limits = JobLimits { memory: engine.memory, ..LIMITS };
    let job = job(arguments, &ModelCard::new(&model), limits).map_err(CommandError::usage)?;
    let noise = NoiseFiles::read(arguments.init_noise.as_deref(), arguments.step_noise.as_deref(), &job)
        .map_err(CommandError::usage)?;
    let Samples { samples, latents, truncated } = sample(model, &job, &noise)?;
    noise.check_draws()?;
    output.write(&samples, &job)?;
    if let Some(path) = &arguments.latents {
        let shape = [&[job.count], &job.sizes.latent[..]].concat();
        output::write_array(path, &shape, &latents.concat())?;
    }
    for text in truncated {
        eprintln!("the text encoder truncated the prompt; it ignores: {text}");
    }
    let backend = &job.model.backend;
    eprintln!(
        "{} × {} by {} in {} steps (NFE {}), seed {}, on {} {} ({}) -> {}",
        job.count,
        job.model.bundle.name,
        job.sampler_name,
        job.options.steps,
        job.sampler.evaluations(),
        job.seed,
        backend.engine,
        backend.version,
        backend.provider,
        arguments.output.display()
    );
    Ok(())
}

fn job(arguments: &SampleArguments, card: &Arc<ModelCard>, limits: JobLimits) -> anyhow::Result<Job> {
    let request = Request {
        sampler: arguments.sampler.clone(),
        steps: arguments.steps,
        seed: arguments.seed,
        count: arguments.count,
        class: arguments.class,
        guidance: arguments.guidance,
        eta: arguments.eta,
        noise: arguments.noise.clone(),
        format: Some(OutputTarget::from_path(&arguments.output)?.format()),
        ..arguments.image.add_to(arguments.prompts.to_request())?
    };
    request.check(std::slice::from_ref(card), limits, || fastrand::u64(..)).map_err(|error| {
        match error.field {
            // The model is an argument without a flag.
            Some(field) if field != "model" => anyhow!("--{}: {}", field.replace('_', "-"), error.message),
            _ => anyhow!(error.message),
        }
    })
}

/// The result of a job.
struct Samples {
    samples: Vec<Vec<f32>>,
    /// The samples before the VAE; the same as `samples` without one.
    latents: Vec<Vec<f32>>,
    truncated: Vec<String>,
}

fn sample(model: Model, job: &Job, noise: &NoiseFiles) -> anyhow::Result<Samples> {
    let empty = vec![Vec::new(); job.count];
    let mut result = Samples { samples: empty.clone(), latents: empty, truncated: Vec::new() };
    let mut failure = None;
    let mut progress = ProgressDisplay::new(&model.bundle.name);
    let mut pipeline = Pipeline::new(model).with_given_noise(noise.source());
    pipeline.accept(job.clone());
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Progress { step, of, eta_ms } => progress.show(step, of, eta_ms),
            JobEvent::Image { receipt, image: Sample { picture, latents } } => {
                result.latents[receipt.index] = latents.unwrap_or_else(|| picture.data.clone());
                result.samples[receipt.index] = picture.data;
                result.truncated = receipt.truncated;
            }
            JobEvent::Failed(error) => failure = Some(error),
            JobEvent::Preview { .. } | JobEvent::Finished { .. } => {}
        });
    }
    progress.end();
    match failure {
        Some(error) => {
            // If the noise ran out, that is why the output was not finite.
            noise.check_draws()?;
            Err(error).context("sampling failed")
        }
        None => Ok(result),
    }
}
