//! The desk: every request that came in and is not answered yet.
//!
//! Free of I/O: messages and news go in, messages and commands come out.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::answers::{Answers, Delivered, Reply};
use super::worker::{Command, News, What};
use crate::config::Config;
use crate::job::{ErrorCode, JobError, JobLimits, ModelCard, parse};
use crate::mqtt::link::Incoming;
use crate::mqtt::{Input, Message, Topics, is_topic};

/// A job in hand: where its answers go, and what was delivered of it.
#[derive(Debug)]
struct InHand {
    reply: Option<Reply>,
    delivered: Vec<Delivered>,
    cancelled: bool,
}

/// All requests in hand.
#[derive(Debug)]
pub(super) struct Desk {
    answers: Answers,
    limits: JobLimits,
    queue: usize,
    payload: usize,
    models: Vec<ModelCard>,
    in_hand: BTreeMap<String, InHand>,
    closed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    id: String,
}

impl Desk {
    pub(super) fn new(config: &Config, topics: Topics) -> Self {
        Self {
            answers: Answers::new(topics, config.mqtt.qos),
            limits: config.limits.job(),
            queue: config.limits.queue.0 as usize,
            payload: usize::try_from(config.limits.payload.0).unwrap_or(usize::MAX),
            models: Vec::new(),
            in_hand: BTreeMap::new(),
            closed: false,
        }
    }

    /// The models are there: requests are taken from now on.
    pub(super) fn open(&mut self, models: Vec<ModelCard>) {
        self.models = models;
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

    /// What a message that came in leads to.
    pub(super) fn receive(&mut self, incoming: &Incoming) -> (Vec<Message>, Option<Command>) {
        match incoming.input {
            Input::Request => self.request(incoming),
            Input::Cancel => self.cancel(&incoming.payload),
        }
    }

    fn request(&mut self, incoming: &Incoming) -> (Vec<Message>, Option<Command>) {
        let reply = match reply(incoming) {
            Ok(reply) => reply,
            Err(error) => return self.refuse(None, None, error),
        };
        if incoming.payload.len() > self.payload {
            let error = JobError::new(
                ErrorCode::OutOfRange,
                format!(
                    "the request has {} bytes; at most {} are taken (limits.payload)",
                    incoming.payload.len(),
                    self.payload
                ),
            );
            return self.refuse(None, reply, error);
        }
        let request = match parse(&incoming.payload) {
            Ok(request) => request,
            Err((id, error)) => return self.refuse(id, reply, error),
        };
        if let Some(id) = request.id.as_ref().filter(|id| self.in_hand.contains_key(*id)) {
            log::info!("job {id} is in hand already; its repeated request is dropped");
            return (Vec::new(), None);
        }
        let checked =
            self.room().and_then(|()| request.check(&self.models, self.limits, || fastrand::u64(..)));
        let job = match checked {
            Ok(job) => job,
            Err(error) => {
                let id = request.id.filter(|id| crate::job::is_id(id));
                return self.refuse(id, reply, error);
            }
        };
        log::info!(
            "job {}: {} × {} by {} in {} steps, seed {}",
            job.id,
            job.count,
            job.model.bundle.name,
            job.sampler_name,
            job.options.steps,
            job.seed
        );
        let in_hand = InHand { reply, delivered: Vec::new(), cancelled: false };
        self.in_hand.insert(job.id.clone(), in_hand);
        (Vec::new(), Some(Command::Draw(Box::new(job))))
    }

    fn room(&self) -> Result<(), JobError> {
        if self.closed {
            return Err(JobError::new(ErrorCode::Unavailable, "the daemon is stopping; ask again later"));
        }
        if self.in_hand.len() >= self.queue {
            let message = format!(
                "{} jobs are in hand, as many as are taken (limits.queue); ask again later",
                self.queue
            );
            return Err(JobError::new(ErrorCode::QueueFull, message));
        }
        Ok(())
    }

    fn refuse(
        &self,
        id: Option<String>,
        reply: Option<Reply>,
        error: JobError,
    ) -> (Vec<Message>, Option<Command>) {
        let id = id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        log::warn!("request {id} refused: {error}");
        (self.answers.error(&id, &error, reply.as_ref()), None)
    }

    fn cancel(&mut self, payload: &Bytes) -> (Vec<Message>, Option<Command>) {
        let Cancellation { id } = match serde_json::from_slice(payload) {
            Ok(cancellation) => cancellation,
            Err(error) => {
                let message = format!("a cancellation looks like {{\"id\": \"…\"}}: {error}");
                return self.refuse(None, None, JobError::new(ErrorCode::BadRequest, message));
            }
        };
        let Some(job) = self.in_hand.get_mut(&id) else {
            log::info!("there is no job {id:?} to cancel");
            return (Vec::new(), None);
        };
        // The worker is told but once; it has room for one cancelling a job.
        let first = !std::mem::replace(&mut job.cancelled, true);
        (Vec::new(), first.then_some(Command::Cancel(id)))
    }

    /// What is told of a job's news.
    pub(super) fn tell(&mut self, News { id, what }: News) -> Vec<Message> {
        // News may still be on their way when their job has failed.
        let Some(job) = self.in_hand.get_mut(&id) else {
            return Vec::new();
        };
        match what {
            What::Progress { step, of, eta_ms } => self.answers.progress(&id, step, of, eta_ms),
            What::Preview { index, png } => self.answers.preview(&id, index, png),
            What::Image { receipt, format, bytes } => {
                let reply = job.reply.as_ref();
                let (messages, delivered) = self.answers.image(*receipt, format, bytes, reply);
                job.delivered.push(delivered);
                messages
            }
            What::Finished { elapsed_ms } => {
                log::info!("job {id} finished in {elapsed_ms} ms");
                match self.in_hand.remove(&id) {
                    Some(job) => self.answers.result(&id, job.delivered, elapsed_ms, job.reply.as_ref()),
                    None => Vec::new(),
                }
            }
            What::Failed(error) => self.fail(&id, &error),
        }
    }

    fn fail(&mut self, id: &str, error: &JobError) -> Vec<Message> {
        log::warn!("job {id} failed: {error}");
        let reply = self.in_hand.remove(id).and_then(|job| job.reply);
        self.answers.error(id, error, reply.as_ref())
    }

    /// Tell every requester still waiting that nothing will come.
    pub(super) fn give_up(&mut self) -> Vec<Message> {
        let ids: Vec<String> = self.in_hand.keys().cloned().collect();
        let error =
            JobError::new(ErrorCode::Unavailable, "the daemon stopped before the job was done; ask again");
        ids.iter().flat_map(|id| self.fail(id, &error)).collect()
    }

    /// A message that the broker would not take: its requester is told.
    pub(super) fn too_large(&self, message: &Message, limit: usize) -> Vec<Message> {
        let id = message.user.iter().find(|(name, _)| *name == "id");
        let error = JobError::new(
            ErrorCode::OutOfRange,
            format!(
                "a message of {} bytes for {} is larger than the {limit} that the broker and \
                 mqtt.max_packet allow; raise that limit, or ask for a smaller image",
                message.packet_size(),
                message.topic
            ),
        );
        log::error!("{error}");
        id.map_or_else(Vec::new, |(_, id)| self.answers.error(id, &error, None))
    }
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
