//! Jobs from other interfaces of this process, such as HTTP.
//!
//! Such a job has the JSON of a request over MQTT, and the same queue, limits, spool and answers. Its client gets a copy
//! of the answers on a queue of its own.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::metrics::Metrics;
use super::model_summary::ModelSummary;
use super::status::State;
use crate::config::LimitsConfig;
use crate::job::JobError;
use crate::job::receipt::Receipt;

/// Requests that may wait for the service.
const REQUEST_QUEUE_LEN: usize = 64;

/// A request from this process.
#[derive(Debug)]
pub(crate) struct LocalRequest {
    /// The job, as on the request topic.
    pub(crate) payload: Bytes,
    /// When the request arrived.
    pub(crate) arrival: Instant,
    /// Gets the answers.
    pub(crate) client: LocalClient,
}

/// The sending end of a client's queue of answers.
#[derive(Debug, Clone)]
pub(crate) struct LocalClient {
    answers: mpsc::Sender<LocalAnswer>,
    preview: watch::Sender<Option<Preview>>,
}

/// The receiving end of a client's queue of answers.
#[derive(Debug)]
pub(crate) struct LocalAnswers {
    /// The images, and how the job ended.
    pub(crate) answers: mpsc::Receiver<LocalAnswer>,
    /// The newest preview. A client that is slow misses the older ones.
    pub(crate) preview: watch::Receiver<Option<Preview>>,
}

/// A picture of what an unfinished image may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preview {
    /// The number of the image in its job, from 0.
    pub(crate) index: usize,
    /// The PNG file.
    pub(crate) bytes: Bytes,
}

/// An answer to a local request.
#[derive(Debug)]
pub(crate) enum LocalAnswer {
    /// An image is finished.
    Image {
        /// The file.
        bytes: Bytes,
        /// How it was made.
        receipt: Box<Receipt>,
    },
    /// The job is finished. No answer follows.
    Finished {
        /// Time since the job was accepted, in milliseconds.
        elapsed_ms: u64,
    },
    /// The request was rejected, or the job failed. No answer follows.
    Failed(JobError),
}

impl LocalClient {
    /// Creates a client whose queue holds this many answers.
    pub(crate) fn new(answers: usize) -> (Self, LocalAnswers) {
        let (sender, answers) = mpsc::channel(answers);
        let (preview_sender, preview) = watch::channel(None);
        (Self { answers: sender, preview: preview_sender }, LocalAnswers { answers, preview })
    }

    /// Shows a preview in place of the last one.
    pub(super) fn show(&self, preview: Preview) {
        self.preview.send_replace(Some(preview));
    }

    /// Sends an answer. A client that has gone, or whose queue is full, does not get it; its job goes on.
    pub(super) fn send(&self, answer: LocalAnswer) {
        drop(self.answers.try_send(answer));
    }
}

/// The daemon as the interfaces of this process see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// The published state.
    pub(crate) state: State,
    /// The loaded models, in the order of the configuration.
    pub(crate) models: Arc<[ModelSummary]>,
    /// The current limits.
    pub(crate) limits: LimitsConfig,
    /// Whether the broker has given the daemon its subscription on this connection.
    pub(crate) is_connected: bool,
    /// Whether the worker makes progress.
    pub(crate) is_alive: bool,
    /// The size of the messages that the broker has not acknowledged, in bytes.
    pub(crate) spool_bytes: u64,
}

/// The service's end of the connection to the interfaces of this process. The default has none.
#[derive(Debug)]
pub struct LocalPort {
    pub(super) requests: mpsc::Receiver<LocalRequest>,
    pub(super) snapshot: watch::Sender<Option<Snapshot>>,
    pub(super) metrics: Metrics,
}

impl Default for LocalPort {
    fn default() -> Self {
        // Without a sender the queue is closed.
        Self { requests: mpsc::channel(1).1, snapshot: watch::Sender::new(None), metrics: Metrics::default() }
    }
}

/// The interfaces' end of the connection to the service.
#[derive(Debug, Clone)]
pub(crate) struct LocalHandle {
    /// Sends requests to the service.
    pub(crate) requests: mpsc::Sender<LocalRequest>,
    /// The newest snapshot; `None` until the service has opened its spool.
    pub(crate) snapshot: watch::Receiver<Option<Snapshot>>,
    /// The daemon's metrics.
    pub(crate) metrics: Metrics,
}

/// Creates a connection between the service and the interfaces of this process.
pub(crate) fn connection() -> (LocalHandle, LocalPort) {
    let (request_sender, requests) = mpsc::channel(REQUEST_QUEUE_LEN);
    let (snapshot, snapshots) = watch::channel(None);
    let metrics = Metrics::recording();
    let handle = LocalHandle { requests: request_sender, snapshot: snapshots, metrics: metrics.clone() };
    (handle, LocalPort { requests, snapshot, metrics })
}
