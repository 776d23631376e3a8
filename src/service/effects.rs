//! What follows from handling a message or an event.

use super::held_commands::HeldCommand;
use super::local::{LocalAnswer, LocalClient, Preview};
use super::parsed_request::ParsedRequest;
use super::worker::WorkerCommand;
use crate::job::JobError;
use crate::mqtt::{Message, QoS};
use crate::spool::{Change, SpoolCommand};

/// Effects of handling an event: spool commands and at most one worker command.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) spool_commands: Vec<SpoolCommand>,
    pub(super) worker_command: Option<WorkerCommand>,
    /// The job that is completed once the spool has written `spool_commands`.
    pub(super) completes: Option<String>,
    /// Messages that are acknowledged once the spool has written `spool_commands`.
    pub(super) completed_commands: Vec<HeldCommand>,
    /// Answers to local clients.
    pub(super) local_answers: Vec<(LocalClient, LocalAnswer)>,
    /// A preview for a local client.
    pub(super) local_preview: Option<Box<(LocalClient, Preview)>>,
    /// The job that has ended, or the request that was rejected.
    pub(super) job_end: Option<Box<JobEnd>>,
    /// Whether the sender can expect another answer if it sends the same message later.
    pub(super) is_temporary: bool,
}

/// The end of a job, or of a request.
#[derive(Debug)]
pub(super) struct JobEnd {
    pub(super) id: String,
    /// The job's duration in milliseconds, or why it failed.
    pub(super) result: Result<u64, JobError>,
}

impl JobEnd {
    pub(super) fn finished(id: &str, elapsed_ms: u64) -> Self {
        Self { id: id.to_owned(), result: Ok(elapsed_ms) }
    }

    pub(super) fn failed(id: &str, error: &JobError) -> Self {
        Self { id: id.to_owned(), result: Err(error.clone()) }
    }
}

impl Effects {
    /// Sends messages. The spool keeps all but those at QoS 0 until the broker has them.
    pub(super) fn send(messages: Vec<Message>) -> Self {
        let command = |message: Message| match message.qos {
            QoS::AtMostOnce => SpoolCommand::Forward(message),
            _ => SpoolCommand::Write(Change::Send(message)),
        };
        Self { spool_commands: messages.into_iter().map(command).collect(), ..Self::default() }
    }

    /// Adds an answer to a local client, if the request came from one.
    pub(super) fn and_answer(
        mut self,
        client: Option<&LocalClient>,
        answer: impl FnOnce() -> LocalAnswer,
    ) -> Self {
        self.local_answers.extend(client.map(|client| (client.clone(), answer())));
        self
    }

    /// Adds a change to the spool.
    pub(super) fn and(mut self, change: Change) -> Self {
        self.spool_commands.push(SpoolCommand::Write(change));
        self
    }
}

/// The result of checking a request.
#[derive(Debug)]
pub(super) enum Admission {
    /// The request was accepted, rejected or repeated.
    Decided(Effects),
    /// The retained messages on these topics are needed first.
    NeedsTopics(Box<ParsedRequest>, Vec<String>),
    /// The model is not in memory here, and may be in that of another daemon of the fleet. The request has an id, a seed and
    /// a model.
    Forward(Box<ParsedRequest>),
}
