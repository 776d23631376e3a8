//! `denoised replay`: draws a picture again from its receipt, and says whether it is the same.

mod comparison;
mod original;
mod source_files;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};

use super::CommandError;
use super::engine_argument::EngineArguments;
use super::open_model::open_model;
use super::output::{OutputTarget, save};
use super::run_job::{self, DrawnImage, encode_prompts, picture_receipt, run_job};
use super::stdout::Stdout;
use crate::bundle::other_graph::missing_decoder;
use crate::bundle::{Bundle, PipelineTask, SchedulerConfig, model_name};
use crate::config::Config;
use crate::image::Format;
use crate::inference::{EngineKind, EngineOptions, Policy, Provider};
use crate::job::receipt::ImageReceipt;
use crate::job::{Job, JobError, ModelCard, Request, SourceFiles, WrittenReceipt};
use crate::pipeline::Pipeline;
use comparison::{Comparison, encode};
use original::{Original, OriginalPicture};
use source_files::SourceArguments;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  denoised replay three.png --model models/digits
  denoised replay result.json --model sd15 --output again/
  denoised replay fox.jpg --model sd15 --image photo.png --output fox-again.jpg

Prints `the same bytes`, or what differs: in the picture, and in the receipt. Exits with 1 if the picture differs, and with 2
if it cannot be drawn.")]
pub(super) struct ReplayArguments {
    /// A picture that contains its receipt, a receipt in JSON, the result of a job, or a response over HTTP
    file: PathBuf,
    /// The model's directory [default: the configured model with the name in the receipt]
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Where to write what is drawn: a picture, or a directory for the pictures of a result [default: nowhere]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    files: SourceArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

pub(super) fn run(arguments: &ReplayArguments) -> Result<(), CommandError> {
    // 1 is the exit code of a difference alone.
    let compared = compare(arguments).map_err(|error| CommandError { exit_code: 2, ..error })?;
    match compared {
        (0, _) => Ok(()),
        (_, 1) => Err(anyhow!("what is drawn here is not the same").into()),
        (different, all) => Err(anyhow!("{different} of {all} pictures are not the same").into()),
    }
}

/// Draws the pictures again. Returns how many of how many are not the same.
fn compare(arguments: &ReplayArguments) -> Result<(usize, usize), CommandError> {
    let originals = original::read(&arguments.file).map_err(CommandError::usage)?;
    let output = check_output(arguments, &originals).map_err(CommandError::usage)?;
    let files = arguments.files.read(&originals).map_err(CommandError::usage)?;
    // All receipts of a result are those of one job.
    let first = originals.first().context("there is no receipt")?;
    let config = arguments.engine.config()?;
    let directory = match &arguments.model {
        Some(directory) => directory.clone(),
        None => configured_model(first, &config).map_err(CommandError::usage)?,
    };
    if let Some(fault) = missing_decoder(&directory) {
        return Err(CommandError::usage(anyhow!("{}: {fault}", directory.display())));
    }
    let options = with_engine_of(&first.receipt, config.engine_options(&directory));
    let options = EngineOptions { kind: arguments.engine.kind().unwrap_or(options.kind), ..options };
    let (mut model, loading) = open_model(&directory, &options)?;
    use_scheduler_of(first, &mut model.bundle).map_err(CommandError::usage)?;
    let card = [ModelCard::new(&model)];
    let bundle = Arc::clone(&card[0].bundle);
    let limits = run_job::limits(&options, &config.limits);
    let to_job = |original: &Original| {
        let format = original.format().or(output.as_ref().and_then(OutputTarget::format));
        let job = to_request(&original.receipt, &files, format)
            .and_then(|request| request.check(&card, limits, || fastrand::u64(..)));
        job.map_err(|error| CommandError::usage(explain(original, &bundle, &error)))
    };
    encode_prompts(&mut model, &to_job(first)?);
    let mut pipeline = Pipeline::new(model);
    let mut loading = Some(loading);
    let mut different = 0;
    for (index, original) in originals.iter().enumerate() {
        let job = to_job(original)?;
        let images = run_job(&mut pipeline, loading.take(), &job)
            .map_err(|error| explain(original, &bundle, &error))?;
        let replay = Replay::new(original, images, job)?;
        replay.print()?;
        if let Some(output) = &output {
            replay.write(index, output, config.receipt.embed)?;
        }
        different += usize::from(!replay.is_same());
    }
    Ok((different, originals.len()))
}

/// Fails if nothing could come of the command, before anything is loaded.
fn check_output(arguments: &ReplayArguments, originals: &[Original]) -> anyhow::Result<Option<OutputTarget>> {
    let Some(path) = &arguments.output else {
        let is_alone = |original: &Original| matches!(original.picture, OriginalPicture::Unknown);
        ensure!(
            !originals.iter().all(is_alone),
            "{} has no picture to compare with; write what is drawn with --output FILE",
            arguments.file.display()
        );
        return Ok(None);
    };
    let output = OutputTarget::from_path(path)?;
    ensure!(
        originals.len() == 1 || matches!(output, OutputTarget::Directory(_)),
        "--output: {} has the receipts of {} pictures; name a directory for them, such as again/",
        arguments.file.display(),
        originals.len()
    );
    output.check()?;
    Ok(Some(output))
}

/// Finds the model of a receipt among the configured ones.
fn configured_model(original: &Original, config: &Config) -> anyhow::Result<PathBuf> {
    let name = original.receipt.text("model").unwrap_or_default();
    let found = config.models.paths.iter().find(|path| model_name(path) == name);
    let known = || config.models.paths.iter().map(|path| model_name(path)).collect::<Vec<_>>().join(", ");
    found.cloned().with_context(|| {
        format!(
            "{}: the model is {name:?}, which is none of the configured ones ({}); name its folder with --model",
            original.name,
            known()
        )
    })
}

/// Options that prefer the engine and the provider of a receipt. Others serve if these do not work.
fn with_engine_of(receipt: &WrittenReceipt, options: EngineOptions) -> EngineOptions {
    let kind = match (receipt.text("engine"), options.kind) {
        (Some("embedded"), _) => EngineKind::Embedded,
        (_, EngineKind::Embedded) => EngineKind::Auto,
        (_, kind) => kind,
    };
    let is_own = |provider: &Provider| receipt.text("provider") == Some(&provider.to_string());
    let own = Provider::ALL.into_iter().find(is_own);
    let others = options.providers.iter().copied().filter(|provider| Some(*provider) != own);
    let providers = own.into_iter().chain(others).collect();
    EngineOptions { kind, providers, policy: Policy::Preferred, interim_provider: None, ..options }
}

/// Draws with the scheduler of a receipt, if it is not the model's.
fn use_scheduler_of(original: &Original, bundle: &mut Bundle) -> anyhow::Result<()> {
    let scheduler = original.receipt.scheduler();
    let tasks = [PipelineTask::Generation, PipelineTask::Inpainting];
    if tasks.into_iter().any(|task| bundle.scheduler.to_json(task) == *scheduler) {
        return Ok(());
    }
    let name = format!("{}: scheduler", original.name);
    bundle.set_scheduler(SchedulerConfig::from_receipt(Path::new(&name), scheduler)?)?;
    eprintln!("{name}: it is not the one of {}, and is used instead", bundle.name);
    Ok(())
}

/// The request that draws a picture again.
fn to_request(
    receipt: &WrittenReceipt,
    files: &SourceFiles,
    format: Option<Format>,
) -> Result<Request, JobError> {
    let quality = receipt.number("quality").filter(|_| format == Some(Format::Jpeg));
    Ok(Request { format, quality, ..receipt.to_request(files)? })
}

/// An error with the file that it is about, and with what helps; `bundle` is the model's.
fn explain(original: &Original, bundle: &Bundle, error: &JobError) -> anyhow::Error {
    let is_lora = error.field.as_ref().is_some_and(|field| field.starts_with("loras"));
    let advice = match original.receipt.text("model_sha256") {
        _ if is_lora => "; or give the file with --lora FILE",
        Some(drawn_with) if bundle.digests().is_ok_and(|digests| digests.total != drawn_with) => {
            "; the picture was drawn with another model, by its SHA-256: name that with --model"
        }
        _ => "",
    };
    anyhow!("{}: {}{advice}", original.name, error.message)
}

/// A picture that is drawn again.
struct Replay<'a> {
    original: &'a Original,
    images: Vec<DrawnImage>,
    job: Job,
    /// The new receipt.
    here: ImageReceipt,
    /// The lines about what is different in it.
    differences: Vec<String>,
    comparison: Comparison,
}

impl<'a> Replay<'a> {
    fn new(original: &'a Original, images: Vec<DrawnImage>, job: Job) -> anyhow::Result<Self> {
        let here = picture_receipt(&images).context("the job made no image")?;
        let differences = original.receipt.differences(&here);
        let comparison = Comparison::new(original, &images, &job, &here)?;
        Ok(Self { original, images, job, here, differences, comparison })
    }

    fn is_same(&self) -> bool {
        match self.comparison {
            Comparison::Same(_) => true,
            Comparison::None => self.differences.is_empty(),
            _ => false,
        }
    }

    fn print(&self) -> std::io::Result<()> {
        writeln!(Stdout, "{}: {}", self.original.name, self.comparison)?;
        for line in &self.differences {
            writeln!(Stdout, "  {line}")?;
        }
        if !self.is_same() && self.differences.is_empty() {
            writeln!(Stdout, "  {}", self.hint())?;
        }
        Ok(())
    }

    /// What may be the reason if nothing in the receipt differs.
    fn hint(&self) -> &'static str {
        match self.comparison {
            Comparison::Sizes { .. } => {
                "nothing in the receipt differs; the picture was changed after it was drawn"
            }
            Comparison::SamePixels => "nothing in the receipt differs; only the file was written otherwise",
            _ if !self.here.exact => {
                "nothing in the receipt differs; the original may have shared batches with other images, which changes \
                 the arithmetic of some engines: `inspect` says so, and \"exact\": true avoids it"
            }
            _ => {
                "nothing in the receipt differs; options of [engine], denoised.toml or the tokenizer may have changed, \
                 or the picture"
            }
        }
    }

    /// Writes what was drawn; the original's bytes if it is the same.
    fn write(&self, index: usize, output: &OutputTarget, embeds_receipts: bool) -> anyhow::Result<()> {
        let original = self.original.format();
        let (path, format) = match output {
            OutputTarget::File(path, format) => (path.clone(), *format),
            OutputTarget::Directory(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
                let format = original.unwrap_or_default();
                (path.join(format!("{index:04}-{}.{}", self.here.seed, format.name())), format)
            }
        };
        if let Comparison::Same(bytes) = &self.comparison
            && original == Some(format)
        {
            return save(&path, bytes);
        }
        let has_text = embeds_receipts || matches!(self.original.picture, OriginalPicture::File { .. });
        let text = has_text.then(|| self.here.to_text(&self.job.sizes));
        save(&path, &encode(&self.images, &self.job, format, text.as_ref())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_and_the_provider_of_the_receipt_come_first() {
        let options = |engine: &str, provider: &str, kind| {
            let receipt = format!(
                r#"{{"model": "a", "model_sha256": "", "scheduler": {{}}, "sampler": "ddim", "seed": 1,
                    "engine": "{engine}", "provider": "{provider}"}}"#
            );
            let receipt = WrittenReceipt::parse(receipt.as_bytes()).unwrap();
            let options = EngineOptions { kind, policy: Policy::Required, ..EngineOptions::default() };
            let EngineOptions { kind, providers, policy, .. } = with_engine_of(&receipt, options);
            assert_eq!(policy, Policy::Preferred);
            (kind, providers)
        };
        let (kind, providers) = options("embedded", "cpu", EngineKind::OnnxRuntime);
        assert_eq!(kind, EngineKind::Embedded);
        assert_eq!(providers, [Provider::Cpu, Provider::TensorRt, Provider::Cuda]);
        let (kind, providers) = options("onnxruntime", "openvino", EngineKind::Embedded);
        assert_eq!(kind, EngineKind::Auto);
        assert_eq!(providers[..2], [Provider::OpenVino, Provider::TensorRt]);
        let (kind, providers) = options("onnxruntime", "npu", EngineKind::OnnxRuntime);
        assert_eq!(kind, EngineKind::OnnxRuntime);
        assert_eq!(providers, EngineOptions::default().providers);
    }
}
