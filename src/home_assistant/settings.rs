//! The settings that Home Assistant's entities show and change, and the job that they make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model_facts::ModelFacts;
use super::setting_changes::SettingChanges;
use crate::job::{ErrorCode, JobError, Request};
use crate::json_input::MAX_EXACT_INTEGER;

/// The largest seed. Home Assistant's numbers are 64-bit floats.
pub(super) const MAX_SEED: u64 = MAX_EXACT_INTEGER;
/// The longest text that an entity shows, in characters.
pub(super) const MAX_SHOWN_LEN: usize = 255;

/// The settings. A model that is not loaded keeps its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// `None`: the first model.
    model: Option<String>,
    prompt: String,
    negative_prompt: String,
    /// `None`: a new seed for each job.
    seed: Option<u64>,
    /// The settings that depend on the model, by its name.
    models: BTreeMap<String, ModelSettings>,
}

/// The settings of one model. `None`: the model's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ModelSettings {
    steps: Option<u64>,
    guidance: Option<f64>,
    class: Option<i64>,
}

/// Settings with changes that are not accepted yet.
#[derive(Debug, PartialEq)]
pub(crate) struct ProposedSettings {
    pub(crate) settings: Settings,
    /// A job with these settings, and with every changed one, even if the model does not understand it.
    pub(crate) request: Request,
    fields: Vec<&'static str>,
}

impl ProposedSettings {
    /// Returns whether an error of [`Self::request`] is about one of the changes.
    pub(crate) fn is_about(&self, error: &JobError) -> bool {
        error.field.as_deref().is_some_and(|field| self.fields.contains(&field))
    }
}

impl Settings {
    /// Returns the facts about the chosen model, or about the first one if the chosen one is not loaded.
    pub(super) fn selected<'a>(&self, models: &'a [ModelFacts]) -> Option<&'a ModelFacts> {
        let chosen = models.iter().find(|model| Some(&model.name) == self.model.as_ref());
        chosen.or_else(|| models.first())
    }

    /// Returns the settings with these changes.
    pub(super) fn changed(
        &self,
        changes: SettingChanges,
        models: &[ModelFacts],
    ) -> Result<ProposedSettings, JobError> {
        let fields = changes.fields();
        let mut settings = self.clone();
        if let Some(model) = changes.model {
            check_model(model.as_deref(), models)?;
            settings.model = model;
        }
        let facts = settings.selected(models).cloned();
        let name = facts.as_ref().map(|facts| facts.name.clone()).unwrap_or_default();
        let mut explicit = Request::default();
        for (text, change, explicit) in [
            (&mut settings.prompt, changes.prompt, &mut explicit.prompt),
            (&mut settings.negative_prompt, changes.negative_prompt, &mut explicit.negative_prompt),
        ] {
            let Some(change) = change.map(Option::unwrap_or_default) else { continue };
            if !is_shown_form(&change, text) {
                text.clone_from(&change);
            }
            *explicit = Some(text.clone()).filter(|text| !text.is_empty());
        }
        if let Some(seed) = changes.seed {
            settings.seed = seed.map(check_seed).transpose()?.flatten();
        }
        let own = settings.models.entry(name).or_default();
        if let Some(steps) = changes.steps {
            (own.steps, explicit.steps) = (steps, steps);
        }
        if let Some(guidance) = changes.guidance {
            (own.guidance, explicit.guidance) = (guidance, guidance);
        }
        if let Some(class) = changes.class {
            // A number of Home Assistant is never missing.
            let class = class.filter(|class| *class != -1);
            (own.class, explicit.class) = (class, class);
        }
        if let Some(option) = changes.class_name {
            let class = option.map(|option| class_of(&option, facts.as_ref())).transpose()?.flatten();
            (own.class, explicit.class) = (class, class);
        }
        let request = facts.as_ref().map(|facts| settings.request(facts)).unwrap_or_default();
        // A guidance scale may be set before the class that it needs.
        let has_classes = facts.is_some_and(|facts| facts.classes.is_some());
        let any_class = (explicit.guidance.is_some() && has_classes).then_some(0);
        let request = Request {
            prompt: explicit.prompt.or(request.prompt),
            negative_prompt: explicit.negative_prompt.or(request.negative_prompt),
            steps: explicit.steps.or(request.steps),
            guidance: explicit.guidance.or(request.guidance),
            class: explicit.class.or(request.class).or(any_class),
            ..request
        };
        Ok(ProposedSettings { settings, request, fields })
    }

    /// Returns a job on this model, with the settings that it understands.
    pub(super) fn request(&self, model: &ModelFacts) -> Request {
        let own = self.models.get(&model.name).cloned().unwrap_or_default();
        let class = self.class(model);
        // Guidance of a class needs one.
        let can_guide = model.takes_guidance && (model.takes_prompt || class.is_some());
        let negative_prompt = Some(&self.negative_prompt).filter(|text| !text.is_empty());
        Request {
            model: Some(model.name.clone()),
            seed: self.seed,
            steps: own.steps,
            guidance: own.guidance.filter(|_| can_guide),
            class,
            prompt: model.takes_prompt.then(|| self.prompt.clone()),
            negative_prompt: negative_prompt.filter(|_| model.takes_negative_prompt).cloned(),
            ..Request::default()
        }
    }

    /// The class of a job: the first one, if the model needs one and none is set.
    fn class(&self, model: &ModelFacts) -> Option<i64> {
        let classes = model.classes.as_ref()?;
        let own = self.models.get(&model.name).and_then(|own| own.class);
        let known = own.filter(|class| u64::try_from(*class).is_ok_and(|class| class < classes.count));
        known.or_else(|| (!classes.is_optional).then_some(0))
    }

    /// The settings that this model understands, with its defaults.
    pub(super) fn to_json(&self, model: &ModelFacts) -> Value {
        let own = self.models.get(&model.name).cloned().unwrap_or_default();
        let mut json = Map::new();
        let mut insert = |field: &str, value: Value| json.insert(field.to_owned(), value);
        insert("model", model.name.clone().into());
        insert("seed", self.seed.into());
        insert("steps", own.steps.unwrap_or(model.steps).into());
        if model.takes_guidance {
            insert("guidance", own.guidance.unwrap_or(model.guidance).into());
        }
        if model.takes_prompt {
            insert("prompt", self.prompt.clone().into());
        }
        if model.takes_negative_prompt {
            insert("negative_prompt", self.negative_prompt.clone().into());
        }
        if let Some(classes) = &model.classes {
            let class = self.class(model);
            insert("class", class.into());
            if let Some(option) = classes.option_of(class) {
                insert("class_name", option.into());
            }
        }
        Value::Object(json)
    }
}

/// Returns what an entity shows of a text, without the white space around it that Home Assistant strips. The entity's
/// template does the same.
fn shown(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN_LEN {
        return text.trim().to_owned();
    }
    let start: String = text.chars().take(MAX_SHOWN_LEN - 1).collect();
    format!("{}…", start.trim_start())
}

/// Whether this is what an entity shows of a text, so that it must not replace the text.
fn is_shown_form(change: &str, text: &str) -> bool {
    change.trim() == shown(text)
}

fn check_model(name: Option<&str>, models: &[ModelFacts]) -> Result<(), JobError> {
    match name {
        Some(name) if models.iter().all(|model| model.name != name) => {
            let known: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
            let message = format!("there is no model {name:?}; there are: {}", known.join(", "));
            Err(JobError::of_field(ErrorCode::UnknownModel, "model", message))
        }
        _ => Ok(()),
    }
}

/// Returns a seed; `None` for -1, which stands for a new one each time.
fn check_seed(seed: i64) -> Result<Option<u64>, JobError> {
    match u64::try_from(seed) {
        Ok(seed) if seed <= MAX_SEED => Ok(Some(seed)),
        _ if seed == -1 => Ok(None),
        _ => {
            let message = format!(
                "seed is {seed}, but must lie between 0 and {MAX_SEED}, or be -1 for a new seed each time"
            );
            Err(JobError::out_of_range("seed", message))
        }
    }
}

fn class_of(option: &str, model: Option<&ModelFacts>) -> Result<Option<i64>, JobError> {
    let name = model.map_or("", |model| &model.name);
    let classes =
        model.and_then(|model| model.classes.as_ref()).filter(|classes| !classes.options.is_empty());
    let Some(classes) = classes else {
        let message = format!("{name} has no names of classes; remove class_name");
        return Err(JobError::out_of_range("class_name", message));
    };
    classes.class_of(option).ok_or_else(|| {
        let message = format!("{name} has no class {option:?}; choose one of the options of the entity");
        JobError::out_of_range("class_name", message)
    })
}

#[cfg(test)]
mod tests;
