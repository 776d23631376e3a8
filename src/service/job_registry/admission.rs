//! Requests are accepted or rejected, and jobs of an earlier run are resumed.

use std::sync::Arc;

use tokio::time::Instant;

use super::{JobRegistry, PendingJob};
use crate::job::{ErrorCode, Job, JobError, Request, StreamSettings, to_id};
use crate::mqtt::client::Incoming;
use crate::service::effects::{Admission, Effects, JobEnd};
use crate::service::local::{LocalAnswer, LocalRequest};
use crate::service::parsed_request::{ParsedRequest, RejectedRequest};
use crate::service::pending_fetches::FetchedTopics;
use crate::service::responses::Reply;
use crate::service::stream::Stream;
use crate::service::worker::WorkerCommand;
use crate::spool::{AcceptedJob, Change};
use crate::units::counted;

/// The most response topics of repeats that a job remembers.
const MAX_REPEATS: usize = 16;

impl JobRegistry {
    /// Handles a request over MQTT.
    pub(in crate::service) fn on_request(&mut self, incoming: &Incoming, spool_has_room: bool) -> Admission {
        self.on_parsed(ParsedRequest::parse(incoming, &self.limits, &self.responses), spool_has_room)
    }

    /// Handles a request of this process.
    pub(in crate::service) fn on_local_request(
        &mut self,
        request: LocalRequest,
        spool_has_room: bool,
    ) -> Admission {
        self.on_parsed(ParsedRequest::parse_local(request, &self.limits), spool_has_room)
    }

    fn on_parsed(
        &mut self,
        parsed: Result<ParsedRequest, Box<RejectedRequest>>,
        spool_has_room: bool,
    ) -> Admission {
        match parsed {
            Ok(request) => self.admit(Box::new(request), &FetchedTopics::new(), spool_has_room),
            Err(rejected) => Admission::Decided(self.reject(*rejected)),
        }
    }

    /// Accepts or rejects a parsed request. `fetched` has the retained messages that it names.
    pub(in crate::service) fn admit(
        &mut self,
        mut request: Box<ParsedRequest>,
        fetched: &FetchedTopics,
        spool_has_room: bool,
    ) -> Admission {
        if let Some(effects) = self.repeated(&request) {
            return Admission::Decided(self.with_claim(
                effects,
                request.claim_topic.clone(),
                request.request.id.clone(),
                true,
            ));
        }
        if let Some(declined) = self.declined(&request) {
            return Admission::Decided(declined);
        }
        let checked = self.check_capacity(spool_has_room).and_then(|()| self.check_stream(&mut request));
        let attached = checked.and_then(|stream| {
            let missing = request.request.attach(fetched, self.limits.payload.0)?;
            Ok((stream, missing))
        });
        let validated = match attached {
            Ok((_, topics)) if !topics.is_empty() => return Admission::NeedsTopics(request, topics),
            Ok((None, _)) if self.is_to_be_forwarded(&request) => {
                return Admission::Forward(self.filled_for_forwarding(request));
            }
            Ok((stream, _)) => self.validate(&request.request).map(|job| (job, stream)),
            Err(error) => Err(error),
        };
        let claim_topic = request.claim_topic.clone();
        let id = request.request.id.clone();
        let effects = match validated {
            Ok((job, stream)) => {
                let job = job.with_arrival(request.arrival);
                self.accept(*request, job, stream)
            }
            Err(error) if self.is_left_to_sender(&request, &error) => {
                return Admission::Decided(self.decline(&request));
            }
            Err(error) => self.reject(request.reject(error)),
        };
        Admission::Decided(self.with_claim(effects, claim_topic, id, true))
    }

    /// Validates a request, without the pictures of its stream if it is one.
    pub(super) fn validate(&self, request: &Request) -> Result<Job, JobError> {
        let (limits, random) = (self.limits.job(self.memory), || fastrand::u64(..));
        match request.stream {
            Some(_) => request.check_without_picture(&self.models, limits, random),
            None => request.check(&self.models, limits, random),
        }
    }

    /// Validates the stream of a request.
    fn check_stream(&self, request: &mut ParsedRequest) -> Result<Option<StreamSettings>, JobError> {
        let stream = request.request.check_stream()?;
        if let Some(stream) = &stream {
            self.responses.check_stream_topic(&stream.topic, request.reply.as_ref())?;
        }
        Ok(stream)
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
        // A local client does not get the answers that the spool has.
        if !is_same || request.client.is_some() {
            let message = format!("another request with the id {id} was accepted before; choose a new id");
            let error =
                JobError { field: Some("id".to_owned()), ..JobError::new(ErrorCode::Conflict, message) };
            return Some(self.reject(RejectedRequest {
                id: Some(id.clone()),
                reply: request.reply.clone(),
                client: request.client.clone(),
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
    fn accept(&mut self, parsed: ParsedRequest, job: Job, stream: Option<StreamSettings>) -> Effects {
        let ParsedRequest { request, digest, reply, client, arrival, .. } = parsed;
        // With the generated id and seed, the job gives the same bytes when it is resumed after a restart.
        let filled = Request { id: Some(job.id.clone()), seed: Some(job.seed), ..request };
        let accepted = AcceptedJob {
            id: job.id.clone(),
            digest: digest.clone(),
            request: serde_json::to_value(&filled).expect("a request was parsed from JSON"),
            reply: reply.as_ref().map(Reply::to_record),
        };
        let stream = stream.map(|settings| {
            let state = Stream::new(settings, arrival.into(), Instant::now(), self.is_connected);
            (filled, state)
        });
        let pending = PendingJob { client, ..PendingJob::new(&job, digest, reply, arrival) };
        let worker_command = self.start(job, pending, stream);
        Effects { worker_command, ..Effects::default().and(Change::Accept(accepted)) }
    }

    /// Starts a job. A stream comes with its request, and gets no worker command before its first picture.
    fn start(
        &mut self,
        job: Job,
        pending: PendingJob,
        stream: Option<(Request, Stream)>,
    ) -> Option<WorkerCommand> {
        self.insert(job.id.clone(), pending);
        if let Some((request, state)) = stream {
            self.start_stream(&job, request, state);
            return None;
        }
        log::info!(
            "job {}: {} × {} by {} in {}, seed {}",
            job.id,
            job.count,
            job.model.bundle.name,
            job.sampler_name,
            counted(job.options.steps as u64, "step"),
            job.seed
        );
        if !self.is_open(&job.model.bundle.name) {
            log::info!("job {} waits until {} is in memory", job.id, job.model.bundle.name);
        }
        Some(WorkerCommand::Run(Arc::new(job)))
    }

    /// Resumes a job that was accepted before the daemon's start.
    pub(in crate::service) fn resume(&mut self, accepted: AcceptedJob) -> Effects {
        let reply = accepted.reply.map(Reply::from_record);
        let request = serde_json::from_value::<Request>(accepted.request)
            .map_err(|error| JobError::new(ErrorCode::BadRequest, error));
        let validated = request.and_then(|mut request| {
            let (stream, job) = (request.check_stream()?, self.validate(&request)?);
            let now = Instant::now();
            let state = |settings| Stream::new(settings, now, now, self.is_connected).resumed();
            Ok((job, stream.map(|settings| (request, state(settings)))))
        });
        match validated {
            Ok((job, stream)) => {
                let pending = PendingJob::new(&job, accepted.digest, reply, std::time::Instant::now());
                let worker_command = self.start(job, pending, stream);
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

    pub(in crate::service) fn reject(
        &self,
        RejectedRequest { id, reply, client, error }: RejectedRequest,
    ) -> Effects {
        let id = id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        log::warn!("{} rejected: {error}", to_id(&id));
        self.metrics.on_rejected(error.code.name());
        let is_temporary = matches!(error.code, ErrorCode::QueueFull | ErrorCode::Unavailable);
        let job_end = Some(Box::new(JobEnd::failed(&id, &error)));
        let effects = Effects::send(self.responses.error(&id, &error, reply.as_ref()))
            .and_answer(client.as_ref(), || LocalAnswer::Failed(error));
        Effects { job_end, is_temporary, ..effects }
    }
}
