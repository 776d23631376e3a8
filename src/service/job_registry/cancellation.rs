//! Cancellations of accepted jobs and of requests.

use super::JobRegistry;
use crate::job::{JobError, invalid_cancellation, parse_cancellation};
use crate::mqtt::client::{AckToken, Incoming};
use crate::service::effects::Effects;
use crate::service::parsed_request::{RejectedRequest, reply};
use crate::service::responses::Reply;
use crate::service::stream::StreamEnd;
use crate::service::worker::WorkerCommand;
use crate::spool::CommandDigest;

impl JobRegistry {
    /// Returns the id of the job that a message cancels, or the effects of a message that is not valid.
    pub(in crate::service) fn cancelled_id(&self, incoming: &Incoming) -> Result<String, Box<Effects>> {
        let parsed = parse_cancellation(&incoming.payload);
        match (parsed, reply(incoming, &self.responses)) {
            (Ok(id), Ok(_)) => Ok(id),
            (Ok(id), Err(error)) => {
                let error = invalid_cancellation(Some(&id), error);
                Err(Box::new(self.reject(RejectedRequest { id: Some(id), reply: None, client: None, error })))
            }
            (Err((id, error)), reply) => {
                let reply = reply.unwrap_or_default();
                Err(Box::new(self.reject(RejectedRequest { id, reply, client: None, error })))
            }
        }
    }

    /// Whether this job is accepted and not finished.
    pub(in crate::service) fn has_job(&self, id: &str) -> bool {
        self.jobs.contains_key(id)
    }

    /// Whether a job with this id has ended, and its answers are kept.
    pub(in crate::service) fn is_completed(&self, id: &str) -> bool {
        self.completed.get(id).is_some()
    }

    /// Cancels an accepted job, if there is one. The message is acknowledged when the job has ended.
    pub(in crate::service) fn cancel(&mut self, id: &str, command: CommandDigest, ack: AckToken) -> Effects {
        let Some(job) = self.jobs.get_mut(id) else {
            return Effects { completed_commands: vec![(command, ack)], ..Effects::default() };
        };
        job.cancellations.add(command, ack);
        self.mark_cancelled(id)
    }

    /// Cancels the accepted jobs whose ids begin like this. The message is acknowledged when the last one has ended.
    pub(in crate::service) fn cancel_all(
        &mut self,
        prefix: &str,
        command: CommandDigest,
        ack: AckToken,
    ) -> Vec<Effects> {
        let ids: Vec<_> = self.jobs.keys().filter(|id| id.starts_with(prefix)).cloned().collect();
        let Some((last, others)) = ids.split_last() else {
            return vec![Effects { completed_commands: vec![(command, ack)], ..Effects::default() }];
        };
        let mut effects: Vec<_> = others.iter().map(|id| self.mark_cancelled(id)).collect();
        effects.push(self.cancel(last, command, ack));
        effects
    }

    fn mark_cancelled(&mut self, id: &str) -> Effects {
        let Some(job) = self.jobs.get_mut(id) else { return Effects::default() };
        // The worker's queue has room for one cancellation of each job.
        let is_first = !std::mem::replace(&mut job.is_cancelled, true);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.state.end_with(StreamEnd::Cancelled);
            return Effects::default();
        }
        let worker_command = is_first.then(|| WorkerCommand::Cancel(id.to_owned()));
        Effects { worker_command, ..Effects::default() }
    }

    /// Answers requests with the same id that were cancelled before they were accepted. They want the answer on these
    /// response topics.
    pub(in crate::service) fn cancel_requests(&self, id: &str, replies: &[Reply]) -> Effects {
        let error = JobError::cancelled();
        log::warn!("job {id} failed: {error}");
        Effects::send(self.errors(id, &error, replies))
    }

    /// Called when the connection has ended.
    pub(in crate::service) fn on_disconnected(&mut self) {
        self.is_connected = false;
        self.jobs.values_mut().for_each(|job| job.cancellations.on_disconnected());
        self.streams.values_mut().for_each(|stream| stream.state.on_disconnected());
    }
}
