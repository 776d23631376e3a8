//! Events of the worker, and the evaluating thread's end of their queue.

use std::sync::Arc;
use std::sync::mpsc as blocking;

use crate::inference::LoadStage;
use crate::job::{Job, ModelCard};
use crate::pipeline::{JobEvent, Sample};
use crate::service::heartbeat::Heartbeat;

use super::load::LoadFault;

/// An event of the worker. `I` is the type of images: samples before the encoder, encoded bytes after it.
#[derive(Debug)]
pub(in crate::service) enum WorkerEvent<I> {
    /// An event of the models.
    Model(ModelEvent),
    /// An event of a job.
    Job(Arc<Job>, JobEvent<I>),
}

#[derive(Debug)]
pub(in crate::service) enum ModelEvent {
    /// A model is being loaded.
    Loading(LoadStage),
    /// All models are loaded.
    Ready(Vec<Arc<ModelCard>>),
    /// A model cannot be loaded. This is the worker's last event.
    Failed(String),
    /// A model that is loaded while others serve has reached this stage.
    LoadStage { number: u64, stage: LoadStage },
    /// A model was loaded while others serve, or cannot be loaded.
    Loaded { number: u64, outcome: Result<Arc<ModelCard>, LoadFault> },
    /// A retired model has finished its jobs and left memory.
    Unloaded(Arc<ModelCard>),
    /// The network of a model was opened, or closed, or evicted.
    Open { card: Arc<ModelCard>, is_open: bool },
    /// Another provider serves a model from now on.
    Replaced(Arc<ModelCard>),
    /// The current duration of an evaluation.
    Latency { model: String, ms_per_nfe: f64 },
}

#[derive(Debug, Clone)]
pub(super) struct EventSender {
    events: blocking::SyncSender<WorkerEvent<Sample>>,
    heartbeat: Heartbeat,
    is_connected: bool,
}

impl EventSender {
    pub(super) fn new(events: blocking::SyncSender<WorkerEvent<Sample>>, heartbeat: Heartbeat) -> Self {
        Self { events, heartbeat, is_connected: true }
    }

    /// Returns whether the receiver existed at the latest event.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub(super) fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    pub(super) fn send_model_event(&mut self, event: ModelEvent) {
        self.send(WorkerEvent::Model(event));
    }

    /// Sends an event of a job. Progress is dropped if the queue is full.
    pub(super) fn send_job_event(&mut self, job: &Arc<Job>, event: JobEvent<Sample>) {
        let is_progress = matches!(event, JobEvent::Progress { .. });
        let event = WorkerEvent::Job(Arc::clone(job), event);
        if is_progress {
            let sent = self.events.try_send(event);
            self.is_connected &= !matches!(sent, Err(blocking::TrySendError::Disconnected(_)));
        } else {
            self.send(event);
        }
    }

    /// Sends an event, waiting for room in the queue. It is full for as long as the broker is unreachable and
    /// the spool is full.
    fn send(&mut self, event: WorkerEvent<Sample>) {
        self.is_connected &= match self.events.try_send(event) {
            Ok(()) => true,
            Err(blocking::TrySendError::Full(event)) => {
                self.heartbeat.while_idle(|| self.events.send(event).is_ok())
            }
            Err(blocking::TrySendError::Disconnected(_)) => false,
        };
    }
}
