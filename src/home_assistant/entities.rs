//! The entities of the device, as Home Assistant's MQTT platforms configure them.
//!
//! The keys are those of <https://www.home-assistant.io/integrations/mqtt/>, the templates are Jinja's.

use serde_json::{Map, Value, json};

use super::model_facts::{ClassFacts, ModelFacts};
use super::settings::{MAX_SEED, MAX_SHOWN_LEN};
use crate::mqtt::Topics;

/// How a job ends, as the type of an event.
pub(super) const JOB_ENDS: [&str; 3] = ["finished", "failed", "cancelled"];

/// What the entities depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntityContext<'a> {
    pub(super) topics: &'a Topics,
    pub(super) models: &'a [ModelFacts],
    /// The model that the settings choose.
    pub(super) selected: &'a ModelFacts,
    /// The daemon's limit of the number of steps.
    pub(super) max_steps: u64,
    /// The phases of the daemon.
    pub(super) phases: &'a [&'static str],
    /// Whether the machine has a thermal sensor.
    pub(super) has_thermal: bool,
}

/// An entity.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entity {
    /// Its name within the device.
    pub(super) key: &'static str,
    /// Home Assistant's platform.
    pub(super) platform: &'static str,
    /// The configuration, without the device.
    pub(super) config: Map<String, Value>,
}

impl EntityContext<'_> {
    /// Returns the entities that the loaded models and the machine have.
    pub(super) fn entities(&self) -> Vec<Entity> {
        let mut entities = self.pictures();
        entities.extend(self.controls());
        entities.extend(self.sensors());
        entities
    }

    fn pictures(&self) -> Vec<Entity> {
        let topics = self.topics;
        let image = |key, name, topic: String| {
            self.entity("image", key, name, json!({"image_topic": topic, "content_type": "image/png"}))
        };
        let mut picture = image("picture", "Picture", topics.image());
        picture.config.insert("json_attributes_topic".to_owned(), topics.picture().into());
        vec![picture, image("preview", "Preview", topics.preview("+"))]
    }

    /// What changes the settings, draws and cancels. A setting is available while the chosen model understands it.
    fn controls(&self) -> Vec<Entity> {
        let any = |is_true: fn(&ModelFacts) -> bool| self.models.iter().any(is_true);
        let button = |key, name, topic: String, icon| {
            self.entity("button", key, name, json!({"command_topic": topic, "qos": 1, "icon": icon}))
        };
        let seed = "value_json.seed if value_json.seed is not none else -1";
        let mut controls = vec![
            button("draw", "Draw", self.topics.draw(), "mdi:creation"),
            button("cancel", "Cancel", self.topics.cancel_drawn(), "mdi:cancel"),
            self.number("seed", "Seed", (-1, MAX_SEED), 1.0, ("seed", seed)),
            self.number("steps", "Steps", (1, self.max_steps), 1.0, ("steps", "value_json.steps")),
        ];
        if any(|model| model.takes_prompt) {
            controls.push(self.text("prompt", "Prompt"));
            controls.push(self.long_text("long_prompt", "Long prompt"));
        }
        if any(|model| model.takes_negative_prompt) {
            controls.push(self.text("negative_prompt", "Negative prompt"));
        }
        if any(|model| model.takes_guidance) {
            let value = ("guidance", "value_json.guidance");
            controls.push(self.number("guidance", "Guidance", (0, 100), 0.1, value));
        }
        if self.models.len() > 1 {
            let names = self.models.iter().map(|model| model.name.as_str());
            controls.push(self.select("model", "Model", "model", names.collect()));
        }
        let classes = |is_named: bool| {
            let models = [self.selected].into_iter().chain(self.models);
            let mut classes = models.filter_map(|model| model.classes.as_ref());
            classes.find(|classes: &&ClassFacts| classes.options.is_empty() != is_named)
        };
        if let Some(classes) = classes(true) {
            controls.push(self.select("class", "Class", "class_name", classes.all_options().collect()));
        }
        if let Some(classes) = classes(false) {
            let range = (if classes.is_optional { -1 } else { 0 }, classes.count.saturating_sub(1));
            let value = "value_json.class if value_json.class is not none else -1";
            let number = self.number("class_number", "Class number", range, 1.0, ("class", value));
            let condition = "value_json.class is defined and value_json.class_name is not defined";
            controls.push(self.while_true(condition, number));
        }
        controls
    }

    fn sensors(&self) -> Vec<Entity> {
        let topics = self.topics;
        let (state, job) = (topics.state(), topics.job());
        let sensor = |key, name, topic: &str, value: &str, more: Value| {
            self.reading("sensor", key, name, topic, value, more)
        };
        let problem = |key, name, condition: &str| {
            let value = format!("'ON' if {condition} else 'OFF'");
            let more = json!({"device_class": "problem", "entity_category": "diagnostic"});
            self.reading("binary_sensor", key, name, &state, &value, more)
        };
        let measured = |unit: &str, icon: &str| json!({"unit_of_measurement": unit, "icon": icon, "state_class": "measurement"});
        let done = "(100 * value_json.step / value_json.of) | round | int if value_json.of";
        let seconds = "value_json.elapsed_ms / 1000 if value_json.elapsed_ms is defined";
        let duration =
            json!({"unit_of_measurement": "s", "device_class": "duration", "state_class": "measurement"});
        let phases = json!({"device_class": "enum", "options": self.phases});
        let rejected = "value_json.models | selectattr('rejected_providers') | list";
        let event = json!({"state_topic": job, "event_types": JOB_ENDS, "icon": "mdi:image-check"});
        let mut sensors = vec![
            sensor("phase", "State", &state, "value_json.phase", phases),
            sensor("queue", "Queue", &state, "value_json.queue", measured("jobs", "mdi:tray-full")),
            sensor("progress", "Progress", &topics.progress("+"), done, measured("%", "mdi:progress-clock")),
            sensor("duration", "Last duration", &job, seconds, duration),
            sensor(
                "evaluation",
                "Time per evaluation",
                &state,
                "value_json.ms_per_nfe",
                measured("ms", "mdi:speedometer"),
            ),
            sensor(
                "provider",
                "Provider",
                &state,
                "value_json.provider",
                json!({"icon": "mdi:chip", "entity_category": "diagnostic"}),
            ),
            problem("fallback", "Fallback provider", rejected),
            self.entity("event", "job", "Job", event),
        ];
        if self.has_thermal {
            let value = "value_json.thermal.celsius if value_json.thermal else None";
            let celsius = json!({
                "unit_of_measurement": "°C",
                "device_class": "temperature",
                "state_class": "measurement",
                "entity_category": "diagnostic",
            });
            sensors.push(sensor("temperature", "Temperature", &state, value, celsius));
            let throttled = "value_json.thermal and value_json.thermal.throttles";
            sensors.push(problem("throttled", "Throttled", throttled));
        }
        sensors
    }

    /// An entity that shows what an expression makes of the messages on a topic.
    fn reading(
        &self,
        platform: &'static str,
        key: &'static str,
        name: &str,
        topic: &str,
        value: &str,
        more: Value,
    ) -> Entity {
        let mut entity = self.entity(platform, key, name, more);
        entity.config.insert("state_topic".to_owned(), topic.into());
        entity.config.insert("value_template".to_owned(), format!("{{{{ {value} }}}}").into());
        entity
    }

    fn text(&self, field: &'static str, name: &str) -> Entity {
        // A longer text is shown with its start only: see `settings::shown`.
        let (text, end) = (format!("value_json.{field}"), MAX_SHOWN_LEN - 1);
        let value = format!("{text} if {text} | length <= {MAX_SHOWN_LEN} else {text}[:{end}] ~ '…'");
        let entity = self.entity("text", field, name, json!({"min": 0, "max": MAX_SHOWN_LEN}));
        self.for_setting(field, (&value, "''"), entity)
    }

    /// A target of the action `notify.send_message`, whose message may have any length.
    fn long_text(&self, key: &'static str, name: &str) -> Entity {
        let config = json!({
            "command_topic": self.topics.set_settings(),
            "command_template": command("prompt"),
            "qos": 1,
            "icon": "mdi:text-long",
        });
        self.while_true("value_json.prompt is defined", self.entity("notify", key, name, config))
    }

    fn select(&self, key: &'static str, name: &str, field: &str, options: Vec<&str>) -> Entity {
        let entity = self.entity("select", key, name, json!({"options": options}));
        self.for_setting(field, (&format!("value_json.{field}"), "None"), entity)
    }

    /// `value` is the setting and the expression that shows it.
    fn number(
        &self,
        key: &'static str,
        name: &str,
        (min, max): (i64, u64),
        step: f64,
        (field, value): (&str, &str),
    ) -> Entity {
        let config = json!({"min": min, "max": max, "step": step, "mode": "box"});
        self.for_setting(field, (value, "None"), self.entity("number", key, name, config))
    }

    /// Lets an entity show and change a setting: the first expression shows it, and the second one is shown if the model does
    /// not understand it.
    fn for_setting(&self, field: &str, (value, missing): (&str, &str), mut entity: Entity) -> Entity {
        let is_defined = format!("value_json.{field} is defined");
        let template = format!("{{{{ ({value}) if {is_defined} else {missing} }}}}");
        for (key, value) in [
            ("state_topic", self.topics.settings().into()),
            ("value_template", template.into()),
            ("command_topic", self.topics.set_settings().into()),
            ("command_template", command(field).into()),
            ("qos", Value::from(1)),
        ] {
            entity.config.insert(key.to_owned(), value);
        }
        self.while_true(&is_defined, entity)
    }

    fn entity(&self, platform: &'static str, key: &'static str, name: &str, config: Value) -> Entity {
        let mut config = match config {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        config.insert("name".to_owned(), name.into());
        config.insert("availability".to_owned(), json!([{"topic": self.topics.status()}]));
        Entity { key, platform, config }
    }

    /// Makes an entity available only while this condition on the settings holds.
    fn while_true(&self, condition: &str, mut entity: Entity) -> Entity {
        let availability = json!([
            {"topic": self.topics.status()},
            {
                "topic": self.topics.settings(),
                "value_template": format!("{{{{ 'online' if {condition} else 'offline' }}}}"),
            },
        ]);
        entity.config.insert("availability".to_owned(), availability);
        entity.config.insert("availability_mode".to_owned(), "all".into());
        entity
    }
}

/// The template of a change of one setting.
fn command(field: &str) -> String {
    format!("{{\"{field}\": {{{{ value | tojson }}}} }}")
}

#[cfg(test)]
mod tests;
