//! The worker: loads the models and draws, on threads of its own.
//!
//! One thread evaluates; a second one encodes what it finished, while it goes on.

mod encode;
mod evaluate;

use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::heartbeat::Heartbeat;
use crate::config::Config;
use crate::image::Format;
use crate::inference::Stage;
use crate::job::receipt::Receipt;
use crate::job::{Job, JobError, ModelCard};
use crate::model::Model;
use crate::platform::ThermalThrottle;
use encode::encode;
use evaluate::{Evaluator, Out};

/// What the worker is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Draw a job.
    Draw(Box<Job>),
    /// Drop the job with this id.
    Cancel(String),
    /// See which job can go on.
    Look,
    /// Let the same model on another provider take over.
    Succeed(Box<Model>),
    /// The provider that is required can't take over, for this reason.
    GiveUp(String),
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
pub(super) enum WorkerEvent {
    /// What the loading of the models is at.
    Stage(Stage),
    /// The models are loaded.
    Ready(Vec<ModelCard>),
    /// A model can't be loaded; nothing more will come.
    Unable(String),
    /// A model is served by another provider from now on.
    Changed(Box<ModelCard>),
    /// How long an evaluation of a model takes at present.
    Pace { model: String, ms_per_nfe: f64 },
    /// News of a job.
    Job(News),
}

/// The service's end of the worker.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    pub(super) tidings: mpsc::Receiver<WorkerEvent>,
    pub(super) pulse: Heartbeat,
    threads: Vec<JoinHandle<()>>,
}

/// Finished samples that wait to be encoded.
const RAW: usize = 32;

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
        let governor = ThermalThrottle::new(config.board.machine(), config.board.limit());
        let pulse = Heartbeat::default();
        let felt = pulse.clone();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        // A builder that is late holds nothing up: it is no reason for the evaluating thread to stay.
        let builders = commands.downgrade();
        let threads = [
            spawn(
                "evaluate",
                Box::new(move || Evaluator::run(&models, ordered, &builders, Out::new(raw, felt), governor)),
            ),
            spawn("encode", Box::new(move || encode(&to_encode, &tidings))),
        ];
        Self {
            commands: Some(commands),
            tidings: told,
            pulse,
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
#[derive(Debug)]
enum Raw {
    WorkerEvent(WorkerEvent),
    Image { job: Job, receipt: Box<Receipt>, sample: Vec<f32> },
    Preview { job: Job, index: usize, x0: Vec<f32>, shape: Vec<usize> },
}
