//! `denoised inspect`: inputs, outputs, schedule, and what each scheduler key does here.

use std::io::Write;
use std::path::PathBuf;

use super::Failure;
use super::stdout::Stdout;
use crate::bundle::{Bundle, TimestepShape};
use crate::inference::EngineKind;
use crate::model::{LatentPipeline, Model, batch_dependence};
use diffusion_samplers::sampler::{self, Options, SamplerError};
use diffusion_samplers::scheduler_settings::KeyStatus;

/// What `inspect` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle's directory
    model: PathBuf,
    /// The engine
    #[arg(long, value_parser = super::engine_kind())]
    engine: Option<EngineKind>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let engine = super::engine(&arguments.model, arguments.engine)?;
    let mut model = Model::load(&arguments.model, &engine)?;
    graph(&model)?;
    words(&model)?;
    memory(&model)?;
    let dependence = batch_dependence(model.predictor.as_mut(), &model.bundle.manifest)?;
    writeln!(Stdout, "in company   {dependence}")?;
    schedule(&model.bundle)?;
    Ok(samplers(&model.bundle)?)
}

fn graph(model: &Model) -> anyhow::Result<()> {
    let (bundle, origin) = (&model.bundle, model.predictor.backend());
    let signature = model.predictor.signature();
    writeln!(Stdout, "model        {} ({})", bundle.name, bundle.graph.display())?;
    writeln!(Stdout, "sha256       {}", bundle.sha256)?;
    writeln!(Stdout, "engine       {} {}, provider {}", origin.engine, origin.version, origin.provider)?;
    for share in &origin.provider_shares {
        writeln!(Stdout, "ran          {share}")?;
    }
    for refused in &origin.rejected_providers {
        writeln!(Stdout, "instead of   {}, which does not work here: {}", refused.provider, refused.reason)?;
    }
    for port in &signature.graph.inputs {
        writeln!(Stdout, "input        {port}")?;
    }
    for port in &signature.graph.outputs {
        writeln!(Stdout, "output       {port}")?;
    }
    writeln!(
        Stdout,
        "sample       {:?}, batches of up to {}",
        signature.sample_shape, signature.largest_batch
    )?;
    let time = match signature.time.shape {
        TimestepShape::PerSample => "one for each sample",
        TimestepShape::Scalar | TimestepShape::Single => "one for the whole batch",
    };
    writeln!(Stdout, "time step    {} {}, {time}", signature.time.name, signature.time.element)?;
    match (&signature.class, bundle.manifest.classes.null) {
        (None, _) => {}
        (Some(_), None) => writeln!(Stdout, "classes      {}, no guidance", bundle.classes())?,
        (Some(_), Some(null)) => {
            writeln!(
                Stdout,
                "classes      {}, label {null} for none: guidance is possible",
                bundle.classes()
            )?;
        }
    }
    Ok(())
}

/// What the graphs take while they are opened, by what stands on disk.
fn memory(model: &Model) -> anyhow::Result<()> {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for part in &model.session_sizes {
        writeln!(Stdout, "graph        {}, {:.1} MiB", part.name, mebibytes(part.bytes))?;
    }
    let all = model.session_sizes.iter().map(|part| part.bytes).sum();
    let most = model.session_sizes.iter().map(|part| part.bytes).max().unwrap_or(0);
    writeln!(
        Stdout,
        "memory       up to {:.1} MiB for all graphs, {:.1} MiB for one at a time ([engine] memory); what is \
         worked on comes on top",
        mebibytes(all),
        mebibytes(most)
    )?;
    Ok(())
}

fn words(model: &Model) -> anyhow::Result<()> {
    let Some(latent) = &model.latent else { return Ok(()) };
    let LatentPipeline { components: bundle, kind: family, .. } = latent.as_ref();
    writeln!(Stdout, "pipeline     {family:?}, {} text encoders", bundle.text_encoders.len())?;
    let vae = bundle.vae;
    writeln!(
        Stdout,
        "latents      {0} channels, each pixel for {1}×{1} of the picture's, scaled by {2}",
        vae.channels, vae.factor, vae.scaling
    )?;
    for (there, name, needed) in [
        (bundle.decoder.is_some(), "vae_decoder", "without it no picture comes out"),
        (bundle.encoder.is_some(), "vae_encoder", "without it no job begins at a picture"),
    ] {
        if !there {
            writeln!(Stdout, "lacks        {name}: {needed}")?;
        }
    }
    if bundle.has_safety_checker {
        writeln!(Stdout, "not run      safety_checker")?;
    }
    Ok(())
}

fn schedule(bundle: &Bundle) -> anyhow::Result<()> {
    writeln!(Stdout, "scheduler    {}", bundle.scheduler.class)?;
    for line in bundle.scheduler.report()? {
        let treatment = match line.treatment {
            KeyStatus::Used => "used",
            KeyStatus::Defaulted => "default",
            KeyStatus::Named => "by the sampler's name",
            KeyStatus::WithoutEffect => "without effect in this class",
            KeyStatus::NotOfThisSampler => "no key of this class",
        };
        writeln!(Stdout, "  {:<28} {:<20} {treatment}", line.key, line.value.to_string())?;
    }
    Ok(())
}

fn samplers(bundle: &Bundle) -> anyhow::Result<()> {
    let steps = bundle.manifest.default.steps.unwrap_or(10);
    for name in sampler::names() {
        let built = sampler::by_name(name).and_then(|choice| {
            choice.check_class(&bundle.scheduler.class, &mut bundle.scheduler.settings())?;
            choice.build(&mut bundle.scheduler.settings(), &Options::of_steps(steps))
        });
        match built {
            Ok(_) => writeln!(Stdout, "sampler      {name}")?,
            Err(SamplerError::Steps { most, .. }) => {
                writeln!(Stdout, "sampler      {name} (up to {most} steps)")?
            }
            Err(error) => writeln!(Stdout, "sampler      {name}: can't serve this bundle: {error}")?,
        }
    }
    writeln!(Stdout, "suffixes     {}, as in dpmpp_2m_karras", sampler::suffixes().join(", "))?;
    Ok(())
}
