//! The desk: every request that came in and is not answered yet.
//!
//! Free of I/O: messages and news go in, messages and commands come out.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::pending_fetches::Found;
use super::responses::{Answers, Delivered, Reply};
use super::worker::{Command, News, What};
use crate::config::{Config, LimitsConfig};
use crate::job::{ErrorCode, Job, JobError, ModelCard, Request, parse};
use crate::mqtt::client::{Incoming, Refusal};
use crate::mqtt::{Input, Message, QoS, Topics, is_topic};
use crate::spool::{AcceptedJob, Change, CompletedJobs, Order};

/// A job in hand: where its answers go, and what was delivered of it.
#[derive(Debug)]
struct PendingJob {
    digest: String,
    reply: Option<Reply>,
    delivered: Vec<Delivered>,
    cancelled: bool,
}

/// All requests in hand.
#[derive(Debug)]
pub(super) struct JobRegistry {
    answers: Answers,
    limits: LimitsConfig,
    /// The most that open graphs may take.
    memory: Option<u64>,
    models: Vec<ModelCard>,
    in_hand: BTreeMap<String, PendingJob>,
    done: CompletedJobs,
    /// Whether the answers of finished jobs are kept at all.
    keeps: bool,
    closed: bool,
}

/// What follows from something that happened: orders for the spool, and one for the worker.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) orders: Vec<Order>,
    pub(super) command: Option<Command>,
    /// Topics whose retained messages are needed first; nothing else follows then.
    pub(super) fetch: Vec<String>,
}

impl Effects {
    /// Messages: kept until the broker has them, or passed on where nobody minds their loss.
    fn of(messages: Vec<Message>) -> Self {
        let order = |message: Message| match message.quality {
            QoS::AtMostOnce => Order::Pass(message),
            _ => Order::Change(Change::Send(message)),
        };
        Self { orders: messages.into_iter().map(order).collect(), ..Self::default() }
    }

    fn and(mut self, change: Change) -> Self {
        self.orders.push(Order::Change(change));
        self
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    id: String,
}

impl JobRegistry {
    pub(super) fn new(config: &Config, topics: Topics, done: CompletedJobs) -> Self {
        Self {
            answers: Answers::new(topics, config.mqtt.qos),
            limits: config.limits.clone(),
            memory: config.engine.memory.map(|bytes| bytes.0),
            models: Vec::new(),
            in_hand: BTreeMap::new(),
            done,
            keeps: config.spool.keep_s.0 > 0,
            closed: false,
        }
    }

    /// The models are there: requests are taken from now on.
    pub(super) fn open(&mut self, models: Vec<ModelCard>) {
        self.models = models;
    }

    /// A model is served by another provider.
    pub(super) fn changed(&mut self, card: ModelCard) {
        if let Some(known) = self.models.iter_mut().find(|known| known.bundle.name == card.bundle.name) {
            *known = card;
        }
    }

    /// Other bounds count from now on.
    pub(super) fn set_limits(&mut self, limits: LimitsConfig) {
        self.limits = limits;
    }

    /// Refuse new requests from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether requests can be checked; until then they wait in the link and with the broker.
    pub(super) fn takes_requests(&self) -> bool {
        !self.models.is_empty()
    }

    /// How many jobs are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// Whether none is.
    pub(super) fn is_idle(&self) -> bool {
        self.in_hand.is_empty()
    }

    /// What a message that came in leads to, with what was found on the topics that it names; `room` tells
    /// whether the spool has some.
    pub(super) fn receive(&mut self, incoming: &Incoming, found: &Found, room: bool) -> Effects {
        match incoming.input {
            Input::Request => self.request(incoming, found, room),
            Input::Cancel => self.cancel(&incoming.payload),
        }
    }

    fn request(&mut self, incoming: &Incoming, found: &Found, room: bool) -> Effects {
        let reply = match reply(incoming) {
            Ok(reply) => reply,
            Err(error) => return self.refuse(None, None, &error),
        };
        let most = self.limits.payload.0;
        if incoming.payload.len() as u64 > most {
            let size = incoming.payload.len();
            let message = format!("the request has {size} bytes; at most {most} are taken (limits.payload)");
            return self.refuse(None, reply, &JobError::new(ErrorCode::OutOfRange, message));
        }
        let mut request = match parse(&incoming.payload) {
            Ok(request) => request,
            Err((id, error)) => return self.refuse(id, reply, &error),
        };
        let digest = digest(&request);
        if let Some(outcome) = request.id.as_ref().and_then(|id| self.repeated(id, &digest, reply.as_ref())) {
            return outcome;
        }
        let fetched = self.room(room).and_then(|()| request.attach(found, most));
        if let Some(fetch) = fetched.as_ref().ok().filter(|missing| !missing.is_empty()) {
            return Effects { fetch: fetch.clone(), ..Effects::default() };
        }
        match fetched.and_then(|_| self.check(&request)) {
            Ok(job) => self.accept(request, job, digest, reply),
            Err(error) => {
                let id = request.id.filter(|id| crate::job::is_id(id));
                self.refuse(id, reply, &error)
            }
        }
    }

    fn check(&self, request: &Request) -> Result<Job, JobError> {
        request.check(&self.models, self.limits.job(self.memory), || fastrand::u64(..))
    }

    /// What follows where a request with this id was taken before.
    fn repeated(&self, id: &str, digest: &str, reply: Option<&Reply>) -> Option<Effects> {
        let (same, done) = match self.in_hand.get(id) {
            Some(job) => (job.digest == digest, false),
            None => (self.done.was_done(id, digest)?, true),
        };
        if !same {
            let message = format!("another request with the id {id} was taken before; choose a fresh id");
            let error =
                JobError { field: Some("id".to_owned()), ..JobError::new(ErrorCode::Conflict, message) };
            return Some(self.refuse(Some(id.to_owned()), reply.cloned(), &error));
        }
        if !done {
            log::info!("job {id} is in hand already; its repeated request is dropped");
            return Some(Effects::default());
        }
        log::info!("job {id} was done before; it is answered again from what is kept");
        let reply = reply.map(Reply::to_record);
        Some(Effects::default().and(Change::Repeat { id: id.to_owned(), reply }))
    }

    fn accept(&mut self, request: Request, job: Job, digest: String, reply: Option<Reply>) -> Effects {
        // Whatever was left open is decided now, so that the job can be done again to the same bytes.
        let filled = Request { id: Some(job.id.clone()), seed: Some(job.seed), ..request };
        let accepted = AcceptedJob {
            id: job.id.clone(),
            digest: digest.clone(),
            request: serde_json::to_value(&filled).unwrap_or_default(),
            reply: reply.as_ref().map(Reply::to_record),
        };
        let command = Some(self.begin(job, digest, reply));
        Effects { command, ..Effects::default().and(Change::Accept(accepted)) }
    }

    fn begin(&mut self, job: Job, digest: String, reply: Option<Reply>) -> Command {
        log::info!(
            "job {}: {} × {} by {} in {} steps, seed {}",
            job.id,
            job.count,
            job.model.bundle.name,
            job.sampler_name,
            job.options.steps,
            job.seed
        );
        let in_hand = PendingJob { digest, reply, delivered: Vec::new(), cancelled: false };
        self.in_hand.insert(job.id.clone(), in_hand);
        Command::Draw(Box::new(job))
    }

    /// Go on with a job that was accepted before the daemon's start.
    pub(super) fn resume(&mut self, accepted: AcceptedJob) -> Effects {
        let reply = accepted.reply.map(Reply::of_record);
        let request = serde_json::from_value::<Request>(accepted.request)
            .map_err(|error| JobError::new(ErrorCode::BadRequest, error));
        match request.and_then(|request| self.check(&request)) {
            Ok(job) => {
                Effects { command: Some(self.begin(job, accepted.digest, reply)), ..Effects::default() }
            }
            Err(error) => {
                log::warn!("job {} of an earlier run can't be done any more: {error}", accepted.id);
                let messages = self.answers.error(&accepted.id, &error, reply.as_ref());
                Effects::of(messages).and(Change::Forget(accepted.id))
            }
        }
    }

    fn room(&self, spool: bool) -> Result<(), JobError> {
        if self.closed {
            return Err(JobError::new(ErrorCode::Unavailable, "the daemon is stopping; ask again later"));
        }
        if !spool {
            let message =
                "as much waits for the broker as the spool holds (spool.max_bytes); ask again later";
            return Err(JobError::new(ErrorCode::QueueFull, message));
        }
        let most = self.limits.queue.0;
        if self.in_hand.len() as u64 >= most {
            let message =
                format!("{most} jobs are in hand, as many as are taken (limits.queue); ask again later");
            return Err(JobError::new(ErrorCode::QueueFull, message));
        }
        Ok(())
    }

    fn refuse(&self, id: Option<String>, reply: Option<Reply>, error: &JobError) -> Effects {
        let id = id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        log::warn!("request {id} refused: {error}");
        Effects::of(self.answers.error(&id, error, reply.as_ref()))
    }

    fn cancel(&mut self, payload: &Bytes) -> Effects {
        let Cancellation { id } = match serde_json::from_slice(payload) {
            Ok(cancellation) => cancellation,
            Err(error) => {
                let message = format!("a cancellation looks like {{\"id\": \"…\"}}: {error}");
                return self.refuse(None, None, &JobError::new(ErrorCode::BadRequest, message));
            }
        };
        let Some(job) = self.in_hand.get_mut(&id) else {
            log::info!("there is no job {id:?} to cancel");
            return Effects::default();
        };
        // The worker is told but once; it has room for one cancelling a job.
        let first = !std::mem::replace(&mut job.cancelled, true);
        Effects { command: first.then_some(Command::Cancel(id)), ..Effects::default() }
    }

    /// What follows from a job's news.
    pub(super) fn tell(&mut self, News { id, what }: News) -> Effects {
        // News may still be on their way when their job has failed.
        let Some(job) = self.in_hand.get_mut(&id) else {
            return Effects::default();
        };
        match what {
            What::Progress { step, of, eta_ms } => Effects::of(self.answers.progress(&id, step, of, eta_ms)),
            What::Preview { index, png } => Effects::of(self.answers.preview(&id, index, png)),
            What::Image { receipt, format, bytes } => {
                let reply = job.reply.as_ref();
                let (messages, delivered) = self.answers.image(*receipt, format, bytes, reply);
                job.delivered.push(delivered);
                Effects::of(messages)
            }
            What::Finished { elapsed_ms } => {
                log::info!("job {id} finished in {elapsed_ms} ms");
                let Some(job) = self.in_hand.remove(&id) else { return Effects::default() };
                if self.keeps {
                    self.done.insert(&id, &job.digest);
                }
                let messages = self.answers.result(&id, job.delivered, elapsed_ms, job.reply.as_ref());
                Effects::of(messages).and(Change::Finish { id })
            }
            What::Failed(error) => self.fail(&id, &error),
        }
    }

    fn fail(&mut self, id: &str, error: &JobError) -> Effects {
        log::warn!("job {id} failed: {error}");
        let reply = self.in_hand.remove(id).and_then(|job| job.reply);
        Effects::of(self.answers.error(id, error, reply.as_ref())).and(Change::Forget(id.to_owned()))
    }

    /// A message that the broker will never take: its requester is told.
    pub(super) fn undeliverable(&self, message: &Message, why: &Refusal) -> Effects {
        let id = message.user.iter().find(|(name, _)| name == "id");
        let (size, topic) = (message.packet_size(), &message.topic);
        let error = match why {
            Refusal::TooLarge(limit) => JobError::new(
                ErrorCode::OutOfRange,
                format!(
                    "a message of {size} bytes for {topic} is larger than the {limit} that the broker and \
                     mqtt.max_packet allow; raise that limit, or ask for a smaller image"
                ),
            ),
            Refusal::Denied(reason) => JobError::new(
                ErrorCode::Denied,
                format!(
                    "the broker does not let this daemon publish on {topic} ({reason}); name another \
                     response topic, or allow this one in the broker's access list"
                ),
            ),
        };
        log::error!("{error}");
        Effects::of(id.map_or_else(Vec::new, |(_, id)| self.answers.error(id, &error, None)))
    }
}

/// What tells a repeated request from another one with the same id.
fn digest(request: &Request) -> String {
    let json = serde_json::to_vec(request).unwrap_or_default();
    Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reply(incoming: &Incoming) -> Result<Option<Reply>, JobError> {
    let Some(topic) = &incoming.response_topic else {
        return Ok(None);
    };
    if !is_topic(topic) {
        let message = format!("the response topic {topic:?} can't be published to");
        return Err(JobError::new(ErrorCode::BadRequest, message));
    }
    Ok(Some(Reply { topic: topic.clone(), correlation: incoming.correlation.clone() }))
}
