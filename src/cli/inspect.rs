//! `denoised inspect`: shows how the program reads a bundle, and what it can do with it.

mod contents;
mod defaults;
mod preparation;
mod samplers;

use std::io::Write;
use std::path::PathBuf;

use super::CommandError;
use super::engine_argument::EngineArguments;
use super::precision::{ignored_options, precision};
use super::stdout::Stdout;
use crate::bundle::{Bundle, LatentComponents, LiveInputs, TimestepShape};
use crate::inference::EngineOptions;
use crate::job::{JobLimits, ModelCard, Request};
use crate::model::{Model, batch_dependence};
use diffusion_samplers::scheduler_settings::KeyStatus;

#[derive(Debug, clap::Args)]
pub(super) struct InspectArguments {
    /// The bundle's directory
    model: PathBuf,
    #[command(flatten)]
    engine: EngineArguments,
    /// Also list every file and key, and the samplers that can't serve the bundle, with the reasons
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &InspectArguments) -> Result<(), CommandError> {
    let engine = arguments.engine.options(&arguments.model)?;
    let mut model = Model::load(&arguments.model, &engine)?;
    writeln!(Stdout, "Model")?;
    identity(&model, &engine)?;
    section("Inputs and outputs")?;
    inputs(&mut model)?;
    section("Defaults of a job")?;
    defaults::list(&model)?;
    section("Missing")?;
    missing(&model)?;
    let inventory = model.bundle.inventory()?;
    section("Files")?;
    contents::files(&inventory, arguments.all)?;
    if !inventory.keys.is_empty() {
        section("Keys")?;
        contents::keys(&inventory, arguments.all)?;
    }
    section("Memory")?;
    memory(&model)?;
    preparation::list(&model, &engine)?;
    section(&format!("Scheduler: {}", model.bundle.scheduler.class))?;
    scheduler(&model.bundle)?;
    section("Samplers")?;
    Ok(samplers::list(&model.bundle, arguments.all)?)
}

fn section(title: &str) -> std::io::Result<()> {
    writeln!(Stdout, "\n{title}")
}

fn nothing() -> std::io::Result<()> {
    writeln!(Stdout, "  nothing")
}

fn row(label: &str, value: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(Stdout, "  {label:<20} {value}")
}

/// Prints the model's properties, its engine and its provider.
fn identity(model: &Model, options: &EngineOptions) -> anyhow::Result<()> {
    let (bundle, backend) = (&model.bundle, model.predictor.backend());
    row("name", format_args!("{} ({})", bundle.name, bundle.graph.display()))?;
    row("sha256", &model.bundle.digests()?.total)?;
    row("engine", format_args!("{} {}, provider {}", backend.engine, backend.version, backend.provider))?;
    row("precision", precision(model, options)?)?;
    for ignored in ignored_options(model, options) {
        row("ignored option", format_args!("engine.tensorrt.{ignored}"))?;
    }
    for share in &backend.provider_shares {
        row("provider share", share)?;
    }
    if backend.cuda_graph {
        row("CUDA graphs", "evaluations are captured and replayed")?;
    }
    for rejected in &backend.rejected_providers {
        let reason = format_args!("{} does not work here: {}", rejected.provider, rejected.reason);
        row("rejected provider", reason)?;
    }
    if let Some(latent) = &model.latent {
        let LatentComponents { text_encoders, vae, .. } = &latent.components;
        row("pipeline", latent.kind.title())?;
        row("text encoders", text_encoders.len())?;
        let statistics = vae.statistics.map_or("", |_| ", with the mean and the deviation of each channel");
        row(
            "latents",
            format_args!(
                "{} channels, one value for {1}×{1} pixels, scaling factor {2}{statistics}",
                vae.channels, vae.factor, vae.scaling
            ),
        )?;
    }
    Ok(())
}

/// How the network is fed.
fn inputs(model: &mut Model) -> anyhow::Result<()> {
    let bundle = &model.bundle;
    let signature = model.predictor.signature();
    // The embedded engine converts types, and infers dimensions that the file leaves open.
    let files = bundle.files(&bundle.graph)?;
    let declared = &files.header.io;
    for input in declared.inputs.iter().filter(|input| !signature.live.contains(&input.name)) {
        row("input", input)?;
    }
    live_inputs(&signature.live)?;
    for net in &bundle.controlnets {
        let pools = if net.pools { ", with global pooling" } else { "" };
        row("ControlNet", format_args!("{} ({}){pools}", net.name, net.graph.display()))?;
    }
    for output in &declared.outputs {
        row("output", output)?;
    }
    let (shape, batch) = (default_shape(model), signature.largest_batch);
    row("sample", format_args!("{shape:?}, batches of up to {batch}"))?;
    let time = match signature.time.shape {
        TimestepShape::PerSample => "one for each sample",
        TimestepShape::Scalar | TimestepShape::Single => "one for the whole batch",
    };
    let element = declared.inputs.iter().find(|input| input.name == signature.time.name);
    let element = element.map_or(signature.time.element, |input| input.element);
    row("timestep", format_args!("{} {element}, {time}", signature.time.name))?;
    if signature.class.is_some() {
        let classes = bundle.classes();
        match bundle.manifest.classes.null {
            None => row("classes", format_args!("{classes}; no null label, so no guidance"))?,
            Some(null) => row("classes", format_args!("{classes}; null label {null}, so guidance works"))?,
        }
    }
    row("batching", batch_dependence(model.predictor.as_mut(), &model.bundle.manifest)?)?;
    Ok(())
}

/// The inputs for ControlNets and LoRAs, of which a graph has hundreds.
fn live_inputs(live: &LiveInputs) -> std::io::Result<()> {
    if !live.residuals.is_empty() {
        row("ControlNet", format_args!("{} inputs for residuals", live.residuals.len()))?;
    }
    if !live.layers.is_empty() {
        row("LoRA", format_args!("inputs at {} layers", live.layers.len()))?;
    }
    Ok(())
}

/// The shape of the samples of a job without a size. Where a job needs more than a prompt, it is the network's own.
fn default_shape(model: &Model) -> Vec<usize> {
    let limits = JobLimits { steps: u64::MAX, count: 1, pixels: u64::MAX, memory: None };
    let request = Request { prompt: Some(String::new()), ..Request::default() };
    match model.latent.as_ref().map(|_| request.check(&[ModelCard::new(model)], limits, || 0)) {
        Some(Ok(job)) => job.sizes.sample,
        Some(Err(_)) | None => model.predictor.signature().sample_shape.clone(),
    }
}

/// The components that are missing, and those that are not run.
fn missing(model: &Model) -> std::io::Result<()> {
    let Some(latent) = &model.latent else { return nothing() };
    let LatentComponents { decoder, encoder, has_safety_checker, .. } = &latent.components;
    if decoder.is_none() {
        row("vae_decoder", "without it no job can be run: latents do not become pictures")?;
    }
    if encoder.is_none() {
        row("vae_encoder", "without it a job can't begin at an image")?;
    }
    if *has_safety_checker {
        row("safety_checker", "is in the bundle, but is not run")?;
    }
    if decoder.is_some() && encoder.is_some() && !has_safety_checker {
        nothing()?;
    }
    Ok(())
}

/// The memory of each graph while its session is open, estimated from the file sizes.
fn memory(model: &Model) -> std::io::Result<()> {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for session in &model.session_sizes {
        row(&session.name, format_args!("{:.1} MiB", mebibytes(session.bytes)))?;
    }
    let sizes = || model.session_sizes.iter().map(|session| session.bytes);
    row("all graphs", format_args!("{:.1} MiB", mebibytes(sizes().sum())))?;
    row(
        "one graph at a time",
        format_args!(
            "{:.1} MiB, the minimum for [engine] memory; samples and activations come on top",
            mebibytes(sizes().max().unwrap_or(0))
        ),
    )
}

fn scheduler(bundle: &Bundle) -> anyhow::Result<()> {
    if let Some(other) = &bundle.scheduler.class_in_file {
        row(
            "class",
            format_args!("named by model_index.json; scheduler_config.json has {other}, which is not used"),
        )?;
    }
    for line in bundle.scheduler.report()? {
        let switched_off;
        let status = match line.status {
            KeyStatus::Used => "used",
            KeyStatus::Defaulted => "default",
            KeyStatus::Implied => "set by the pipeline, as in diffusers",
            KeyStatus::Ignored => "without effect in this class",
            KeyStatus::WithoutEffect(reason) => {
                switched_off = format!("without effect: {reason}");
                &switched_off
            }
            KeyStatus::Unknown if bundle.scheduler.is_of_another_class(&line.key) => {
                "not a key of this class, but of other samplers"
            }
            KeyStatus::Unknown => "not a key of this class",
        };
        let meant =
            (line.status == KeyStatus::Unknown).then(|| bundle.scheduler.nearest_key(&line.key)).flatten();
        let hint = meant.map_or_else(String::new, |key| format!("; did you mean {key}?"));
        writeln!(Stdout, "  {:<28} {:<20} {status}{hint}", line.key, line.value.to_string())?;
    }
    let set: Vec<_> =
        bundle.scheduler.set_for_inpainting().map(|(key, value)| format!("{key} {value}")).collect();
    if !set.is_empty() {
        row("with a mask", format_args!("the pipeline sets {}", set.join(", ")))?;
    }
    Ok(())
}
