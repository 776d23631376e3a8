//! All accepted jobs that are not finished yet.
//!
//! Free of I/O: requests and events go in, effects come out.

mod admission;
mod cancellation;
mod fleet;
mod home_assistant;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::committing_jobs::CommittingJobs;
use super::effects::{Effects, JobEnd};
use super::held_commands::HeldCommands;
use super::local::{LocalAnswer, LocalClient, Preview};
use super::metrics::{Metrics, Outcome};
use super::responses::{ImageEntry, Reply, Responses};
use super::stream::Stream;
use super::undeliverable::UndeliverableReports;
use super::worker::EncodedImage;
use crate::config::{Config, LimitsConfig};
use crate::job::{Job, JobError, ModelCard};
use crate::mqtt::client::UndeliverableReason;
use crate::mqtt::{Message, Topics};
use crate::pipeline::JobEvent;
use crate::spool::{Change, CompletedJobs};
use streams::LiveStream;

/// An accepted job: where its responses go, and which images were sent.
#[derive(Debug)]
struct PendingJob {
    digest: String,
    reply: Option<Reply>,
    /// Where repeats of the request want the answers, once the job is finished.
    repeats: Vec<Reply>,
    images: Vec<ImageEntry>,
    is_cancelled: bool,
    /// The cancellations, which are acknowledged once the job's end is stored.
    cancellations: HeldCommands,
    /// The local client that sent the request.
    client: Option<LocalClient>,
    /// The model's name.
    model: String,
    /// When the request arrived, or the job was resumed.
    arrival: std::time::Instant,
}

impl PendingJob {
    fn new(job: &Job, digest: String, reply: Option<Reply>, arrival: std::time::Instant) -> Self {
        Self {
            digest,
            reply,
            repeats: Vec::new(),
            images: Vec::new(),
            is_cancelled: false,
            cancellations: HeldCommands::default(),
            client: None,
            model: job.model.bundle.name.clone(),
            arrival,
        }
    }
}

#[derive(Debug)]
pub(super) struct JobRegistry {
    responses: Responses,
    limits: LimitsConfig,
    /// The memory limit of sessions, in bytes.
    memory: Option<u64>,
    models: Vec<Arc<ModelCard>>,
    /// The names of the models that are in memory.
    open_models: BTreeSet<String>,
    jobs: BTreeMap<String, PendingJob>,
    /// The number of jobs of each model that has any.
    job_counts: BTreeMap<String, usize>,
    /// Those of the jobs that are streams.
    streams: BTreeMap<String, LiveStream>,
    committing: CommittingJobs,
    completed: CompletedJobs,
    undeliverable: UndeliverableReports,
    metrics: Metrics,
    /// Whether the spool keeps the results of finished jobs.
    retains_results: bool,
    is_connected: bool,
    is_closed: bool,
}

impl JobRegistry {
    pub(super) fn new(config: &Config, topics: Topics, completed: CompletedJobs, metrics: Metrics) -> Self {
        Self {
            responses: Responses::new(topics, config.mqtt.qos),
            limits: config.limits.clone(),
            memory: config.memory_limit(),
            models: Vec::new(),
            open_models: BTreeSet::new(),
            jobs: BTreeMap::new(),
            job_counts: BTreeMap::new(),
            streams: BTreeMap::new(),
            is_connected: false,
            committing: CommittingJobs::default(),
            completed,
            undeliverable: UndeliverableReports::default(),
            metrics,
            retains_results: config.spool.keep_s.0 > 0,
            is_closed: false,
        }
    }

    /// Sets the loaded models, with which requests can be validated. Streams of a model that is no longer there end; other
    /// jobs are finished.
    pub(super) fn set_models(&mut self, models: Vec<Arc<ModelCard>>) {
        self.metrics.add_models(models.iter().map(|card| card.bundle.name.as_str()));
        self.models = models;
        self.end_streams_without_model();
    }

    pub(super) fn set_limits(&mut self, limits: LimitsConfig) {
        self.limits = limits;
    }

    /// Rejects all further requests.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether all further requests are rejected.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Builds the messages that answer requests.
    pub(super) fn responses(&self) -> &Responses {
        &self.responses
    }

    /// Returns whether the models are loaded, without which requests cannot be validated.
    pub(super) fn has_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// The number of accepted jobs that are not finished.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Handles an event of a job. Events of a job that has failed may still arrive; they are ignored.
    pub(super) fn on_job_event(&mut self, id: &str, event: JobEvent<EncodedImage>) -> Effects {
        let Some(job) = self.jobs.get_mut(id) else {
            return Effects::default();
        };
        let stream = self.streams.get(id).map(|stream| &stream.state);
        match event {
            JobEvent::Progress { step, of, eta_ms } => {
                let report = stream.map(Stream::report);
                Effects::send(self.responses.progress(id, step, of, eta_ms, report))
            }
            JobEvent::Preview { index, image } => {
                let index = stream.map_or(index, Stream::index);
                let copy =
                    job.client.clone().map(|client| (client, Preview { index, bytes: image.bytes.clone() }));
                Effects {
                    local_preview: copy.map(Box::new),
                    ..Effects::send(self.responses.preview(id, index, image))
                }
            }
            JobEvent::Image { mut receipt, image } => {
                receipt.index = stream.map_or(receipt.index, Stream::index);
                let topic = stream.map(Stream::topic);
                self.metrics.on_image(&receipt);
                let copy = job.client.as_ref().map(|_| (image.bytes.clone(), receipt.clone()));
                let (messages, entry) = self.responses.image(*receipt, image, topic, job.reply.as_ref());
                job.images.push(entry);
                let effects = Effects::send(messages);
                match copy {
                    Some((bytes, receipt)) => {
                        effects.and_answer(job.client.as_ref(), || LocalAnswer::Image { bytes, receipt })
                    }
                    None => effects,
                }
            }
            JobEvent::Finished { elapsed_ms } => self
                .on_picture_finished(id, elapsed_ms, Instant::now())
                .unwrap_or_else(|| self.finish(id, elapsed_ms)),
            JobEvent::Failed(_) if self.on_picture_aborted(id) => Effects::default(),
            JobEvent::Failed(error) => self.fail(id, &error),
        }
    }

    fn finish(&mut self, id: &str, elapsed_ms: u64) -> Effects {
        let Some(job) = self.jobs.get_mut(id) else { return Effects::default() };
        let images = std::mem::take(&mut job.images);
        self.metrics.on_job_duration(&job.model, job.arrival.elapsed());
        let messages = self.responses.result(id, images, elapsed_ms, job.reply.as_ref());
        self.complete(id, elapsed_ms, messages)
    }

    /// Ends a job with its result.
    fn complete(&mut self, id: &str, elapsed_ms: u64, messages: Vec<Message>) -> Effects {
        let Some(job) = self.remove(id) else { return Effects::default() };
        log::info!("job {id} finished in {elapsed_ms} ms");
        self.metrics.on_job_end(&job.model, Outcome::Finished);
        let completes = self.retains_results.then(|| id.to_owned());
        if self.retains_results {
            self.committing.insert(id.to_owned(), job.digest);
        }
        let finished = Effects::send(messages).and(Change::Finish { id: id.to_owned() });
        let redeliver =
            |reply: &Reply| Change::Redeliver { id: id.to_owned(), reply: Some(reply.to_record()) };
        let effects = job.repeats.iter().map(redeliver).fold(finished, Effects::and);
        let effects = effects.and_answer(job.client.as_ref(), || LocalAnswer::Finished { elapsed_ms });
        let job_end = Some(Box::new(JobEnd::finished(id, elapsed_ms)));
        Effects { completes, completed_commands: job.cancellations.into_inner(), job_end, ..effects }
    }

    fn fail(&mut self, id: &str, error: &JobError) -> Effects {
        let Some(job) = self.remove(id) else { return Effects::default() };
        self.streams.remove(id);
        log::warn!("job {id} failed: {error}");
        self.metrics.on_job_end(&job.model, Outcome::Failed(error.code));
        let replies: Vec<_> = job.reply.into_iter().chain(job.repeats).collect();
        let effects = Effects::send(self.errors(id, error, &replies))
            .and(Change::Forget(id.to_owned()))
            .and_answer(job.client.as_ref(), || LocalAnswer::Failed(error.clone()));
        let job_end = Some(Box::new(JobEnd::failed(id, error)));
        Effects { completed_commands: job.cancellations.into_inner(), job_end, ..effects }
    }

    /// The error of a job on the daemon's own topic, and a copy for each response topic.
    fn errors(&self, id: &str, error: &JobError, replies: &[Reply]) -> Vec<Message> {
        let mut messages = self.responses.error(id, error, replies.first());
        for reply in replies.iter().skip(1) {
            // The first message is for the daemon's own topic, where the error is already.
            messages.extend(self.responses.error(id, error, Some(reply)).into_iter().skip(1));
        }
        messages
    }

    /// Sets the number of the spool command whose commit completes the finished job.
    pub(super) fn set_completing_command(&mut self, id: String, number: u64) {
        self.committing.set_command(id, number);
    }

    /// Called after the spool has written `commands` commands.
    pub(super) fn on_spool_written(&mut self, commands: u64) {
        self.committing.on_written(commands);
    }

    /// Handles a message that the broker permanently rejects.
    pub(super) fn on_undeliverable(&mut self, message: &Message, reason: &UndeliverableReason) -> Effects {
        Effects::send(self.undeliverable.report(&self.responses, message, reason))
    }
}
