//! Home Assistant by MQTT discovery: a device with entities that show, set and draw.
//!
//! A state machine without I/O: models, connections, changes of settings and the ends of jobs go in; messages and the
//! record that the spool keeps come out.

mod announcement;
mod device;
mod entities;
mod model_facts;
mod record;
mod setting_changes;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::HomeAssistantConfig;
use crate::job::receipt::Receipt;
use crate::job::{ErrorCode, JobError, ModelCard, Request};
use crate::mqtt::{Message, Topics};
use announcement::Discovery;
use entities::EntityContext;
use model_facts::ModelFacts;
use record::Record;
use setting_changes::SettingChanges;

pub(crate) use device::Device;
pub(crate) use record::RECORD_NAME;
pub(crate) use settings::{ProposedSettings, Settings};

/// The ids of jobs that a button draws begin with this, so that the other button finds them after a restart too.
pub(crate) const DRAWN_ID_PREFIX: &str = "home-assistant-";
/// The most previews of a picture that a button draws.
pub(crate) const MAX_PREVIEWS: usize = 10;

/// The time from Home Assistant's birth message to the announcement. Home Assistant reads the retained one first, and may
/// drop a second one meanwhile.
const BIRTH_DELAY: Duration = Duration::from_secs(2);
/// The time from the removal of entities to the announcement of those in their place, which have the same names.
const REMOVAL_DELAY: Duration = Duration::from_secs(3);
/// The time from an announcement to the settings in it: Home Assistant ignores a state that comes before its entity.
const SETTINGS_DELAY: Duration = Duration::from_secs(2);

/// Fields of a receipt that are too long for an attribute, or of no use as one.
const NO_ATTRIBUTES: [&str; 5] =
    ["index", "scheduler", "graph_sha256", "provider_shares", "rejected_providers"];

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Publish a message that is of no use after a restart.
    Publish(Message),
    /// Publish a message, also after a restart.
    Deliver(Message),
    /// Store the record in the spool.
    Store(Vec<u8>),
}

/// What the entities depend on and does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The topics, with Home Assistant's prefix.
    pub(crate) topics: Topics,
    /// The device.
    pub(crate) device: Device,
    /// The phases of the daemon.
    pub(crate) phases: Vec<&'static str>,
    /// Whether the machine has a thermal sensor.
    pub(crate) has_thermal: bool,
}

/// The device that Home Assistant sees.
#[derive(Debug)]
pub(crate) struct HomeAssistant {
    surroundings: Surroundings,
    discovery: Discovery,
    record: Record,
    /// Empty until they are loaded.
    models: Vec<ModelFacts>,
    max_steps: u64,
    is_connected: bool,
    /// The announced documents, by topic.
    announced: BTreeMap<String, Bytes>,
    /// The facts about the last picture.
    picture: Option<Bytes>,
    /// When to announce all entities.
    announce_at: Option<Instant>,
    /// When to publish the settings again.
    settings_at: Option<Instant>,
}

/// Returns the messages that remove what an earlier run announced, if Home Assistant is not enabled. `record` is the value
/// in the spool.
pub(crate) fn removal(topics: &Topics, record: Option<&[u8]>) -> Vec<Output> {
    let mut record = Record::read(record);
    if record.topics.is_empty() {
        return Vec::new();
    }
    let own = [topics.settings(), topics.picture(), topics.job()];
    let own = own.into_iter().map(|topic| Output::Publish(retained(topic, Bytes::new())));
    let announced = announcement::removals(&record.topics).map(Output::Deliver);
    let mut outputs: Vec<_> = announced.chain(own).collect();
    record.topics.clear();
    record.components.clear();
    outputs.push(Output::Store(record.to_bytes()));
    outputs
}

impl HomeAssistant {
    /// Creates the device. `record` is the value in the spool, `max_steps` the daemon's limit.
    pub(crate) fn new(
        config: &HomeAssistantConfig,
        surroundings: Surroundings,
        max_steps: u64,
        record: Option<&[u8]>,
    ) -> Self {
        let discovery = Discovery {
            prefix: config.prefix.as_str().to_owned(),
            form: config.discovery,
            device: surroundings.device.clone(),
        };
        Self {
            surroundings,
            discovery,
            record: Record::read(record),
            models: Vec::new(),
            max_steps,
            is_connected: false,
            announced: BTreeMap::new(),
            picture: None,
            announce_at: None,
            settings_at: None,
        }
    }

    /// Sets the loaded models, without which there are no entities. The same ones are not announced again.
    pub(crate) fn set_models(&mut self, cards: &[Arc<ModelCard>], now: Instant) {
        self.set_facts(cards.iter().map(|card| ModelFacts::new(card)).collect(), now);
    }

    fn set_facts(&mut self, models: Vec<ModelFacts>, now: Instant) {
        if std::mem::replace(&mut self.models, models) != self.models {
            self.announce_at = Some(now);
        }
    }

    /// Sets the daemon's limit of the number of steps.
    pub(crate) fn set_max_steps(&mut self, max_steps: u64, now: Instant) {
        if std::mem::replace(&mut self.max_steps, max_steps) != max_steps {
            self.announce_at.get_or_insert(now);
        }
    }

    /// The broker may have lost its retained messages.
    pub(crate) fn on_connected(&mut self, now: Instant) {
        self.is_connected = true;
        self.announce_at = Some(now);
    }

    pub(crate) fn on_disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Handles Home Assistant's birth and will message.
    pub(crate) fn on_status(&mut self, payload: &[u8], is_retained: bool, now: Instant) {
        // A retained one is from before this connection, on which everything is announced.
        if payload == b"online" && !is_retained {
            self.announce_at.get_or_insert(now + BIRTH_DELAY);
        }
    }

    /// Returns the messages that are due.
    pub(crate) fn on_tick(&mut self, now: Instant) -> Vec<Output> {
        if !self.is_connected || self.models.is_empty() {
            return Vec::new();
        }
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let mut outputs = Vec::new();
        if is_due(&mut self.announce_at) {
            outputs.extend(self.announce(true, now));
            outputs.extend(self.picture_message());
            outputs.extend(self.settings_message());
        } else if is_due(&mut self.settings_at) {
            outputs.extend(self.settings_message());
        }
        outputs
    }

    /// Publishes the documents, or those that have changed. If earlier ones are to be removed, this is done first.
    fn announce(&mut self, all: bool, now: Instant) -> Vec<Output> {
        let Some(selected) = self.record.settings.selected(&self.models) else { return Vec::new() };
        let context = EntityContext {
            topics: &self.surroundings.topics,
            models: &self.models,
            selected,
            max_steps: self.max_steps,
            phases: &self.surroundings.phases,
            has_thermal: self.surroundings.has_thermal,
        };
        let entities = context.entities();
        let components = self.discovery.components(&entities);
        let documents = self.discovery.documents(entities, &self.record.components);
        let topics = documents.keys().cloned().collect();
        let former = self.record.topics.difference(&topics).cloned().collect();
        let mut outputs: Vec<_> = announcement::removals(&former).map(Output::Deliver).collect();
        // Stored first, so that everything that is announced can be removed.
        let is_new = |(key, platform): (&String, &String)| self.record.components.get(key) != Some(platform);
        if topics != self.record.topics || components.iter().any(is_new) {
            self.record.topics = topics;
            self.record.components.extend(components);
            outputs.push(Output::Store(self.record.to_bytes()));
        }
        if !former.is_empty() {
            self.announce_at = Some(now + REMOVAL_DELAY);
            return outputs;
        }
        let is_due = |topic: &String, json: &Bytes| all || self.announced.get(topic) != Some(json);
        let due: Vec<_> = documents.iter().filter(|(topic, json)| is_due(topic, json)).collect();
        if !due.is_empty() {
            self.settings_at = Some(now + SETTINGS_DELAY);
        }
        let messages = due.into_iter().map(|(topic, json)| announcement::message(topic, json.clone()));
        outputs.extend(messages.map(Output::Publish));
        self.announced = documents;
        outputs
    }

    /// The settings, as the entities show them.
    pub(crate) fn settings_message(&self) -> Option<Output> {
        let model = self.record.settings.selected(&self.models)?;
        let json = self.record.settings.to_json(model);
        Some(Output::Publish(retained(self.surroundings.topics.settings(), to_bytes(&json))))
    }

    /// Parses changes of the settings. They take effect with [`Self::set_settings`].
    pub(crate) fn propose(&self, payload: &[u8]) -> Result<ProposedSettings, JobError> {
        self.record.settings.changed(SettingChanges::parse(payload)?, &self.models)
    }

    /// Sets, stores and publishes the settings, and announces what depends on them.
    pub(crate) fn set_settings(&mut self, settings: Settings, now: Instant) -> Vec<Output> {
        if self.record.settings == settings {
            return self.settings_message().into_iter().collect();
        }
        self.record.settings = settings;
        let mut outputs = vec![Output::Store(self.record.to_bytes())];
        if self.is_connected {
            outputs.extend(self.announce(false, now));
        }
        outputs.extend(self.settings_message());
        outputs
    }

    /// Returns a job with the settings and this id.
    pub(crate) fn request(&self, id: String) -> Request {
        let model = self.record.settings.selected(&self.models);
        let request = model.map(|model| self.record.settings.request(model)).unwrap_or_default();
        Request { id: Some(id), ..request }
    }

    /// A picture was made.
    pub(crate) fn on_image(&mut self, receipt: &Receipt) -> Option<Output> {
        let mut facts = serde_json::to_value(receipt).unwrap_or_default();
        if let Value::Object(facts) = &mut facts {
            facts.retain(|name, _| !NO_ATTRIBUTES.contains(&name.as_str()));
        }
        self.picture = Some(to_bytes(&facts));
        self.picture_message()
    }

    fn picture_message(&self) -> Option<Output> {
        let facts = self.picture.clone()?;
        Some(Output::Publish(retained(self.surroundings.topics.picture(), facts)))
    }

    /// A job has ended, or a request was rejected. The result is the duration in milliseconds. The message is published
    /// once: each one that is not retained is an event of its own.
    pub(crate) fn on_job_end(&self, id: &str, result: &Result<u64, JobError>) -> Output {
        let [finished, failed, cancelled] = entities::JOB_ENDS;
        let event = match result {
            Ok(elapsed_ms) => json!({"event_type": finished, "id": id, "elapsed_ms": elapsed_ms}),
            Err(error) => {
                let kind = if error.code == ErrorCode::Cancelled { cancelled } else { failed };
                json!({
                    "event_type": kind,
                    "id": id,
                    "code": error.code,
                    "field": error.field,
                    "message": error.message,
                })
            }
        };
        Output::Publish(retained(self.surroundings.topics.job(), to_bytes(&event)))
    }
}

fn retained(topic: String, payload: Bytes) -> Message {
    Message { retain: true, content_type: Some("application/json".into()), ..Message::new(topic, payload) }
}

fn to_bytes(json: &Value) -> Bytes {
    json.to_string().into()
}

#[cfg(test)]
mod tests;
