//! A job that draws from the newest picture of a topic, one picture after another: a state machine without I/O.
//!
//! One picture waits at most: a newer one takes its place and it counts as dropped. One picture is drawn at a time.

mod report;

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::job::{ErrorCode, JobError, StreamSettings};
use crate::mqtt::NewestMessage;
use crate::units::counted;

pub(super) use report::StreamReport;

/// The rate is that of this many pictures.
const RATE_PICTURES: usize = 16;

/// Why a stream ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StreamEnd {
    /// It was cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// It failed.
    Failed(JobError),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StreamAction {
    /// Draw from this picture.
    Draw(Bytes),
    /// Cancel the picture that is being drawn.
    Abort,
    /// End the job.
    End(StreamEnd),
    /// Wait for an event, or until [`Stream::due`].
    Wait,
}

/// What becomes of the picture that is being drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drawing {
    Wanted,
    Aborted,
}

#[derive(Debug)]
pub(super) struct Stream {
    settings: StreamSettings,
    started: Instant,
    deadline: Option<Instant>,
    /// Whether an earlier run of the daemon accepted the job.
    is_resumed: bool,
    is_connected: bool,
    /// The picture that waits.
    newest: Option<Bytes>,
    /// The number of messages on the topic when the newest one was taken.
    received: Option<u64>,
    drawing: Option<Drawing>,
    /// When the next picture may be started.
    next_start: Instant,
    /// When silence begins: with the latest picture, or with the connection.
    heard: Instant,
    /// When the first of the latest pictures in a row that could not be drawn arrived, and what is wrong with the last.
    fault: Option<(Instant, JobError)>,
    drawn: u64,
    dropped: u64,
    refused: u64,
    /// When the latest pictures were finished.
    finished: VecDeque<Instant>,
    end: Option<StreamEnd>,
}

impl Stream {
    /// A stream without a picture. Its deadline counts from `arrival`.
    pub(super) fn new(settings: StreamSettings, arrival: Instant, now: Instant, is_connected: bool) -> Self {
        Self {
            deadline: settings.deadline.and_then(|limit| arrival.checked_add(limit)),
            settings,
            started: now,
            is_resumed: false,
            is_connected,
            newest: None,
            received: None,
            drawing: None,
            next_start: now,
            heard: now,
            fault: None,
            drawn: 0,
            dropped: 0,
            refused: 0,
            finished: VecDeque::new(),
            end: None,
        }
    }

    /// The same stream, which an earlier run of the daemon accepted.
    pub(super) fn resumed(self) -> Self {
        Self { is_resumed: true, ..self }
    }

    pub(super) fn topic(&self) -> &str {
        &self.settings.topic
    }

    /// The index of the picture that is being drawn.
    pub(super) fn index(&self) -> usize {
        usize::try_from(self.drawn).unwrap_or(usize::MAX)
    }

    pub(super) fn is_drawing(&self) -> bool {
        self.drawing.is_some()
    }

    /// Takes the newest message of the topic, unless it was taken before.
    pub(super) fn on_newest(&mut self, newest: &NewestMessage, now: Instant) {
        let arrived = match self.received {
            // What arrived before the stream began does not count as dropped.
            None => 1,
            // The topic was not followed for a moment, and is counted anew.
            Some(received) if newest.received < received => newest.received,
            Some(received) => newest.received - received,
        };
        self.received = Some(newest.received);
        if arrived > 0 {
            let replaced = self.newest.replace(newest.payload.clone());
            self.dropped += arrived - 1 + u64::from(replaced.is_some());
            self.heard = now;
        }
    }

    /// The connection to the broker was made. The camera could not be heard before.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.is_connected = true;
        self.heard = now;
    }

    pub(super) fn on_disconnected(&mut self) {
        self.is_connected = false;
    }

    /// The picture is drawn.
    pub(super) fn on_drawn(&mut self, now: Instant) {
        self.drawing = None;
        self.drawn += 1;
        self.fault = None;
        self.finished.push_back(now);
        if self.finished.len() > RATE_PICTURES {
            self.finished.pop_front();
        }
    }

    /// The picture cannot be drawn. The first one ends the stream, which is then most likely not what its owner wants.
    /// Returns the error of the first of several in a row that do not end the stream.
    pub(super) fn on_refused(&mut self, error: JobError, now: Instant) -> Option<JobError> {
        self.drawing = None;
        self.refused += 1;
        let topic = &self.settings.topic;
        let message = format!("a picture on {topic} cannot be drawn: {}", error.message);
        let error = JobError { message, ..error };
        if self.drawn == 0 {
            self.end_with(StreamEnd::Failed(error));
            return None;
        }
        let since = self.fault.take().map(|(since, _)| since);
        self.fault = Some((since.unwrap_or(now), error.clone()));
        since.is_none().then_some(error)
    }

    /// The drawing of a picture was cancelled, as [`StreamAction::Abort`] wants it.
    pub(super) fn on_aborted(&mut self) {
        if self.drawing.take().is_some() {
            self.dropped += 1;
        }
    }

    /// Whether the worker was asked to cancel the picture.
    pub(super) fn is_aborted(&self) -> bool {
        self.drawing == Some(Drawing::Aborted)
    }

    /// Ends the stream for this reason, unless it has another one.
    pub(super) fn end_with(&mut self, end: StreamEnd) {
        self.end.get_or_insert(end);
    }

    /// Returns what to do now. Without `can_draw`, no further picture is started.
    pub(super) fn next_action(&mut self, now: Instant, can_draw: bool) -> StreamAction {
        if let Some(end) = self.due_end(now) {
            self.end_with(end);
        }
        if let Some(end) = &self.end {
            return match self.drawing.replace(Drawing::Aborted) {
                Some(Drawing::Wanted) => StreamAction::Abort,
                Some(Drawing::Aborted) => StreamAction::Wait,
                None => {
                    self.drawing = None;
                    self.dropped += u64::from(self.newest.take().is_some());
                    StreamAction::End(end.clone())
                }
            };
        }
        let is_due = can_draw && self.drawing.is_none() && now >= self.next_start;
        match self.newest.take_if(|_| is_due) {
            Some(picture) => {
                self.drawing = Some(Drawing::Wanted);
                self.next_start = now + self.settings.every;
                StreamAction::Draw(picture)
            }
            None => StreamAction::Wait,
        }
    }

    /// When [`Self::next_action`] may return something else than now, if no event comes first.
    pub(super) fn due(&self, can_draw: bool) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let start = self.newest.as_ref().filter(|_| can_draw && self.drawing.is_none());
        [self.deadline, self.silence_ends(), self.fault_ends(), start.map(|_| self.next_start)]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the stream fails because no picture has arrived. What is drawn or waits comes first.
    fn silence_ends(&self) -> Option<Instant> {
        let is_waiting = self.is_connected && self.drawing.is_none() && self.newest.is_none();
        is_waiting.then(|| self.heard + self.settings.silence)
    }

    /// When the stream fails because no picture that arrives can be drawn.
    fn fault_ends(&self) -> Option<Instant> {
        self.fault
            .as_ref()
            .filter(|_| self.drawing.is_none())
            .map(|(since, _)| *since + self.settings.silence)
    }

    fn due_end(&self, now: Instant) -> Option<StreamEnd> {
        let has_passed = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        if has_passed(self.deadline) {
            Some(StreamEnd::Deadline)
        } else if let Some((_, error)) = self.fault.as_ref().filter(|_| has_passed(self.fault_ends())) {
            Some(StreamEnd::Failed(error.clone()))
        } else if has_passed(self.silence_ends()) {
            Some(StreamEnd::Failed(self.silence_error()))
        } else {
            None
        }
    }

    fn silence_error(&self) -> JobError {
        let StreamSettings { topic, silence, .. } = &self.settings;
        let message = format!(
            "no picture arrived on {topic} for {} ms (stream.silence_ms), after {} {} drawn; check with `mosquitto_sub \
             -t '{topic}'` that the camera publishes there, that the broker lets the daemon read the topic, and that the \
             pictures are no larger than mqtt.max_packet",
            silence.as_millis(),
            counted(self.drawn, "picture"),
            if self.drawn == 1 { "was" } else { "were" },
        );
        JobError::of_field(ErrorCode::NoPicture, "stream.topic", message)
    }
}

#[cfg(test)]
mod tests;
