//! Jobs that draw from the pictures of a topic.
//!
//! Each picture is a job of the worker with the id of the stream, so that it takes its turn among the others and shares
//! their batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::JobRegistry;
use crate::job::{ErrorCode, Job, JobError, Request};
use crate::mqtt::NewestMessages;
use crate::service::effects::Effects;
use crate::service::stream::{Stream, StreamAction, StreamEnd};
use crate::service::worker::WorkerCommand;
use crate::units::counted;

/// A stream and the request of each of its pictures.
#[derive(Debug)]
pub(super) struct LiveStream {
    pub(super) state: Stream,
    /// With the id and the seed, and with the stream's topic in place of its pictures.
    request: Request,
}

impl JobRegistry {
    /// Starts a stream. `request` is valid, and lacks only the pictures of the stream.
    pub(super) fn start_stream(&mut self, job: &Job, request: Request, state: Stream) {
        log::info!(
            "job {}: a stream of the pictures on {}, by {} in {}, {}, seed {}",
            job.id,
            state.topic(),
            job.model.bundle.name,
            job.sampler_name,
            counted(job.options.steps as u64, "step"),
            job.seed
        );
        self.streams.insert(job.id.clone(), LiveStream { state, request });
    }

    /// The topics whose pictures are drawn.
    pub(in crate::service) fn stream_topics(&self) -> BTreeSet<&str> {
        self.streams.values().map(|stream| stream.state.topic()).collect()
    }

    /// Whether every unfinished job is a stream that draws nothing now.
    pub(in crate::service) fn is_drained(&self) -> bool {
        let idle = self.streams.values().filter(|stream| !stream.state.is_drawing());
        idle.count() == self.jobs.len()
    }

    /// Called when the connection was made.
    pub(in crate::service) fn on_connected(&mut self, now: Instant) {
        self.is_connected = true;
        self.streams.values_mut().for_each(|stream| stream.state.on_connected(now));
    }

    /// Passes the newest pictures to the streams of their topics.
    pub(in crate::service) fn on_newest(&mut self, newest: &NewestMessages, now: Instant) {
        for stream in self.streams.values_mut() {
            if let Some(message) = newest.get(stream.state.topic()) {
                stream.state.on_newest(message, now);
            }
        }
    }

    /// The broker does not let the daemon follow this topic.
    pub(in crate::service) fn on_follow_refused(&mut self, topic: &str, reason: &str) {
        for stream in self.streams.values_mut().filter(|stream| stream.state.topic() == topic) {
            let message = format!("stream.topic: {topic}: {reason}");
            stream.state.end_with(StreamEnd::Failed(JobError::out_of_range("stream.topic", message)));
        }
    }

    /// Ends the streams whose model takes no further jobs.
    pub(super) fn end_streams_without_model(&mut self) {
        for (id, stream) in &mut self.streams {
            let Some(job) = self.jobs.get(id) else { continue };
            if self.models.iter().any(|card| card.bundle.name == job.model) {
                continue;
            }
            let message = format!("model {} was unloaded; load it again, or choose another model", job.model);
            let error = JobError::of_field(ErrorCode::UnknownModel, "model", message);
            stream.state.end_with(StreamEnd::Failed(error));
        }
    }

    /// When [`Self::step_streams`] is to be called, if no event comes first.
    pub(in crate::service) fn streams_due(&self, can_draw: bool) -> Option<Instant> {
        let can_draw = can_draw && !self.is_closed;
        self.streams.values().filter_map(|stream| stream.state.due(can_draw)).min()
    }

    /// Starts the pictures that are due, and ends the streams that are over. Without `can_draw`, no picture is started.
    pub(in crate::service) fn step_streams(&mut self, now: Instant, can_draw: bool) -> Vec<Effects> {
        let can_draw = can_draw && !self.is_closed;
        let ids: Vec<_> = self.streams.keys().cloned().collect();
        ids.iter().filter_map(|id| self.step_stream(id, now, can_draw)).collect()
    }

    fn step_stream(&mut self, id: &str, now: Instant, can_draw: bool) -> Option<Effects> {
        loop {
            let LiveStream { state, request } = self.streams.get_mut(id)?;
            let worker_command = match state.next_action(now, can_draw) {
                StreamAction::Wait => return None,
                StreamAction::End(end) => return Some(self.end_stream(id, end, now)),
                StreamAction::Abort => WorkerCommand::Cancel(id.to_owned()),
                StreamAction::Draw(picture) => {
                    let request = request.with_stream_picture(&picture, self.limits.payload.0);
                    match request.and_then(|request| self.validate(&request)) {
                        Ok(job) => WorkerCommand::Run(Arc::new(job)),
                        Err(error) => {
                            let first = self.streams.get_mut(id)?.state.on_refused(error, now);
                            first.inspect(|error| log::warn!("job {id}: {error}"));
                            continue;
                        }
                    }
                }
            };
            return Some(Effects { worker_command: Some(worker_command), ..Effects::default() });
        }
    }

    /// Handles the end of a picture. `None` if the job is no stream.
    pub(super) fn on_picture_finished(&mut self, id: &str, elapsed_ms: u64, now: Instant) -> Option<Effects> {
        let stream = self.streams.get_mut(id)?;
        stream.state.on_drawn(now);
        let job = self.jobs.get_mut(id)?;
        let images = std::mem::take(&mut job.images);
        let report = stream.state.report();
        Some(Effects::send(self.responses.stream_result(id, images, elapsed_ms, job.reply.as_ref(), &report)))
    }

    /// Returns whether a failure of the worker is the end of a picture that was cancelled.
    pub(super) fn on_picture_aborted(&mut self, id: &str) -> bool {
        let aborted = self.streams.get_mut(id).filter(|stream| stream.state.is_aborted());
        aborted.map(|stream| stream.state.on_aborted()).is_some()
    }

    fn end_stream(&mut self, id: &str, end: StreamEnd, now: Instant) -> Effects {
        let Some(LiveStream { state, .. }) = self.streams.remove(id) else { return Effects::default() };
        if let StreamEnd::Failed(error) = end {
            return self.fail(id, &error);
        }
        let (report, elapsed_ms) = state.final_report(&end, now);
        let reply = self.jobs.get(id).and_then(|job| job.reply.as_ref());
        let messages = self.responses.final_stream_result(id, elapsed_ms, reply, &report);
        self.complete(id, elapsed_ms, messages)
    }
}
