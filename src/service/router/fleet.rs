//! Routes the requests of a fleet to the daemons that have their models in memory.

use tokio::time::Instant;

use super::Router;
use crate::job::is_id;
use crate::mqtt::Message;
use crate::mqtt::client::{ClientCommand, Incoming};
use crate::service::forwarding::{Claim, ClaimEffect, Forwarded};
use crate::service::held_commands::HeldCommand;
use crate::service::model_queues::{ModelLoadFacts, QueueChange};
use crate::service::parsed_request::ParsedRequest;
use crate::service::pending_fetches::FetchedTopics;
use crate::service::responses::{FORWARDED, property};
use crate::spool::SpoolCommand;

impl Router {
    /// Joins and leaves the queues of models. Returns the filters of those that were joined.
    pub(in crate::service) fn update_model_queues(&mut self) -> Vec<String> {
        if !self.registry.responses().is_in_fleet() {
            return Vec::new();
        }
        let models = self.models.names_and_residence();
        let is_closed = self.registry.is_closed();
        let facts = models.iter().filter(|_| !is_closed).map(|(name, is_open)| ModelLoadFacts {
            name,
            is_open: *is_open,
            jobs: self.registry.jobs_of(name),
        });
        let mut joined = Vec::new();
        for change in self.model_queues.changes(facts) {
            let (QueueChange::Join(model) | QueueChange::Leave(model)) = &change;
            let Some((filter, _)) = self.registry.responses().model_queue(model) else { continue };
            let command = match &change {
                QueueChange::Join(_) => ClientCommand::JoinQueue(filter.clone()),
                QueueChange::Leave(_) => ClientCommand::LeaveQueue(filter.clone()),
            };
            // What the client cannot take now is tried again after the next event.
            if self.client.commands.try_send(command).is_ok() {
                joined.extend(matches!(change, QueueChange::Join(_)).then_some(filter));
                self.model_queues.apply(change);
            }
        }
        joined
    }

    /// Offers a request to the daemons that have its model in memory.
    pub(super) fn forward(&mut self, request: Box<ParsedRequest>, command: Option<HeldCommand>) {
        let id = request.request.id.clone().unwrap_or_default();
        let message = self.registry.forward_message(&request).filter(|_| self.forwarding.can_add(&id));
        let Some(message) = message else { return self.admit_here(request, command) };
        log::info!("job {id} is offered on {}", message.topic);
        self.publish_unspooled(message);
        self.forwarding.add(request, command, Instant::now());
    }

    /// Handles the answer of another daemon.
    pub(super) fn on_claim(&mut self, incoming: Incoming) {
        let claim = serde_json::from_slice::<Claim>(&incoming.payload).ok().filter(|claim| is_id(&claim.id));
        self.outbox.push(SpoolCommand::Ack(incoming.ack));
        let Some(claim) = claim else { return log::debug!("ignoring a claim that is not valid") };
        match self.forwarding.on_claim(&claim, Instant::now()) {
            ClaimEffect::None => log::debug!("ignoring a late claim of job {}", claim.id),
            ClaimEffect::Done(command) => {
                log::info!("job {} is done by another daemon, which has its model in memory", claim.id);
                command.into_iter().for_each(|command| self.complete(command));
            }
            ClaimEffect::Again => {
                let request = self.forwarding.request(&claim.id);
                if let Some(message) = request.and_then(|request| self.registry.forward_message(request)) {
                    self.publish_unspooled(message);
                }
            }
            ClaimEffect::Own(forwarded) => self.do_here(forwarded),
        }
    }

    /// Handles a message that nobody gets. Returns whether it was a forwarded request.
    pub(super) fn on_no_subscriber(&mut self, message: &Message) -> bool {
        let is_forwarded = property(message, "type") == Some(FORWARDED);
        if is_forwarded
            && let Some(forwarded) =
                property(message, "id").and_then(|id| self.forwarding.on_no_subscriber(id))
        {
            self.do_here(forwarded);
        }
        is_forwarded
    }

    /// Does the requests that nobody has claimed in time.
    pub(super) fn expire_forwarded(&mut self) {
        for forwarded in self.forwarding.expire(Instant::now()) {
            self.do_here(forwarded);
        }
    }

    /// Does the requests that the broker does not deliver again.
    pub(super) fn forwarding_on_disconnected(&mut self) {
        for forwarded in self.forwarding.on_disconnected() {
            self.do_here(forwarded);
        }
    }

    fn do_here(&mut self, Forwarded { request, command, .. }: Forwarded) {
        if let (Some(id), Some(model)) = (&request.request.id, &request.request.model) {
            log::info!("job {id} is done here: no other daemon has {model} in memory and time for it");
        }
        self.admit_here(request, command);
    }

    fn admit_here(&mut self, mut request: Box<ParsedRequest>, command: Option<HeldCommand>) {
        request.may_be_forwarded = false;
        self.registry.on_spool_written(self.spool.processed());
        let admission = self.registry.admit(request, &FetchedTopics::new(), self.spool.has_capacity());
        self.on_admission(admission, command);
    }
}
