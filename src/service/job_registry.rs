//! All accepted jobs that are not finished yet.
//!
//! Free of I/O: requests and events go in, effects come out.

mod cancellation;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::committing_jobs::CommittingJobs;
use super::effects::{Admission, Effects};
use super::held_commands::HeldCommands;
use super::parsed_request::{ParsedRequest, RejectedRequest};
use super::pending_fetches::FetchedTopics;
use super::responses::{ImageEntry, Reply, Responses};
use super::undeliverable::UndeliverableReports;
use super::worker::{EncodedImage, WorkerCommand};
use crate::config::{Config, LimitsConfig};
use crate::job::{ErrorCode, Job, JobError, ModelCard, Request, to_id};
use crate::mqtt::client::{Incoming, UndeliverableReason};
use crate::mqtt::{Message, Topics};
use crate::pipeline::JobEvent;
use crate::spool::{AcceptedJob, Change, CommandDigest, CompletedJobs};
use crate::units::counted;

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
}

/// The most response topics of repeats that a job remembers.
const MAX_REPEATS: usize = 16;

#[derive(Debug)]
pub(super) struct JobRegistry {
    responses: Responses,
    limits: LimitsConfig,
    /// The memory limit of sessions, in bytes.
    memory: Option<u64>,
    models: Vec<Arc<ModelCard>>,
    jobs: BTreeMap<String, PendingJob>,
    committing: CommittingJobs,
    completed: CompletedJobs,
    undeliverable: UndeliverableReports,
    /// Whether the spool keeps the results of finished jobs.
    retains_results: bool,
    is_closed: bool,
}

impl JobRegistry {
    pub(super) fn new(config: &Config, topics: Topics, completed: CompletedJobs) -> Self {
        Self {
            responses: Responses::new(topics, config.mqtt.qos),
            limits: config.limits.clone(),
            memory: config.memory_limit(),
            models: Vec::new(),
            jobs: BTreeMap::new(),
            committing: CommittingJobs::default(),
            completed,
            undeliverable: UndeliverableReports::default(),
            retains_results: config.spool.keep_s.0 > 0,
            is_closed: false,
        }
    }

    /// Sets the loaded models, with which requests can be validated.
    pub(super) fn set_models(&mut self, models: Vec<Arc<ModelCard>>) {
        self.models = models;
    }

    /// Replaces the card of a model that is now served by another provider.
    pub(super) fn replace_model(&mut self, card: Arc<ModelCard>) {
        if let Some(known) = self.models.iter_mut().find(|known| known.bundle.name == card.bundle.name) {
            *known = card;
        }
    }

    pub(super) fn set_limits(&mut self, limits: LimitsConfig) {
        self.limits = limits;
    }

    /// Rejects all further requests.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Returns whether the models are loaded, without which requests cannot be validated.
    pub(super) fn has_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// The number of accepted jobs that are not finished.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Handles a request. `command` identifies its message.
    pub(super) fn on_request(
        &mut self,
        incoming: &Incoming,
        command: CommandDigest,
        spool_has_room: bool,
    ) -> Admission {
        match ParsedRequest::parse(incoming, command, &self.limits, &self.responses) {
            Ok(request) => self.admit(Box::new(request), &FetchedTopics::new(), spool_has_room),
            Err(rejected) => Admission::Decided(self.reject(*rejected)),
        }
    }

    /// Accepts or rejects a parsed request. `fetched` has the retained messages that it names.
    pub(super) fn admit(
        &mut self,
        mut request: Box<ParsedRequest>,
        fetched: &FetchedTopics,
        spool_has_room: bool,
    ) -> Admission {
        if let Some(effects) = self.repeated(&request) {
            return Admission::Decided(effects);
        }
        let missing = self
            .check_capacity(spool_has_room)
            .and_then(|()| request.request.attach(fetched, self.limits.payload.0));
        let validated = match missing {
            Ok(topics) if !topics.is_empty() => return Admission::NeedsTopics(request, topics),
            Ok(_) => self.validate(&request.request),
            Err(error) => Err(error),
        };
        Admission::Decided(match validated {
            Ok(job) => {
                let job = job.with_arrival(request.arrival);
                self.accept(*request, job)
            }
            Err(error) => self.reject(request.reject(error)),
        })
    }

    fn validate(&self, request: &Request) -> Result<Job, JobError> {
        request.check(&self.models, self.limits.job(self.memory), || fastrand::u64(..))
    }

    /// Returns the effects if a request with the same id was accepted before.
    fn repeated(&mut self, request: &ParsedRequest) -> Option<Effects> {
        let id = request.request.id.as_ref()?;
        let (is_same, is_finished) = if let Some(job) = self.jobs.get(id) {
            (job.digest == request.digest, false)
        } else if let Some(digest) = self.committing.digest(id) {
            (digest == request.digest, true)
        } else {
            (self.completed.get(id)?.has_digest(&request.digest), true)
        };
        if !is_same {
            let message = format!("another request with the id {id} was accepted before; choose a new id");
            let error =
                JobError { field: Some("id".to_owned()), ..JobError::new(ErrorCode::Conflict, message) };
            return Some(self.reject(RejectedRequest {
                id: Some(id.clone()),
                reply: request.reply.clone(),
                error,
            }));
        }
        if !is_finished {
            self.add_repeat(id, request.reply.as_ref());
            return Some(Effects::default());
        }
        log::info!("job {id} is finished already; sending its stored results again");
        let reply = request.reply.as_ref().map(Reply::to_record);
        Some(Effects::default().and(Change::Redeliver { id: id.clone(), reply }))
    }

    /// Remembers where a repeat of an unfinished job's request wants the answers.
    fn add_repeat(&mut self, id: &str, reply: Option<&Reply>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let is_new = |reply: &&Reply| job.reply.as_ref() != Some(*reply) && !job.repeats.contains(*reply);
        match reply.filter(is_new) {
            Some(reply) if self.retains_results && job.repeats.len() < MAX_REPEATS => {
                log::info!("job {id} is not finished yet; its repeated request is answered afterwards");
                job.repeats.push(reply.clone());
            }
            _ => log::info!("job {id} is not finished yet; ignoring its repeated request"),
        }
    }

    #[expect(clippy::expect_used, reason = "a request holds only values that JSON can represent")]
    fn accept(&mut self, parsed: ParsedRequest, job: Job) -> Effects {
        let ParsedRequest { request, digest, reply, .. } = parsed;
        // With the generated id and seed, the job gives the same bytes when it is resumed after a restart.
        let filled = Request { id: Some(job.id.clone()), seed: Some(job.seed), ..request };
        let accepted = AcceptedJob {
            id: job.id.clone(),
            digest: digest.clone(),
            request: serde_json::to_value(&filled).expect("a request was parsed from JSON"),
            reply: reply.as_ref().map(Reply::to_record),
        };
        let worker_command = Some(self.start(job, digest, reply));
        Effects { worker_command, ..Effects::default().and(Change::Accept(accepted)) }
    }

    fn start(&mut self, job: Job, digest: String, reply: Option<Reply>) -> WorkerCommand {
        log::info!(
            "job {}: {} × {} by {} in {}, seed {}",
            job.id,
            job.count,
            job.model.bundle.name,
            job.sampler_name,
            counted(job.options.steps as u64, "step"),
            job.seed
        );
        let pending = PendingJob {
            digest,
            reply,
            repeats: Vec::new(),
            images: Vec::new(),
            is_cancelled: false,
            cancellations: HeldCommands::default(),
        };
        self.jobs.insert(job.id.clone(), pending);
        WorkerCommand::Run(Arc::new(job))
    }

    /// Resumes a job that was accepted before the daemon's start.
    pub(super) fn resume(&mut self, accepted: AcceptedJob) -> Effects {
        let reply = accepted.reply.map(Reply::from_record);
        let request = serde_json::from_value::<Request>(accepted.request)
            .map_err(|error| JobError::new(ErrorCode::BadRequest, error));
        match request.and_then(|request| self.validate(&request)) {
            Ok(job) => {
                let worker_command = Some(self.start(job, accepted.digest, reply));
                Effects { worker_command, ..Effects::default() }
            }
            Err(error) => {
                log::warn!("cannot resume job {} of an earlier run: {error}", accepted.id);
                let messages = self.responses.error(&accepted.id, &error, reply.as_ref());
                Effects::send(messages).and(Change::Forget(accepted.id))
            }
        }
    }

    fn check_capacity(&self, spool_has_room: bool) -> Result<(), JobError> {
        if self.is_closed {
            return Err(JobError::new(ErrorCode::Unavailable, "the daemon is stopping; try again later"));
        }
        if !spool_has_room {
            let message = "the spool is full of messages for the broker (spool.max_bytes); try again later";
            return Err(JobError::new(ErrorCode::QueueFull, message));
        }
        let max_jobs = self.limits.queue.0;
        if self.jobs.len() as u64 >= max_jobs {
            let jobs = counted(max_jobs, "job");
            let message = format!("the queue is full with {jobs} (limits.queue); try again later");
            return Err(JobError::new(ErrorCode::QueueFull, message));
        }
        Ok(())
    }

    fn reject(&self, RejectedRequest { id, reply, error }: RejectedRequest) -> Effects {
        let id = id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        log::warn!("{} rejected: {error}", to_id(&id));
        let is_temporary = matches!(error.code, ErrorCode::QueueFull | ErrorCode::Unavailable);
        Effects { is_temporary, ..Effects::send(self.responses.error(&id, &error, reply.as_ref())) }
    }

    /// Handles an event of a job. Events of a job that has failed may still arrive; they are ignored.
    pub(super) fn on_job_event(&mut self, id: &str, event: JobEvent<EncodedImage>) -> Effects {
        let Some(job) = self.jobs.get_mut(id) else {
            return Effects::default();
        };
        match event {
            JobEvent::Progress { step, of, eta_ms } => {
                Effects::send(self.responses.progress(id, step, of, eta_ms))
            }
            JobEvent::Preview { index, image } => Effects::send(self.responses.preview(id, index, image)),
            JobEvent::Image { receipt, image } => {
                let (messages, entry) = self.responses.image(*receipt, image, job.reply.as_ref());
                job.images.push(entry);
                Effects::send(messages)
            }
            JobEvent::Finished { elapsed_ms } => self.finish(id, elapsed_ms),
            JobEvent::Failed(error) => self.fail(id, &error),
        }
    }

    fn finish(&mut self, id: &str, elapsed_ms: u64) -> Effects {
        let Some(job) = self.jobs.remove(id) else { return Effects::default() };
        log::info!("job {id} finished in {elapsed_ms} ms");
        let completes = self.retains_results.then(|| id.to_owned());
        if self.retains_results {
            self.committing.insert(id.to_owned(), job.digest);
        }
        let messages = self.responses.result(id, job.images, elapsed_ms, job.reply.as_ref());
        let finished = Effects::send(messages).and(Change::Finish { id: id.to_owned() });
        let redeliver =
            |reply: &Reply| Change::Redeliver { id: id.to_owned(), reply: Some(reply.to_record()) };
        let effects = job.repeats.iter().map(redeliver).fold(finished, Effects::and);
        Effects { completes, completed_commands: job.cancellations.into_inner(), ..effects }
    }

    fn fail(&mut self, id: &str, error: &JobError) -> Effects {
        let Some(job) = self.jobs.remove(id) else { return Effects::default() };
        log::warn!("job {id} failed: {error}");
        let replies: Vec<_> = job.reply.into_iter().chain(job.repeats).collect();
        let effects = Effects::send(self.errors(id, error, &replies)).and(Change::Forget(id.to_owned()));
        Effects { completed_commands: job.cancellations.into_inner(), ..effects }
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
