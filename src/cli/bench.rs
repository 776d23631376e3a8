//! `denoised bench`: measures a model on this machine, for its owner and for a report.

mod figures;
mod job;
mod job_template;
mod ladder;
mod load;
mod monitor;
mod report;
mod table;
mod timed_predictor;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::CommandError;
use super::engine_argument::EngineArguments;
use super::flag_values::whole_number;
use super::precision::precision;
use super::stdout::Stdout;
use crate::bundle::other_graph::missing_decoder;
use crate::inference::{EngineOptions, SessionPool};
use crate::job::{Job, ModelCard};
use crate::model::Model;
use crate::pipeline::Pipeline;
use job_template::JobTemplate;
use ladder::{ImageSize, image_size};
use monitor::Monitor;
use report::Report;

/// No further run of one figure starts after this time.
const MAX_TIME_PER_FIGURE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  denoised bench models/digits
  denoised bench sd15 --size 256,512 --batch 1,2 --steps 4
  denoised bench sd15 --json > sd15.json              for a report (docs/performance.md)")]
pub(super) struct BenchArguments {
    /// The model's directory
    model: PathBuf,
    /// The batch sizes to evaluate [default: 1,2,4, as far as the model takes them]
    #[arg(long, value_name = "SAMPLES,…", value_delimiter = ',', value_parser = whole_number)]
    batch: Vec<u64>,
    /// The sizes to evaluate, in pixels [default: the model's]
    #[arg(long, value_name = "SIDE|WIDTHxHEIGHT,…", value_delimiter = ',', value_parser = image_size)]
    size: Vec<ImageSize>,
    /// The sampling steps of the job [default: the model's]
    #[arg(long, value_name = "STEPS", value_parser = whole_number)]
    steps: Option<u64>,
    /// How often each figure is measured, after a first time; a figure that takes long is measured less often
    #[arg(long, value_name = "TIMES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    repeat: u16,
    /// Load with an empty engine cache at first, so that the first load includes what later ones find there
    #[arg(long)]
    empty_cache: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

pub(super) fn run(arguments: &BenchArguments) -> Result<(), CommandError> {
    let (options, config) = arguments.engine.options_and_config(&arguments.model)?;
    if let Some(fault) = missing_decoder(&arguments.model) {
        return Err(CommandError::usage(anyhow!("{}: {fault}", arguments.model.display())));
    }
    let cache = arguments.empty_cache.then(tempfile::tempdir).transpose()?;
    let options = match &cache {
        Some(cache) => EngineOptions { cache: cache.path().to_owned(), ..options },
        None => options,
    };
    let repeat = usize::from(arguments.repeat);
    let monitor =
        Monitor::start(&config.board.platform(), options.provider.cuda.device.map_or(0, |gpu| gpu.0));
    check_flags(arguments, &options)?;
    let (model, load) = load::measure(&arguments.model, &options, cache.is_some(), &monitor)?;
    let precision = precision(&model, &options)?;
    let (model, log) = timed_predictor::with_log(model);
    let mut pipeline = Pipeline::new(model);
    let (jobs, default_job) = requested_jobs(arguments, pipeline.model(), pipeline.card(), options.memory)
        .map_err(CommandError::usage)?;
    let evaluations: Vec<_> =
        jobs.into_iter().map(|job| job::evaluate(&mut pipeline, &log, job, repeat, &monitor)).collect();
    let job = job::run(&mut pipeline, &log, &default_job, repeat, &monitor)?;
    let report = Report::new(&config, pipeline.model(), precision, load, evaluations, job, &monitor)?;
    match arguments.json {
        true => writeln!(Stdout, "{}", serde_json::to_string_pretty(&report)?)?,
        false => write!(Stdout, "{}", table::table(&report))?,
    }
    Ok(())
}

/// Refuses what the model does not take before its network is opened.
fn check_flags(arguments: &BenchArguments, options: &EngineOptions) -> Result<(), CommandError> {
    let pool = SessionPool::with_budget(options.memory);
    let model = Model::open(&pool, &arguments.model, options, Arc::new(|_| {}))?;
    let jobs = requested_jobs(arguments, &model, &ModelCard::new(&model), options.memory);
    jobs.map(drop).map_err(CommandError::usage)
}

/// Returns the jobs for single evaluations, and the model's usual job.
fn requested_jobs(
    arguments: &BenchArguments,
    model: &Model,
    card: &Arc<ModelCard>,
    memory: Option<u64>,
) -> anyhow::Result<(Vec<Job>, Job)> {
    let batches = ladder::batches(&arguments.batch, model.predictor.signature())?;
    let template = JobTemplate::new(model, memory);
    let repeat = usize::from(arguments.repeat);
    let jobs = template.evaluation_jobs(card, &arguments.size, &batches, repeat)?;
    Ok((jobs, template.default_job(card, arguments.steps)?))
}
