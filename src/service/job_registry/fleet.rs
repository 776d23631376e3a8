//! Requests of a fleet: those that are left to a daemon that has the model in memory, and those that another daemon has left
//! to this one.

use std::collections::BTreeSet;

use super::{JobRegistry, PendingJob};
use crate::job::{ErrorCode, JobError, Request, seed_from_random_bits};
use crate::mqtt::Message;
use crate::service::effects::Effects;
use crate::service::forwarding::{CLAIM_TIMEOUT, Claim};
use crate::service::parsed_request::ParsedRequest;
use crate::spool::{Change, SpoolCommand};

impl JobRegistry {
    /// Sets which models are in memory.
    pub(in crate::service) fn set_open_models(&mut self, open_models: BTreeSet<String>) {
        self.open_models = open_models;
    }

    /// Whether a model is in memory.
    pub(super) fn is_open(&self, model: &str) -> bool {
        self.open_models.contains(model)
    }

    /// The number of unfinished jobs of a model.
    pub(in crate::service) fn jobs_of(&self, model: &str) -> usize {
        self.job_counts.get(model).copied().unwrap_or(0)
    }

    pub(super) fn insert(&mut self, id: String, job: PendingJob) {
        *self.job_counts.entry(job.model.clone()).or_default() += 1;
        self.jobs.insert(id, job);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<PendingJob> {
        let job = self.jobs.remove(id)?;
        if let Some(count) = self.job_counts.get_mut(&job.model) {
            *count -= 1;
            if *count == 0 {
                self.job_counts.remove(&job.model);
            }
        }
        Some(job)
    }

    /// The name of the model of a request.
    fn model_of<'a>(&'a self, request: &'a Request) -> Option<&'a str> {
        let default = || self.models.first().map(|card| card.bundle.name.as_str());
        request.model.as_deref().or_else(default)
    }

    /// Whether the model of a request is in memory, or is opened for a job that waits.
    fn is_open_soon(&self, request: &Request) -> bool {
        self.model_of(request).is_some_and(|model| self.is_open(model) || self.jobs_of(model) > 0)
    }

    /// Whether a request is offered to the daemons that have its model in memory.
    pub(super) fn is_to_be_forwarded(&self, request: &ParsedRequest) -> bool {
        request.may_be_forwarded && !self.is_open_soon(&request.request)
    }

    /// Sets what daemons may choose in different ways, so that the job is the same wherever it is done.
    pub(super) fn filled_for_forwarding(&self, mut parsed: Box<ParsedRequest>) -> Box<ParsedRequest> {
        let model = self.model_of(&parsed.request).map(str::to_owned);
        let request = &mut parsed.request;
        request.id.get_or_insert_with(|| format!("{:016x}", fastrand::u64(..)));
        request.seed.get_or_insert_with(|| seed_from_random_bits(fastrand::u64(..)));
        request.model = model;
        parsed
    }

    /// The message that offers a request; `None` if it is larger than other daemons accept.
    pub(in crate::service) fn forward_message(&self, parsed: &ParsedRequest) -> Option<Message> {
        let request = &parsed.request;
        let payload = serde_json::to_vec(request).ok()?;
        let (_, topic) = self.responses.model_queue(request.model.as_deref()?)?;
        let is_small = payload.len() as u64 <= self.limits.payload.0;
        let id = request.id.as_deref()?;
        is_small.then(|| self.responses.forward(topic, id, payload, parsed.reply.as_ref(), CLAIM_TIMEOUT))
    }

    /// Declines a request that was forwarded because of a model that has left memory meanwhile.
    pub(super) fn declined(&self, request: &ParsedRequest) -> Option<Effects> {
        let is_forwarded = request.claim_topic.is_some();
        (is_forwarded && !self.is_open_soon(&request.request)).then(|| self.decline(request))
    }

    /// Whether the daemon that has forwarded a request can do it, although this one cannot.
    pub(super) fn is_left_to_sender(&self, request: &ParsedRequest, error: &JobError) -> bool {
        let is_of_daemon =
            matches!(error.code, ErrorCode::QueueFull | ErrorCode::Unavailable | ErrorCode::UnknownModel);
        request.claim_topic.is_some() && is_of_daemon
    }

    /// Leaves a request to the daemon that has forwarded it.
    pub(super) fn decline(&self, request: &ParsedRequest) -> Effects {
        let effects = Effects { is_temporary: true, ..Effects::default() };
        self.with_claim(effects, request.claim_topic.clone(), request.request.id.clone(), false)
    }

    /// Adds the answer to the daemon that has forwarded the request with this id, if one has.
    pub(super) fn with_claim(
        &self,
        mut effects: Effects,
        claim_topic: Option<String>,
        id: Option<String>,
        accepted: bool,
    ) -> Effects {
        if let (Some(topic), Some(id)) = (claim_topic, id) {
            let message = self.responses.claim(&topic, &Claim { id, accepted });
            // The spool sends it after what precedes it is on disk.
            effects.spool_commands.push(SpoolCommand::Write(Change::Send(message)));
        }
        effects
    }
}
