//! Loads the models and runs jobs on threads of its own: one evaluates, and one encodes images
//! while the next batch is evaluated.

mod encode;
mod evaluate;
mod events;
mod load;
mod loaded_model;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::heartbeat::Heartbeat;
use crate::config::Config;
use crate::inference::LoadStage;
use crate::job::{Job, ModelCard};
use crate::model::Model;
use crate::platform::ThermalThrottle;
use encode::run_encoder;
use evaluate::Evaluator;
use events::EventSender;

pub(super) use encode::EncodedImage;
pub(super) use events::{ModelEvent, WorkerEvent};
pub(super) use load::{LoadFault, ModelLoad};

/// Finished samples that may wait for the encoder.
const ENCODE_QUEUE_LEN: usize = 32;
/// Events that may wait for the service.
const EVENT_QUEUE_LEN: usize = 64;
/// The smallest number of jobs for which the command queue has room.
const MIN_COMMAND_JOBS: usize = 100_000;

#[derive(Debug)]
pub(super) enum WorkerCommand {
    /// Run a job.
    Run(Arc<Job>),
    /// Cancel the job with this id.
    Cancel(String),
    /// Check for work: the codec thread has completed a task.
    Wake,
    /// Load a model while the others serve.
    Load(Box<ModelLoad>),
    /// The load with this number has reached this stage.
    LoadStage { number: u64, stage: LoadStage },
    /// Add the model of the load with this number, which has ended.
    AddModel { number: u64, outcome: Result<Box<Model>, LoadFault> },
    /// Let a model leave memory once its jobs are finished. No further job of it follows.
    Retire(Arc<ModelCard>),
    /// Close the sessions of a model that has no jobs. Its next job opens them.
    Close(Arc<ModelCard>),
    /// Replace a model by the same model on another provider, once none of its jobs is running.
    ReplaceModel(Box<Model>),
    /// End with this reason: the required provider does not work.
    Abort(String),
}

/// The service's handle of the worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once the worker is stopped.
    commands: Option<mpsc::Sender<WorkerCommand>>,
    pub(super) events: mpsc::Receiver<WorkerEvent<EncodedImage>>,
    pub(super) heartbeat: Heartbeat,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Starts loading the models. `unfinished` is the number of jobs to be resumed.
    pub(super) fn start(config: &Config, unfinished: usize) -> Self {
        // Room for two commands of each job, even if a reload raises the limit.
        let max_jobs = (config.limits.queue.0 as usize).max(MIN_COMMAND_JOBS);
        let (commands, command_queue) = mpsc::channel(2 * max_jobs + unfinished);
        let (encoded_sender, encoded_events) = mpsc::channel(EVENT_QUEUE_LEN);
        let (raw_sender, raw_events) = blocking::sync_channel(ENCODE_QUEUE_LEN);
        let options = |path: &PathBuf| (path.clone(), config.engine_options(path));
        let models: Vec<_> = config.models.paths.iter().map(options).collect();
        let throttle = ThermalThrottle::new(config.board.platform(), config.board.pause_above_celsius());
        let embeds_receipts = config.receipt.embed;
        let heartbeat = Heartbeat::default();
        let sender = EventSender::new(raw_sender, heartbeat.clone());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        // A weak sender: an engine that is still being built must not keep the worker running.
        let own_commands = commands.downgrade();
        let threads = [
            spawn(
                "evaluate",
                Box::new(move || Evaluator::run(&models, command_queue, &own_commands, sender, throttle)),
            ),
            spawn("encode", Box::new(move || run_encoder(embeds_receipts, &raw_events, &encoded_sender))),
        ];
        Self {
            commands: Some(commands),
            events: encoded_events,
            heartbeat,
            threads: threads.into_iter().filter_map(Result::ok).collect(),
        }
    }

    /// Sends a command, which is handled before the next evaluation.
    ///
    /// The queue has room for a `Run` and a `Cancel` of every accepted job, so this never waits, and the
    /// service never deadlocks with a worker that waits for its events to be read.
    pub(super) fn send(&self, command: WorkerCommand) {
        if let Some(Err(error)) = self.commands.as_ref().map(|commands| commands.try_send(command)) {
            // The closed event queue reports a worker that has ended.
            log::error!("cannot send command to the worker: {error}");
        }
    }

    /// Ends the worker after the current evaluation, with its jobs unfinished.
    pub(super) fn stop(&mut self) {
        self.commands = None;
        self.events.close();
    }

    /// Returns the panic messages of threads that have ended.
    pub(super) fn panic_messages(&mut self) -> String {
        let panics = self.threads.drain(..).filter_map(|thread| thread.join().err());
        let messages: Vec<_> = panics.map(|panic| crate::panics::message(&*panic)).collect();
        messages.join("; ")
    }
}
