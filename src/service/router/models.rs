//! Routes events of models and requests to load and unload them.

use tokio::time::Instant;

use super::Router;
use crate::config::Config;
use crate::job::{ErrorCode, JobError, ModelTarget, parse_model_load, parse_model_unload};
use crate::mqtt::MessageKind;
use crate::mqtt::client::Incoming;
use crate::service::ServiceError;
use crate::service::effects::{Admission, Effects};
use crate::service::model_requests::Requester;
use crate::service::model_set::{ModelAction, ModelReport};
use crate::service::model_source::ModelSource;
use crate::service::parsed_request::{RejectedRequest, reply};
use crate::service::worker::{ModelEvent, WorkerCommand};
use crate::spool::CommandDigest;

/// A valid request.
struct ModelRequest {
    id: Option<String>,
    /// The digest that the model must have.
    sha256: Option<String>,
    wish: ModelWish,
}

enum ModelWish {
    Load(Box<ModelSource>),
    Unload(ModelTarget),
}

impl Router {
    /// Makes the models those of a reloaded configuration.
    pub(in crate::service) fn reload_models(&mut self, config: &Config) {
        self.model_sources.reload(config);
        self.models.set_idle_limit(config.models.idle_limit());
        let actions = self.models.configure(self.model_sources.configured());
        self.apply_to_models(actions);
    }

    /// Returns the models for the published state if they have changed since the last call.
    pub(in crate::service) fn take_model_report(&mut self) -> Option<ModelReport> {
        self.models.take_report()
    }

    pub(in crate::service) fn on_model_event(&mut self, event: ModelEvent) -> Result<(), ServiceError> {
        match event {
            ModelEvent::Ready(cards) => {
                let actions = self.models.on_ready(cards, Instant::now());
                self.apply_to_models(actions);
                for job in std::mem::take(&mut self.unfinished) {
                    let effects = self.registry.resume(job);
                    self.apply(effects);
                }
                for incoming in std::mem::take(&mut self.early_requests) {
                    self.on_incoming(incoming);
                }
                self.step_home_assistant();
            }
            ModelEvent::Replaced(card) => {
                self.models.on_replaced(card);
                self.apply_to_models(Vec::new());
            }
            ModelEvent::LoadStage { number, stage } => self.models.on_stage(number, stage),
            ModelEvent::Loaded { number, outcome } => {
                let actions = self.models.on_loaded(number, outcome, Instant::now());
                self.apply_to_models(actions);
            }
            ModelEvent::Unloaded(card) => {
                let actions = self.models.on_unloaded(&card);
                self.apply_to_models(actions);
            }
            ModelEvent::Open { card, is_open } => {
                self.models.on_open(&card, is_open);
                self.registry.set_open_models(self.models.open_names());
            }
            ModelEvent::Failed(reason) => return Err(ServiceError::Model(reason)),
            ModelEvent::Loading(_) | ModelEvent::Latency { .. } => {}
        }
        Ok(())
    }

    /// Closes the models that have had no jobs for long enough.
    pub(super) fn close_idle_models(&mut self) {
        for card in self.models.take_idle(Instant::now()) {
            self.worker.send(WorkerCommand::Close(card));
        }
    }

    /// Handles a request to load or unload a model.
    pub(super) fn on_model_request(&mut self, incoming: Incoming, command: CommandDigest) {
        let reply = reply(&incoming, self.registry.responses());
        let ModelRequest { id, sha256, wish } = match self.model_request(&incoming) {
            Ok(request) => request,
            Err((id, error)) => {
                let reply = reply.unwrap_or_default();
                let effects = self.registry.reject(RejectedRequest { id, reply, client: None, error });
                return self.on_admission(Admission::Decided(effects), Some((command, incoming.ack)));
            }
        };
        let id = id.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                let rejected = RejectedRequest { id: Some(id), reply: None, client: None, error };
                let effects = self.registry.reject(rejected);
                return self.on_admission(Admission::Decided(effects), Some((command, incoming.ack)));
            }
        };
        let arrival = incoming.arrival;
        let requester = Requester { id, reply, sha256, arrival, command: (command, incoming.ack) };
        let actions = match wish {
            ModelWish::Load(source) => self.models.load(*source, requester),
            ModelWish::Unload(target) => self.models.unload(&target, requester),
        };
        self.apply_to_models(actions);
    }

    /// Parses and checks a request. An error comes with the id as the sender wrote it.
    fn model_request(&self, incoming: &Incoming) -> Result<ModelRequest, (Option<String>, JobError)> {
        let request = match incoming.kind {
            MessageKind::UnloadModel => {
                let request = parse_model_unload(&incoming.payload)?;
                let target = match request.target {
                    ModelTarget::Path(path) => ModelTarget::Path(path.canonicalize().unwrap_or(path)),
                    ModelTarget::Name(name) => ModelTarget::Name(name),
                };
                ModelRequest { id: request.id, sha256: None, wish: ModelWish::Unload(target) }
            }
            _ => {
                let request = parse_model_load(&incoming.payload)?;
                let source = self.model_sources.requested(&request.path);
                let source = source.map_err(|error| (request.id.clone(), error))?;
                ModelRequest {
                    id: request.id,
                    sha256: request.sha256,
                    wish: ModelWish::Load(Box::new(source)),
                }
            }
        };
        if self.registry.is_closed() {
            let error = JobError::new(ErrorCode::Unavailable, "the daemon is stopping; try again later");
            return Err((request.id, error));
        }
        Ok(request)
    }

    /// Applies what follows from an event of the models, after which requests are validated with those that are served.
    fn apply_to_models(&mut self, actions: Vec<ModelAction>) {
        let cards = self.models.cards();
        if !cards.is_empty() {
            self.update_home_assistant(|device, now| device.set_models(&cards, now));
            self.registry.set_models(cards);
        }
        self.registry.set_open_models(self.models.open_names());
        for action in actions {
            match action {
                ModelAction::Load(load) => self.worker.send(WorkerCommand::Load(Box::new(load))),
                ModelAction::Retire(card) => self.worker.send(WorkerCommand::Retire(card)),
                ModelAction::Answer(requester, outcome) => {
                    let Requester { id, reply, arrival, command, .. } = requester;
                    let effects = match outcome {
                        Ok(outcome) => {
                            let elapsed_ms = arrival.elapsed().as_millis() as u64;
                            let responses = self.registry.responses();
                            Effects::send(responses.model_result(&id, &outcome, elapsed_ms, reply.as_ref()))
                        }
                        Err(error) => {
                            let id = Some(id);
                            self.registry.reject(RejectedRequest { id, reply, client: None, error })
                        }
                    };
                    self.on_admission(Admission::Decided(effects), Some(command));
                }
            }
        }
    }
}
