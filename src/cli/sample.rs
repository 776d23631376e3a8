//! `denoised sample`: one job without MQTT.

mod control_args;
mod job_args;
mod job_file;
mod lora_args;
mod noise_files;
mod output_files;
mod requested_job;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};

use super::CommandError;
use super::engine_argument::EngineArguments;
use super::open_model::{LoadDisplay, open_model};
use super::output::{OutputTarget, check_file};
use super::run_job::{self, DrawnImage, encode_prompts, run_job};
use crate::bundle::SchedulerConfig;
use crate::bundle::other_graph::missing_decoder;
use crate::image::Format;
use crate::job::{Job, ModelCard};
use crate::model::Model;
use crate::pipeline::Pipeline;
use crate::units::counted;
use control_args::ControlArguments;
use diffusion_samplers::scheduler_settings::KeyStatus;
use job_args::{ImageArguments, PromptArguments, SamplingArguments};
use lora_args::LoraArguments;
use noise_files::{NoiseArrays, NoiseFiles};
use requested_job::RequestedJob;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  denoised sample models/digits --output three.png --class 3
  denoised sample sd15 --output fox.jpg --prompt \"a red fox in the snow\" --steps 20 --seed 7
  denoised sample sd15 --output foxes/ --count 8 --job job.json
  echo '{\"class\": 3, \"count\": 16}' | denoised sample models/digits --output grid.png --job -")]
pub(super) struct SampleArguments {
    /// The model's directory
    model: PathBuf,
    /// Where to write. .png, .jpg or .webp: one image, or a grid of several; .npy: the raw float32 values; a directory:
    /// one file for each image
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// A file with a job in JSON, as a request has it, or - for standard input; flags override its fields. A picture
    /// may also be {"file": "PATH"}, relative to the job's file
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    prompts: PromptArguments,
    #[command(flatten)]
    image: ImageArguments,
    #[command(flatten)]
    loras: LoraArguments,
    #[command(flatten)]
    controls: ControlArguments,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Flags for what a request does not have.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Comparison with other programs")]
struct FileArguments {
    /// A scheduler_config.json to use instead of the model's
    #[arg(long, value_name = "FILE")]
    scheduler: Option<PathBuf>,
    /// A .npy file with standard normal initial noise, [images, …], instead of the seed's; it sets --count
    #[arg(long, value_name = "FILE")]
    init_noise: Option<PathBuf>,
    /// A .npy file with the sampler's noise, [draws, images, …], in the order of the draws
    #[arg(long, value_name = "FILE")]
    step_noise: Option<PathBuf>,
    /// Also write the final latents as .npy, as diffusers returns them for output_type="latent"
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
}

pub(super) fn run(arguments: &SampleArguments) -> Result<(), CommandError> {
    let (engine, config) = arguments.engine.options_and_config(&arguments.model)?;
    let files = &arguments.files;
    let output = check_outputs(arguments).map_err(CommandError::usage)?;
    let mut requested = RequestedJob::read(arguments).map_err(CommandError::usage)?;
    let noise = NoiseArrays::read(files.init_noise.as_deref(), files.step_noise.as_deref())
        .map_err(CommandError::usage)?;
    for (flag, images) in noise.counts() {
        requested.set_count(flag, images).map_err(CommandError::usage)?;
    }
    let scheduler = files.scheduler.as_deref().map(SchedulerConfig::read).transpose();
    let scheduler = scheduler.map_err(|error| explain_scheduler(files.scheduler.as_deref(), error.into()));
    let scheduler = scheduler.map_err(CommandError::usage)?;

    if let Some(fault) = missing_decoder(&arguments.model) {
        return Err(CommandError::usage(anyhow!("{}: {fault}", arguments.model.display())));
    }
    let (mut model, loading) = open_model(&arguments.model, &engine)?;
    let mut notices = Vec::new();
    if let Some(scheduler) = scheduler {
        notices.extend(unknown_keys(&scheduler)?);
        model.bundle.set_scheduler(scheduler).context("--scheduler").map_err(CommandError::usage)?;
    }
    requested.resolve_class(&model.bundle).map_err(CommandError::usage)?;
    notices
        .extend(requested.apply_command(&model.bundle.name, output.format()).map_err(CommandError::usage)?);
    let limits = run_job::limits(&engine, &config.limits);
    let job = requested
        .request
        .check(&[ModelCard::new(&model)], limits, || fastrand::u64(..))
        .map_err(|error| CommandError::usage(requested.explain(&error)))?;
    let noise = noise.for_job(&job, &requested).map_err(CommandError::usage)?;
    output_files::check_size(&output, &job).map_err(CommandError::usage)?;
    notices.extend(job.ignored.iter().cloned());
    notices.extend(noise.unused_draws(&job));
    let ignored = noise.ignored_fields(&job).iter().filter(|field| requested.is_set(field));
    notices.extend(ignored.map(|field| format!("{field} has no effect: all noise comes from files")));
    for notice in notices {
        eprintln!("{notice}");
    }

    let images = draw(model, loading, &job, &requested, &noise)?;
    noise.check_draws()?;
    // The noise of a file is in no receipt.
    let embeds_receipts = config.receipt.embed && files.init_noise.is_none() && files.step_noise.is_none();
    output_files::write_images(&output, &images, &job, embeds_receipts)?;
    if let Some(path) = &files.latents {
        output_files::write_latents(path, &images, &job)?;
    }
    let receipt = images.first().map(|image| &image.receipt.image).context("the job made no image")?;
    for text in &receipt.truncated {
        eprintln!("the text encoder truncated the prompt; it ignores: {text}");
    }
    eprintln!(
        "{}{} × {} by {} in {} (NFE {}), seed {}, on {} {} ({}) -> {}",
        requested.request.id.map_or_else(String::new, |id| format!("{id}: ")),
        job.count,
        job.model.bundle.name,
        job.sampler_name,
        counted(job.options.steps as u64, "step"),
        job.sampler.evaluations(),
        job.seed,
        receipt.engine,
        receipt.engine_version,
        receipt.provider,
        arguments.output.display()
    );
    Ok(())
}

/// The error of the file of `--scheduler`, which may be the name of a sampler instead.
fn explain_scheduler(path: Option<&Path>, error: anyhow::Error) -> anyhow::Error {
    let name = path.and_then(Path::to_str).filter(|name| !Path::new(name).exists());
    match name.filter(|name| diffusion_samplers::sampler::by_name(name).is_ok()) {
        Some(name) => {
            anyhow!("--scheduler takes a scheduler_config.json; for the sampler use --sampler {name}")
        }
        None => error.context("--scheduler"),
    }
}

/// Fails if the results could not be written, before anything is loaded.
fn check_outputs(arguments: &SampleArguments) -> anyhow::Result<OutputTarget> {
    let output = OutputTarget::from_path(&arguments.output)?;
    output.check()?;
    if let Some(path) = &arguments.files.latents {
        let is_array = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(Format::Npy.name()));
        ensure!(is_array, "--latents: {} must end with .npy", path.display());
        ensure!(path != &arguments.output, "--latents and --output are the same file; name two");
        check_file("--latents", path)?;
    }
    Ok(output)
}

/// Returns a line about each key that the scheduler's class does not have.
fn unknown_keys(scheduler: &SchedulerConfig) -> anyhow::Result<Vec<String>> {
    let (path, class) = (scheduler.path.display(), &scheduler.class);
    let keys = scheduler
        .report()?
        .into_iter()
        .filter(|line| line.status == KeyStatus::Unknown && !scheduler.is_of_another_class(&line.key));
    let notice = |key: &str| {
        let hint =
            scheduler.nearest_key(key).map_or_else(String::new, |key| format!("; did you mean {key}?"));
        format!("--scheduler: {path}: {key} is not a key of {class} and has no effect{hint}")
    };
    Ok(keys.map(|line| notice(&line.key)).collect())
}

/// Runs the job. An error names the flag or the file of what it is about.
fn draw(
    mut model: Model,
    loading: LoadDisplay,
    job: &Job,
    requested: &RequestedJob,
    noise: &NoiseFiles,
) -> Result<Vec<DrawnImage>, CommandError> {
    encode_prompts(&mut model, job);
    let mut pipeline = Pipeline::new(model).with_given_noise(noise.source());
    run_job(&mut pipeline, Some(loading), job).or_else(|error| {
        // A LoRA is read when its job begins.
        if error.field.as_ref().is_some_and(|field| field.starts_with("loras")) {
            return Err(CommandError::usage(requested.explain(&error)));
        }
        // If the noise ran out, that is why the output was not finite.
        noise.check_draws()?;
        Err(CommandError::from(anyhow::Error::new(error).context("sampling failed")))
    })
}
