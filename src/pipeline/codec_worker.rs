//! Runs prompt encoding and VAE decoding on a background thread, or inline if memory only allows
//! one session at a time (otherwise the two threads would evict each other's sessions).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batcher::ImageId;
use super::prepared::{Prepared, latent_error};
use crate::bundle::Signature;
use crate::job::{Job, JobError};
use crate::model::{LatentPipeline, Model};

/// The most tasks in the background thread's queue.
const MAX_PENDING_TASKS: usize = 32;

/// Called on the background thread after each completed task.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

pub(super) enum CodecTask {
    /// Encode the prompts and the init image of a job.
    Encode { job_number: u64, job: Arc<Job> },
    /// Decode the latents of an image.
    Decode { image: ImageId, latents: Vec<f32>, shape: Vec<usize> },
}

pub(super) enum CodecResult {
    Encoded { job_number: u64, prepared: Result<Prepared, JobError> },
    Decoded { image: ImageId, picture: Result<Vec<f32>, JobError>, latents: Vec<f32>, elapsed: Duration },
}

pub(super) struct CodecWorker {
    codec: Codec,
    results: VecDeque<CodecResult>,
    thread: Option<CodecThread>,
}

#[derive(Clone)]
struct Codec {
    latent: Option<Arc<LatentPipeline>>,
    signature: Signature,
}

impl Codec {
    fn run(&self, task: CodecTask) -> CodecResult {
        match task {
            CodecTask::Encode { job_number, job } => {
                let prepared = Prepared::new(&job, self.latent.as_deref(), &self.signature);
                CodecResult::Encoded { job_number, prepared }
            }
            CodecTask::Decode { image, latents, shape } => {
                let start = Instant::now();
                let picture = match &self.latent {
                    Some(latent) => latent.decode(&latents, &shape).map(|picture| picture.data),
                    None => Ok(latents.clone()),
                };
                let picture = picture.map_err(|error| latent_error(&error));
                CodecResult::Decoded { image, picture, latents, elapsed: start.elapsed() }
            }
        }
    }
}

impl Codec {
    /// Opens the decoder while the network is opened or evaluates. Decoding reports an error.
    fn open_decoder(&self) {
        if let Some(Err(error)) = self.latent.as_ref().map(|latent| latent.open_decoder()) {
            log::debug!("cannot open the decoder in advance: {error}");
        }
    }
}

struct CodecThread {
    /// `None` only while the thread is being joined: it ends when its queue is closed.
    tasks: Option<blocking::SyncSender<CodecTask>>,
    results: mpsc::Receiver<CodecResult>,
    pending: usize,
    handle: Option<JoinHandle<()>>,
}

impl CodecWorker {
    pub(super) fn new(model: &Model, wake: &Wake) -> Self {
        let codec = Codec { latent: model.latent.clone(), signature: model.predictor.signature().clone() };
        let overlaps = codec.latent.as_ref().is_some_and(|latent| latent.overlaps);
        let thread = if overlaps { CodecThread::spawn(codec.clone(), Arc::clone(wake)) } else { None };
        Self { codec, results: VecDeque::new(), thread }
    }

    /// Queues a task, or runs it now if there is no background thread.
    pub(super) fn submit(&mut self, task: CodecTask) {
        let Some(thread) = &mut self.thread else {
            return self.results.push_back(self.codec.run(task));
        };
        if thread.pending == MAX_PENDING_TASKS {
            self.results.push_back(thread.recv());
        }
        thread.submit(task);
    }

    /// Returns whether [`Self::try_recv`] would return a result.
    pub(super) fn has_results(&self) -> bool {
        !self.results.is_empty() || self.thread.as_ref().is_some_and(|thread| !thread.results.is_empty())
    }

    /// Returns the next result without waiting.
    pub(super) fn try_recv(&mut self) -> Option<CodecResult> {
        if self.results.is_empty() && self.has_results() {
            return self.thread.as_mut().map(CodecThread::recv);
        }
        self.results.pop_front()
    }

    /// Waits for a result, if a task is pending.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.thread.as_mut().filter(|thread| thread.pending > 0) {
            self.results.push_back(thread.recv());
        }
    }
}

impl CodecThread {
    fn spawn(codec: Codec, wake: Wake) -> Option<Self> {
        let (tasks, task_queue) = blocking::sync_channel(MAX_PENDING_TASKS);
        let (result_sender, results) = mpsc::channel(MAX_PENDING_TASKS);
        let run = move || {
            let mut is_decoder_open = false;
            for task in task_queue {
                let is_encoded = matches!(task, CodecTask::Encode { .. });
                if result_sender.blocking_send(codec.run(task)).is_err() {
                    return;
                }
                wake();
                if is_encoded && !std::mem::replace(&mut is_decoder_open, true) {
                    codec.open_decoder();
                }
            }
        };
        let spawned = std::thread::Builder::new().name("codec".to_owned()).spawn(run);
        let handle = spawned
            .inspect_err(|error| log::warn!("cannot start the codec thread, encoding inline: {error}"));
        Some(Self { tasks: Some(tasks), results, pending: 0, handle: Some(handle.ok()?) })
    }

    fn submit(&mut self, task: CodecTask) {
        self.pending += 1;
        // The queue has room for all pending tasks; `recv` reports a thread that has ended.
        let _ = self.tasks.as_ref().map(|tasks| tasks.send(task));
    }

    /// Waits for a result, and resumes the thread's panic if it has ended.
    fn recv(&mut self) -> CodecResult {
        self.pending -= 1;
        if let Some(result) = self.results.blocking_recv() {
            return result;
        }
        let panic = self.handle.take().and_then(|handle| handle.join().err());
        std::panic::resume_unwind(panic.unwrap_or_else(|| Box::new("the codec thread ended")))
    }
}

impl Drop for CodecThread {
    fn drop(&mut self) {
        self.tasks = None;
        self.results.close();
        if let Some(handle) = self.handle.take() {
            // `recv` reports a panic to whoever waits for a result.
            let _ = handle.join();
        }
    }
}
