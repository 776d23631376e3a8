//! Measures jobs, run by the same pipeline as the daemon's.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::MAX_TIME_PER_FIGURE;
use super::figures::{EvaluationFigures, EvaluationOutcome, JobFigures, JobParts, milliseconds, rounded};
use super::monitor::Monitor;
use super::timed_predictor::{Evaluation, EvaluationLog};
use crate::cli::progress::ProgressDisplay;
use crate::image::{self, Format};
use crate::job::Job;
use crate::pipeline::{JobEvent, Pipeline, Sample};

/// Runs a job until its evaluations were measured, then cancels it.
pub(super) fn evaluate(
    pipeline: &mut Pipeline,
    log: &EvaluationLog,
    job: Job,
    repeat: usize,
    monitor: &Monitor,
) -> EvaluationFigures {
    let (batch, id) = (job.count, job.id.clone());
    let [width_px, height_px] = width_and_height(&job);
    let predictor = &pipeline.model().predictor;
    let padded = predictor.padded_batch(batch, &job.sizes.sample);
    // What is captured as a CUDA graph is captured by the second evaluation.
    let preparing = if predictor.captures_shapes() { 2 } else { 1 };
    eprintln!("evaluating {} in a batch of {batch}", size_text([width_px, height_px]));
    log.clear();
    let start = Instant::now();
    let measured = monitor.during(|| {
        pipeline.accept(job);
        let mut failure = None;
        let is_measured = |times: &[Duration]| {
            times.len() >= repeat + preparing
                || times.len() > preparing && start.elapsed() > MAX_TIME_PER_FIGURE
        };
        while !pipeline.is_idle() && !is_measured(&log.times(padded)) {
            pipeline.step(&mut |_, event| {
                if let JobEvent::Failed(error) = event {
                    failure = Some(error);
                }
            });
        }
        pipeline.cancel(&id, &mut |_, _| {});
        failure.map_or(Ok(log.times(padded)), Err)
    });
    let outcome = match measured {
        Ok((times, readings)) => match times.get(preparing..) {
            Some(rest @ [_, ..]) => EvaluationOutcome::Measured {
                first_ms: milliseconds(times[0]),
                median_ms: milliseconds(median(rest.to_vec())),
                min_ms: milliseconds(rest.iter().copied().min().unwrap_or_default()),
                count: rest.len(),
                readings,
            },
            _ => EvaluationOutcome::Failed {
                error: "the model was never evaluated with this number of samples".to_owned(),
            },
        },
        Err(error) => EvaluationOutcome::Failed { error: error.to_string() },
    };
    EvaluationFigures { width_px, height_px, batch, outcome }
}

/// Runs the job several times; only once if that takes long.
pub(super) fn run(
    pipeline: &mut Pipeline,
    log: &EvaluationLog,
    job: &Job,
    repeat: usize,
    monitor: &Monitor,
) -> anyhow::Result<JobFigures> {
    let [width_px, height_px] = width_and_height(job);
    eprintln!("drawing {} in {} steps", size_text([width_px, height_px]), job.options.steps);
    let start = Instant::now();
    let (runs, readings) = monitor.during(|| {
        let mut runs = vec![run_once(pipeline, log, job)?];
        while runs.len() <= repeat && start.elapsed() < MAX_TIME_PER_FIGURE {
            runs.push(run_once(pipeline, log, job)?);
        }
        anyhow::Ok(runs)
    })?;
    let mut later: Vec<_> = runs.iter().skip(1).collect();
    later.sort_by_key(|run| run.total);
    let first = &runs[0];
    let median = later.get(later.len() / 2).copied().unwrap_or(first);
    let seconds = median.total.as_secs_f64();
    Ok(JobFigures {
        width_px,
        height_px,
        sampler: job.sampler_name.clone(),
        steps: job.options.steps,
        guidance: job.guidance,
        count: later.len(),
        first_ms: milliseconds(first.total),
        median_ms: milliseconds(median.total),
        pictures_per_s: rounded(1.0 / seconds, 4),
        parts: median.parts(),
        energy_per_picture_j: readings.power_w.map(|watts| rounded(watts * seconds, 3)),
        readings,
    })
}

/// The times of one job.
struct JobRun {
    total: Duration,
    evaluations: Vec<Evaluation>,
    decoding: Duration,
    png: Duration,
}

impl JobRun {
    fn parts(&self) -> JobParts {
        let evaluations: Duration = self.evaluations.iter().map(|evaluation| evaluation.elapsed).sum();
        let rest = self.total.saturating_sub(evaluations + self.decoding);
        JobParts {
            evaluations: self.evaluations.len(),
            evaluations_ms: milliseconds(evaluations),
            decoding_ms: milliseconds(self.decoding),
            png_ms: milliseconds(self.png),
            rest_ms: milliseconds(rest),
            rest_percent: rounded(rest.as_secs_f64() / self.total.as_secs_f64() * 100.0, 2),
        }
    }
}

fn run_once(pipeline: &mut Pipeline, log: &EvaluationLog, job: &Job) -> anyhow::Result<JobRun> {
    log.clear();
    let mut progress = ProgressDisplay::new(&job.model.bundle.name);
    let start = Instant::now();
    pipeline.accept(job.clone());
    let mut outcome = None;
    while !pipeline.is_idle() {
        pipeline.step(&mut |_, event| match event {
            JobEvent::Progress { step, of, eta_ms } => progress.show(step, of, eta_ms),
            JobEvent::Image { image, .. } => outcome = Some(Ok((image, Instant::now()))),
            JobEvent::Failed(error) => outcome = Some(Err(error)),
            JobEvent::Preview { .. } | JobEvent::Finished { .. } => {}
        });
    }
    progress.end();
    let (image, decoded) = outcome.context("the job ended without a picture")?.context("sampling failed")?;
    let encoding = Instant::now();
    encode(job, &image)?;
    let evaluations = log.all();
    let last = evaluations.last().map_or(start, |evaluation| evaluation.end);
    Ok(JobRun {
        total: start.elapsed(),
        evaluations,
        decoding: if job.model.latent.is_some() { decoded - last } else { Duration::ZERO },
        png: encoding.elapsed(),
    })
}

/// Encodes the picture as the daemon does, without its receipt.
fn encode(job: &Job, sample: &Sample) -> Result<Vec<u8>, image::ImageError> {
    let picture = &sample.picture;
    image::encode(Format::Png, &picture.data, &picture.shape, &job.model.bundle.manifest.sample, None)
}

/// The picture's size; a set of points has none.
fn width_and_height(job: &Job) -> [usize; 2] {
    match job.sizes.image.as_slice() {
        [_, height, width] => [*width, *height],
        _ => [0, 0],
    }
}

fn size_text(size: [usize; 2]) -> String {
    match size {
        [0, 0] => "points".to_owned(),
        [width, height] => format!("{width}×{height}"),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
