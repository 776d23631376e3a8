//! Cancellations of jobs, and of requests that wait for pictures.

use super::Router;
use crate::job::JobError;
use crate::mqtt::client::{ClientCommand, Incoming};
use crate::service::effects::Admission;
use crate::service::local::LocalAnswer;
use crate::service::pending_fetches::PendingRequest;
use crate::spool::CommandDigest;

impl Router {
    /// Cancels the accepted job, and the requests with its id that wait for pictures.
    pub(super) fn on_cancel(&mut self, incoming: Incoming, command: CommandDigest) {
        let id = match self.registry.cancelled_id(&incoming) {
            Ok(id) => id,
            Err(effects) => {
                return self.on_admission(Admission::Decided(*effects), Some((command, incoming.ack)));
            }
        };
        let waiting = self.pending_fetches.cancel(&id);
        let was_waiting = !waiting.is_empty();
        if was_waiting {
            let mut replies = Vec::new();
            for reply in waiting.iter().filter_map(|pending| pending.request.reply.clone()) {
                if !replies.contains(&reply) {
                    replies.push(reply);
                }
            }
            let clients = waiting.iter().filter_map(|pending| pending.request.client.as_ref());
            let effects = clients.fold(self.registry.cancel_requests(&id, &replies), |effects, client| {
                effects.and_answer(Some(client), || LocalAnswer::Failed(JobError::cancelled()))
            });
            self.apply(effects);
        }
        for pending in waiting {
            self.cancel_fetches(&pending);
            if let Some(command) = pending.command {
                self.complete(command);
            }
        }
        if !was_waiting && !self.registry.has_job(&id) {
            let reason =
                if self.registry.is_completed(&id) { "it has ended" } else { "there is no such job" };
            log::info!("cannot cancel job {id:?}: {reason}");
        }
        let effects = self.registry.cancel(&id, command, incoming.ack);
        self.apply(effects);
    }

    /// Stops the fetches that only this request needed.
    pub(super) fn cancel_fetches(&self, pending: &PendingRequest) {
        for topic in self.pending_fetches.unreferenced_topics(pending.topics.iter()) {
            let _ = self.client.commands.try_send(ClientCommand::CancelFetch(topic));
        }
    }
}
