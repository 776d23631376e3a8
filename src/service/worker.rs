//! The worker: loads the models and draws, on threads of its own.
//!
//! One thread evaluates; a second one encodes what it finished, while it goes on.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Config;
use crate::image::{self, Format};
use crate::job::{ErrorCode, Job, JobError, ModelCard};
use crate::model::{EngineOptions, Model, Stage};
use crate::pipeline::{Event, Pipeline};
use crate::receipt::Receipt;

/// What the worker is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Draw a job.
    Draw(Box<Job>),
    /// Drop the job with this id.
    Cancel(String),
}

/// News of a job.
#[derive(Debug)]
pub(super) struct News {
    pub(super) id: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Progress { step: usize, of: usize, eta_ms: u64 },
    Preview { index: usize, png: Vec<u8> },
    Image { receipt: Box<Receipt>, format: Format, bytes: Vec<u8> },
    Finished { elapsed_ms: u64 },
    Failed(JobError),
}

/// What the worker tells.
#[derive(Debug)]
pub(super) enum Tidings {
    /// What the loading of the models is at.
    Stage(Stage),
    /// The models are loaded.
    Ready(Vec<ModelCard>),
    /// A model can't be loaded; nothing more will come.
    Unable(String),
    /// How long an evaluation of a model takes at present.
    Pace { model: String, ms_per_nfe: f64 },
    /// News of a job.
    Job(News),
}

/// The service's end of the worker.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    pub(super) tidings: mpsc::Receiver<Tidings>,
    threads: Vec<JoinHandle<()>>,
}

/// Finished samples that wait to be encoded.
const RAW: usize = 32;
const PACE_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Begin to load the models; so many jobs of an earlier run will be ordered at once.
    pub(super) fn start(config: &Config, unfinished: usize) -> Self {
        // Bounds may be raised while running; commands are small.
        let (commands, ordered) =
            mpsc::channel(2 * (config.limits.queue.0 as usize).max(100_000) + unfinished);
        let (tidings, told) = mpsc::channel(64);
        let (raw, to_encode) = blocking::sync_channel(RAW);
        let of = |path: &PathBuf| (path.clone(), config.engine_of(path));
        let models: Vec<_> = config.models.paths.iter().map(of).collect();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        let threads = [
            spawn("evaluate", Box::new(move || evaluate(&models, ordered, &raw))),
            spawn("encode", Box::new(move || encode(&to_encode, &tidings))),
        ];
        Self {
            commands: Some(commands),
            tidings: told,
            threads: threads.into_iter().filter_map(Result::ok).collect(),
        }
    }

    /// Tell it what to do; it hears before its next evaluation.
    ///
    /// There is room for one drawing and one cancelling of every job that may be in hand, so this
    /// never waits, and a worker that waits for its tidings to be read can't hold the reader up.
    pub(super) fn order(&self, command: Command) {
        if let Some(Err(error)) = self.commands.as_ref().map(|commands| commands.try_send(command)) {
            // A worker that has ended is noticed where its tidings are read.
            log::error!("the worker does not hear: {error}");
        }
    }

    /// Let it end after the evaluation at hand, whatever is still to do.
    pub(super) fn stop(&mut self) {
        self.commands = None;
        self.tidings.close();
    }

    /// The last words of a thread that ended by itself.
    pub(super) fn why_ended(&mut self) -> String {
        let panics = self.threads.drain(..).filter_map(|thread| thread.join().err());
        let words: Vec<_> = panics
            .map(|panic| match panic.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => panic.downcast_ref::<&str>().unwrap_or(&"no reason given").to_string(),
            })
            .collect();
        words.join("; ")
    }
}

/// From the evaluating thread to the encoding one.
enum Raw {
    Tidings(Tidings),
    Image { job: Job, receipt: Box<Receipt>, sample: Vec<f32> },
    Preview { job: Job, index: usize, x0: Vec<f32> },
}

fn evaluate(
    models: &[(PathBuf, EngineOptions)],
    mut commands: mpsc::Receiver<Command>,
    out: &blocking::SyncSender<Raw>,
) {
    let tell = |tidings| out.send(Raw::Tidings(tidings)).is_ok();
    let mut pipelines = match load(models, &mut |stage| _ = tell(Tidings::Stage(stage))) {
        Ok(pipelines) => pipelines,
        Err(reason) => {
            tell(Tidings::Unable(reason));
            return;
        }
    };
    let cards = pipelines.iter().map(|p| ModelCard::of(p.model())).collect();
    if !tell(Tidings::Ready(cards)) {
        return;
    }
    let mut paces: VecDeque<Pace> = pipelines.iter().map(|_| Pace::default()).collect();
    let mut alive = true;
    while alive {
        let idle = pipelines.iter().all(Pipeline::is_idle);
        let command = if idle { commands.blocking_recv().map(Some).ok_or(()) } else { poll(&mut commands) };
        match command {
            Err(()) => return,
            Ok(Some(command)) => {
                obey(command, &mut pipelines, &mut |event| alive &= pass(event, out));
                continue; // all that was ordered counts in the next evaluation
            }
            Ok(None) => {}
        }
        for (pipeline, pace) in pipelines.iter_mut().zip(&mut paces) {
            if pipeline.is_idle() {
                continue;
            }
            let start = Instant::now();
            pipeline.turn(&mut |event| alive &= pass(event, out));
            if let Some(ms_per_nfe) = pace.measured(start.elapsed()) {
                let model = pipeline.model().bundle.name.clone();
                alive &= tell(Tidings::Pace { model, ms_per_nfe });
            }
        }
    }
}

/// A command if one is there, an error if none will come any more.
fn poll(commands: &mut mpsc::Receiver<Command>) -> Result<Option<Command>, ()> {
    match commands.try_recv() {
        Ok(command) => Ok(Some(command)),
        Err(mpsc::error::TryRecvError::Empty) => Ok(None),
        Err(mpsc::error::TryRecvError::Disconnected) => Err(()),
    }
}

fn load(models: &[(PathBuf, EngineOptions)], on: &mut dyn FnMut(Stage)) -> Result<Vec<Pipeline>, String> {
    let mut pipelines: Vec<Pipeline> = Vec::new();
    for (path, engine) in models {
        log::info!("loading {}", path.display());
        let model = Model::load_telling(path, engine, on).map_err(|error| error.to_string())?;
        let name = &model.bundle.name;
        if pipelines.iter().any(|other| &other.model().bundle.name == name) {
            return Err(format!("models.paths: two models are called {name}; rename a directory"));
        }
        pipelines.push(Pipeline::new(model));
    }
    if pipelines.is_empty() {
        return Err("models.paths is empty; name at least one bundle".to_owned());
    }
    Ok(pipelines)
}

fn obey(command: Command, pipelines: &mut [Pipeline], on: &mut dyn FnMut(Event<'_>)) {
    match command {
        Command::Draw(job) => {
            let name = &job.model.bundle.name;
            let pipeline = pipelines.iter_mut().find(|p| &p.model().bundle.name == name);
            if let Some(pipeline) = pipeline {
                pipeline.accept(*job);
            }
        }
        Command::Cancel(id) => {
            for pipeline in pipelines {
                if pipeline.cancel(&id, on) {
                    break;
                }
            }
        }
    }
}

/// Pass an event on; tells whether anyone still listens. Progress that finds no room is dropped.
fn pass(event: Event<'_>, out: &blocking::SyncSender<Raw>) -> bool {
    let news = |job: &Job, what| {
        let id = job.id.clone();
        Raw::Tidings(Tidings::Job(News { id, what }))
    };
    match event {
        Event::Progress { job, step, of, eta_ms } => {
            let sent = out.try_send(news(job, What::Progress { step, of, eta_ms }));
            !matches!(sent, Err(blocking::TrySendError::Disconnected(_)))
        }
        Event::Preview { job, index, x0 } => {
            let (job, x0) = (job.clone(), x0.to_vec());
            out.send(Raw::Preview { job, index, x0 }).is_ok()
        }
        Event::Image { job, receipt, sample } => {
            let job = job.clone();
            out.send(Raw::Image { job, receipt, sample }).is_ok()
        }
        Event::Finished { job, elapsed_ms } => out.send(news(job, What::Finished { elapsed_ms })).is_ok(),
        Event::Failed { job, error } => out.send(news(job, What::Failed(error))).is_ok(),
    }
}

fn encode(raw: &blocking::Receiver<Raw>, tidings: &mpsc::Sender<Tidings>) {
    for item in raw {
        let told = match item {
            Raw::Tidings(told) => told,
            Raw::Image { job, receipt, sample } => {
                let format = job.format;
                let what = match encode_as(format, &sample, &job) {
                    Ok(bytes) => What::Image { receipt, format, bytes },
                    Err(error) => What::Failed(JobError::new(ErrorCode::Encoding, error)),
                };
                Tidings::Job(News { id: job.id, what })
            }
            Raw::Preview { job, index, x0 } => match encode_as(Format::Png, &x0, &job) {
                Ok(png) => Tidings::Job(News { id: job.id, what: What::Preview { index, png } }),
                Err(_) => continue, // what is no picture has no preview
            },
        };
        if tidings.blocking_send(told).is_err() {
            return;
        }
    }
}

fn encode_as(format: Format, sample: &[f32], job: &Job) -> Result<Vec<u8>, image::ImageError> {
    let shape = &job.model.signature.sample_shape;
    image::encode(format, sample, shape, &job.model.bundle.manifest)
}

/// A running mean of how long an evaluation takes, told once in a while.
#[derive(Debug, Default)]
struct Pace {
    mean_ms: Option<f64>,
    told: Option<Instant>,
}

impl Pace {
    fn measured(&mut self, took: Duration) -> Option<f64> {
        let ms = took.as_secs_f64() * 1e3;
        let mean = self.mean_ms.map_or(ms, |mean| 0.9 * mean + 0.1 * ms);
        self.mean_ms = Some(mean);
        if self.told.is_some_and(|told| told.elapsed() < PACE_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(mean)
    }
}
