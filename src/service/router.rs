//! Routes messages between the MQTT client, the job registry, the worker and the spool.

mod cancellation;
mod fleet;
mod home_assistant;
mod models;

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::effects::{Admission, Effects};
use super::forwarding::Forwarding;
use super::handled_commands::{self, HandledCommands};
use super::held_commands::HeldCommand;
use super::job_registry::JobRegistry;
use super::local::{LocalAnswer, LocalRequest};
use super::model_queues::ModelQueues;
use super::model_set::ModelSet;
use super::model_source::ModelSources;
use super::outbox::Outbox;
use super::parsed_request::ParsedRequest;
use super::pending_fetches::{PendingFetches, PendingRequest};
use super::responses::property;
use super::worker::{EncodedImage, Worker, WorkerCommand};
use crate::config::LimitsConfig;
use crate::home_assistant::HomeAssistant;
use crate::job::{ErrorCode, Job, JobError};
use crate::mqtt::client::{ClientCommand, ClientEvent, Incoming, MqttClient};
use crate::mqtt::{Message, MessageKind};
use crate::pipeline::JobEvent;
use crate::spool::{AcceptedJob, Change, Spool, SpoolCommand};

/// The most commands that may wait for the spool before the router stops reading events.
const MAX_PENDING_COMMANDS: usize = 256;

/// The router never waits for a single neighbour, so that none of them can block another: commands for the
/// spool wait in the outbox.
pub(super) struct Router {
    pub(super) client: MqttClient,
    pub(super) spool: Spool,
    pub(super) worker: Worker,
    pub(super) outbox: Outbox,
    registry: JobRegistry,
    models: ModelSet,
    model_sources: ModelSources,
    model_queues: ModelQueues,
    forwarding: Forwarding,
    pending_fetches: PendingFetches,
    handled_commands: HandledCommands,
    /// Requests that arrived before the models were loaded. They are not acknowledged, so the broker limits
    /// their number.
    early_requests: Vec<Incoming>,
    /// Jobs of an earlier run, until the models are loaded.
    unfinished: Vec<AcceptedJob>,
    /// The topics of streams that the client follows.
    followed: BTreeSet<String>,
    is_connected: bool,
    /// The device that Home Assistant sees, if it is enabled.
    home_assistant: Option<HomeAssistant>,
}

impl Router {
    pub(super) fn new(
        client: MqttClient,
        spool: Spool,
        worker: Worker,
        registry: JobRegistry,
        model_sources: ModelSources,
        unfinished: Vec<AcceptedJob>,
    ) -> Self {
        let handled_commands = HandledCommands::new(spool.handled_commands().to_vec());
        let mut models = ModelSet::new(model_sources.configured());
        models.set_idle_limit(model_sources.idle_limit());
        Self {
            client,
            spool,
            worker,
            outbox: Outbox::default(),
            registry,
            models,
            model_sources,
            model_queues: ModelQueues::default(),
            forwarding: Forwarding::default(),
            pending_fetches: PendingFetches::default(),
            handled_commands,
            early_requests: Vec::new(),
            unfinished,
            followed: BTreeSet::new(),
            is_connected: false,
            home_assistant: None,
        }
    }

    /// Returns whether events may be read: their effects have room in the outbox.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < MAX_PENDING_COMMANDS
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The number of accepted jobs that are not finished.
    pub(super) fn job_count(&self) -> usize {
        self.registry.len()
    }

    /// Returns whether all jobs except streams are finished and delivered, as far as the connection allows.
    pub(super) fn is_drained(&self) -> bool {
        let is_delivered = self.outbox.is_empty() && self.spool.is_settled();
        self.registry.is_drained() && (is_delivered || !self.is_connected)
    }

    pub(super) fn set_limits(&mut self, limits: LimitsConfig) {
        self.update_home_assistant(|device, now| device.set_max_steps(limits.steps.0, now));
        self.registry.set_limits(limits);
    }

    /// Rejects all further requests.
    pub(super) fn close(&mut self) {
        self.registry.close();
    }

    /// Publishes a message that the spool does not keep.
    pub(super) fn publish_unspooled(&mut self, message: Message) {
        self.outbox.push(SpoolCommand::Forward(message));
    }

    pub(super) fn on_client_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Connected { .. } => {
                self.is_connected = true;
                self.registry.on_connected(Instant::now());
                self.update_home_assistant(HomeAssistant::on_connected);
                self.step_home_assistant();
            }
            ClientEvent::Subscribed
            | ClientEvent::Deficits(_)
            | ClientEvent::LeftQueue(_)
            | ClientEvent::TakenOver => {}
            ClientEvent::Disconnected => {
                self.is_connected = false;
                self.pending_fetches.on_disconnected();
                self.models.on_disconnected();
                self.registry.on_disconnected();
                self.forwarding_on_disconnected();
                self.update_home_assistant(|device, _| device.on_disconnected());
            }
            ClientEvent::Retained { topic, payload } => {
                for pending in self.pending_fetches.resolve(&topic, &payload) {
                    self.admit_pending(pending);
                }
            }
            ClientEvent::FollowRefused { topic, reason } => self.registry.on_follow_refused(&topic, &reason),
            ClientEvent::Incoming(incoming) if incoming.kind == MessageKind::HomeAssistantStatus => {
                self.on_home_assistant_status(incoming);
            }
            ClientEvent::Incoming(incoming) if !self.registry.has_models() => {
                self.early_requests.push(incoming);
            }
            ClientEvent::Incoming(incoming) => self.on_incoming(incoming),
            ClientEvent::Delivered(number) => {
                self.outbox.push(SpoolCommand::Write(Change::Delivered(number)))
            }
            ClientEvent::NoSubscriber(message) => {
                self.on_no_subscriber(&message);
            }
            ClientEvent::Undeliverable { message, number: Some(number), .. } if is_claim(&message) => {
                let topic = message.topic;
                log::error!(
                    "the broker does not let this daemon publish on {topic}: jobs that the other daemon forwards are done twice; \
                     allow it in the broker's access list"
                );
                self.outbox.push(SpoolCommand::Write(Change::Delivered(number)));
            }
            ClientEvent::Undeliverable { message, number: None, .. } if self.on_no_subscriber(&message) => {}
            ClientEvent::Undeliverable { message, number, reason } => {
                let effects = self.registry.on_undeliverable(&message, &reason);
                self.apply(effects);
                if let Some(number) = number {
                    self.outbox.push(SpoolCommand::Write(Change::Delivered(number)));
                }
            }
        }
    }

    /// Handles a request of this process. One that comes before the models are loaded is rejected, because nothing
    /// would limit the number of those that wait.
    pub(super) fn on_local_request(&mut self, request: LocalRequest) {
        if !self.registry.has_models() {
            let error = JobError::new(ErrorCode::Unavailable, "the models are loading; try again later");
            return request.client.send(LocalAnswer::Failed(error));
        }
        self.registry.on_spool_written(self.spool.processed());
        let admission = self.registry.on_local_request(request, self.spool.has_capacity());
        self.on_admission(admission, None);
    }

    pub(super) fn on_job_event(&mut self, job: &Job, event: JobEvent<EncodedImage>) {
        self.models.on_use(&job.model, Instant::now());
        self.publish_facts(job, &event);
        let effects = self.registry.on_job_event(&job.id, event);
        self.apply(effects);
    }

    /// Passes the newest pictures to the streams.
    pub(super) fn on_newest(&mut self) {
        let newest = self.client.newest.borrow_and_update();
        self.registry.on_newest(&newest, Instant::now());
    }

    /// When [`Self::step_streams`] is to be called, if no event comes first.
    pub(super) fn streams_due(&self) -> Option<Instant> {
        self.registry.streams_due(self.spool.has_capacity())
    }

    /// Starts the pictures of streams that are due, ends streams that are over, and follows the topics of all others.
    pub(super) fn step_streams(&mut self) {
        // A stream that has just begun takes a picture that arrived for another one.
        self.on_newest();
        for effects in self.registry.step_streams(Instant::now(), self.spool.has_capacity()) {
            self.apply(effects);
        }
        let topics = self.registry.stream_topics();
        // A topic that the client cannot take now is tried again after the next event.
        let sent = |command| self.client.commands.try_send(command).is_ok();
        self.followed
            .retain(|topic| topics.contains(topic.as_str()) || !sent(ClientCommand::Unfollow(topic.clone())));
        for topic in topics {
            if !self.followed.contains(topic) && sent(ClientCommand::Follow(topic.to_owned())) {
                self.followed.insert(topic.to_owned());
            }
        }
    }

    /// Announces what is due to Home Assistant, continues requests whose retained messages did not arrive, and forgets jobs
    /// that the spool has written.
    pub(super) fn on_tick(&mut self) {
        self.step_home_assistant();
        self.expire_forwarded();
        self.close_idle_models();
        self.registry.on_spool_written(self.spool.processed());
        for pending in self.pending_fetches.expire(Instant::now()) {
            self.cancel_fetches(&pending);
            self.admit_pending(pending);
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        if incoming.kind == MessageKind::Claim {
            return self.on_claim(incoming);
        }
        let topic = &incoming.ack.topic();
        // An empty payload clears a retained message.
        if incoming.payload.is_empty() {
            log::debug!("ignoring an empty message on {topic}");
            return self.outbox.push(SpoolCommand::Ack(incoming.ack));
        }
        let command = handled_commands::digest(&incoming);
        if incoming.is_retained {
            let hint = format!("clear it with: mosquitto_pub -V 5 -r -n -t '{topic}'");
            if self.handled_commands.contains(command) {
                log::info!("ignoring the retained message on {topic}, which was handled before; {hint}");
                return self.complete((command, incoming.ack));
            }
            if self.pending_fetches.contains(command) {
                // The broker redelivered the same message before; that one is handled and remembered.
                log::info!("ignoring the retained message on {topic}, which waits for its picture; {hint}");
                return self.outbox.push(SpoolCommand::Ack(incoming.ack));
            }
            log::warn!("the message on {topic} is retained; it is handled once; {hint}");
        }
        match incoming.kind {
            MessageKind::Request => {
                self.registry.on_spool_written(self.spool.processed());
                let admission = self.registry.on_request(&incoming, self.spool.has_capacity());
                self.on_admission(admission, Some((command, incoming.ack)));
            }
            MessageKind::Cancel => self.on_cancel(incoming, command),
            MessageKind::LoadModel | MessageKind::UnloadModel => self.on_model_request(incoming, command),
            MessageKind::Claim => {}
            MessageKind::Settings => self.on_settings(incoming, command),
            MessageKind::Draw => self.on_draw(incoming, command),
            MessageKind::CancelDrawn => self.on_cancel_drawn((command, incoming.ack)),
            MessageKind::HomeAssistantStatus => self.on_home_assistant_status(incoming),
        }
    }

    /// Admits a request that has the results of all its fetches.
    fn admit_pending(&mut self, PendingRequest { request, command, fetched, .. }: PendingRequest) {
        self.registry.on_spool_written(self.spool.processed());
        let admission = self.registry.admit(request, &fetched, self.spool.has_capacity());
        self.on_admission(admission, command);
    }

    /// Applies the effects of a request or a cancellation, or fetches the retained messages that it needs. The message
    /// that carried it is acknowledged once the effects are on disk.
    fn on_admission(&mut self, admission: Admission, command: Option<HeldCommand>) {
        let (request, topics) = match admission {
            Admission::Decided(effects) => {
                let is_temporary = effects.is_temporary;
                self.apply(effects);
                return match command {
                    Some((_, ack)) if is_temporary => self.outbox.push(SpoolCommand::Ack(ack)),
                    Some(command) => self.complete(command),
                    None => {}
                };
            }
            Admission::Forward(request) => return self.forward(request, command),
            // Another daemon would have to fetch the pictures too, and claim the request late.
            Admission::NeedsTopics(request, topics) => {
                (Box::new(ParsedRequest { may_be_forwarded: false, ..*request }), topics)
            }
        };
        for topic in &topics {
            if let Err(error) = self.client.commands.try_send(ClientCommand::FetchRetained(topic.clone())) {
                // The request fails when its fetch times out.
                log::warn!("cannot fetch {topic}: {error}");
            }
        }
        if let Some(pending) = self.pending_fetches.add(request, command, topics, Instant::now()) {
            self.admit_pending(pending);
        }
    }

    /// Remembers a message as handled, and acknowledges it.
    fn complete(&mut self, (command, ack): HeldCommand) {
        self.handled_commands.insert(command);
        self.outbox.push(SpoolCommand::Write(Change::Handled(command)));
        self.outbox.push(SpoolCommand::Ack(ack));
    }

    fn apply(&mut self, effects: Effects) {
        let Effects {
            spool_commands,
            worker_command,
            completes,
            completed_commands,
            local_answers,
            local_preview,
            job_end,
            ..
        } = effects;
        if let Some((client, preview)) = local_preview.map(|boxed| *boxed) {
            client.show(preview);
        }
        local_answers.into_iter().for_each(|(client, answer)| client.send(answer));
        spool_commands.into_iter().for_each(|command| self.outbox.push(command));
        if let Some(id) = completes {
            self.registry.set_completing_command(id, self.outbox.latest());
        }
        if let Some(end) = job_end {
            self.publish_end(&end);
        }
        completed_commands.into_iter().for_each(|command| self.complete(command));
        if let Some(command) = worker_command {
            if let WorkerCommand::Run(job) = &command {
                self.models.on_use(&job.model, Instant::now());
            }
            self.worker.send(command);
        }
    }
}

/// Whether a message answers a daemon that has forwarded a request.
fn is_claim(message: &Message) -> bool {
    property(message, "type") == Some("claim")
}
