//! Jobs and settings of Home Assistant's entities.

use super::JobRegistry;
use crate::home_assistant::{MAX_PREVIEWS, ProposedSettings};
use crate::job::{Job, JobError, Request};
use crate::mqtt::client::Incoming;
use crate::service::effects::{Admission, Effects};
use crate::service::parsed_request::{ParsedRequest, RejectedRequest, reply};
use crate::service::pending_fetches::FetchedTopics;

impl JobRegistry {
    /// Handles a message that asks for this job.
    pub(in crate::service) fn on_draw(
        &mut self,
        incoming: &Incoming,
        request: Request,
        spool_has_room: bool,
    ) -> Admission {
        let request = self.with_previews(request);
        match reply(incoming, &self.responses) {
            Ok(reply) => {
                let parsed = ParsedRequest::new(request, reply, incoming.arrival);
                self.admit(Box::new(parsed), &FetchedTopics::new(), spool_has_room)
            }
            Err(error) => {
                let rejected = RejectedRequest { id: request.id, reply: None, client: None, error };
                Admission::Decided(self.reject(rejected))
            }
        }
    }

    /// Asks for previews, if the model has any.
    fn with_previews(&self, request: Request) -> Request {
        let job = self.validate(&request).ok().filter(Job::has_preview);
        let every = job.map(|job| job.sampler.evaluations().div_ceil(MAX_PREVIEWS).max(1) as u64);
        Request { preview_every: every, ..request }
    }

    /// Checks changed settings as those of a job. What does not concern the changes is left to the job.
    pub(in crate::service) fn check_settings(&self, proposed: &ProposedSettings) -> Result<(), JobError> {
        match self.validate(&proposed.request) {
            Err(error) if proposed.is_about(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Rejects a change of the settings.
    pub(in crate::service) fn reject_settings(&self, incoming: &Incoming, error: JobError) -> Effects {
        let reply = reply(incoming, &self.responses).unwrap_or_default();
        self.reject(RejectedRequest { id: None, reply, client: None, error })
    }
}
