//! scheduler_config.json: the scheduler's class and keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::pipeline_keys::{PipelineKey, PipelineTask};
use super::scheduler_keys::{build, known_keys, nearest_key};
use crate::json_input::file_fault;
use crate::regular_file;
use diffusion_samplers::sampler::{self, SamplerError, SamplerSpec};
use diffusion_samplers::scheduler_settings::{KeyReport, KeyStatus, Settings, SettingsError, Value};

/// The contents of a scheduler configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// The file.
    pub path: PathBuf,
    /// The class: the one that model_index.json names, or else `_class_name`.
    pub class: String,
    /// `_class_name`, if model_index.json names another class.
    pub class_in_file: Option<String>,
    values: BTreeMap<String, Value>,
    /// Whether the keys are those of the section `[scheduler]` of a denoised.toml.
    is_section: bool,
    /// The keys that the pipeline's constructor sets.
    pub(super) set_by_pipeline: Vec<PipelineKey>,
}

/// A scheduler configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConfigError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("{0}")]
    Json(String),
    #[error("{key} is {found}, but must be a string such as \"DDIMScheduler\"")]
    Class { key: &'static str, found: String },
    #[error("{0} is missing; add the class of the scheduler, such as \"DDIMScheduler\"")]
    NoClass(&'static str),
    #[error("scheduler.{key}: no scheduler has this key; did you mean {nearest}?")]
    Misspelt { key: String, nearest: String },
    #[error("{key} is {class:?}, which is not supported; use one of: {}", known.join(", "))]
    UnknownClass { key: &'static str, class: String, known: Vec<&'static str> },
    #[error("scheduler.{0}")]
    Section(SettingsError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl Fault {
    /// An error in the keys of a file, or of the section `[scheduler]`.
    fn from_sampler(error: SamplerError, is_section: bool) -> Self {
        match error {
            SamplerError::UnknownClass { class, known } => {
                Self::UnknownClass { key: class_key(is_section), class, known }
            }
            // Its text begins with the key.
            SamplerError::Setting(error) if is_section => Self::Section(error),
            error => error.into(),
        }
    }
}

/// The key of the class.
fn class_key(is_section: bool) -> &'static str {
    if is_section { "scheduler.class" } else { "_class_name" }
}

impl SchedulerConfig {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_as(path, None)?.checked()
    }

    /// Reads and checks the configuration in a receipt, which is in the file of this name.
    pub(crate) fn from_receipt(path: &Path, scheduler: &Json) -> Result<Self, ConfigError> {
        Self::parse(path, &scheduler.to_string(), None)
            .map_err(|fault| ConfigError { path: path.to_owned(), fault })?
            .checked()
    }

    /// Reads a file whose keys are those of another class, if one is named. They are checked once it is known which ones
    /// the pipeline sets.
    pub(super) fn read_as(path: &Path, class: Option<&str>) -> Result<Self, ConfigError> {
        regular_file::read_text(path)
            .map_err(Fault::from)
            .and_then(|text| Self::parse(path, &text, class))
            .map_err(|fault| ConfigError { path: path.to_owned(), fault })
    }

    /// Reads the section `[scheduler]` of a denoised.toml.
    pub(crate) fn from_section(
        path: &Path,
        section: &BTreeMap<String, toml::Value>,
    ) -> Result<Self, ConfigError> {
        let object = section.iter().map(|(key, value)| {
            let key = if key == "class" { "_class_name" } else { key };
            (key.to_owned(), toml_to_json(value))
        });
        Self::from_object(path, &object.collect(), None, true)
            .and_then(|config| config.misspelt_key().map_or(Ok(config), Err))
            .map_err(|fault| ConfigError { path: path.to_owned(), fault })
    }

    /// The error for a key that no class has, and that is spelt like one.
    fn misspelt_key(&self) -> Option<Fault> {
        let known = known_keys(&self.values);
        let names = || known.iter().map(String::as_str).chain(["class"]);
        self.values.keys().filter(|key| !known.contains(*key)).find_map(|key| {
            let nearest = nearest_key(key, names())?.to_owned();
            Some(Fault::Misspelt { key: key.clone(), nearest })
        })
    }

    fn parse(path: &Path, text: &str, named: Option<&str>) -> Result<Self, Fault> {
        let object: BTreeMap<String, Json> =
            serde_json::from_str(&with_infinities(text, |word| format!("\"{word}\""))).map_err(|_| {
                // A number of the same length keeps the columns.
                let text = with_infinities(text, |word| "1".repeat(word.len()));
                Fault::Json(file_fault(&text))
            })?;
        Self::from_object(path, &object, named, false)
    }

    fn from_object(
        path: &Path,
        object: &BTreeMap<String, Json>,
        named: Option<&str>,
        is_section: bool,
    ) -> Result<Self, Fault> {
        let key = class_key(is_section);
        let in_file = match object.get("_class_name") {
            Some(Json::String(class)) => Some(class.as_str()),
            None => None,
            Some(other) => return Err(Fault::Class { key, found: other.to_string() }),
        };
        let class = named.or(in_file).ok_or(Fault::NoClass(key))?.to_owned();
        // diffusers lists here which values are only the defaults of the class that wrote the file.
        let defaults: BTreeSet<&str> = match object.get("_use_default_values") {
            Some(Json::Array(keys)) => keys.iter().filter_map(Json::as_str).collect(),
            _ => BTreeSet::new(),
        };
        let values = object
            .iter()
            .filter(|(key, _)| !key.starts_with('_') && !defaults.contains(key.as_str()))
            .map(|(key, value)| (key.clone(), convert(value)))
            .collect();
        let class_in_file = in_file.filter(|in_file| *in_file != class).map(str::to_owned);
        let set_by_pipeline = Vec::new();
        Ok(Self { path: path.to_owned(), class, class_in_file, values, is_section, set_by_pipeline })
    }

    /// The keys and values as they are in the file.
    pub fn settings(&self) -> Settings {
        Settings::new(self.values.clone())
    }

    /// The keys and values that a pipeline gives to a sampler for a task. A key that is not in the file is the
    /// constructor's only for the file's own class; another class begins with its own defaults.
    pub fn settings_for(&self, sampler: &SamplerSpec, task: PipelineTask) -> Settings {
        let is_own = sampler::by_class(&self.class).is_ok_and(|own| own.class() == sampler.class());
        let mut settings = self.settings();
        for key in self.set_for(task).filter(|key| is_own || self.values.contains_key(key.name)) {
            settings.set_implied(key.name, key.value.clone());
        }
        settings
    }

    /// The keys that the constructor of the pipeline for a task sets.
    fn set_for(&self, task: PipelineTask) -> impl Iterator<Item = &PipelineKey> {
        self.set_by_pipeline.iter().filter(move |key| key.task.is_none_or(|own| own == task))
    }

    /// The keys that a pipeline sets for a job with a mask, with their values.
    pub fn set_for_inpainting(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.set_for(PipelineTask::Inpainting).map(|key| (key.name, &key.value))
    }

    /// The class and the keys that apply to a task as JSON, for receipts.
    pub fn to_json(&self, task: PipelineTask) -> Json {
        let mut object: serde_json::Map<_, _> =
            self.values.iter().map(|(key, value)| (key.clone(), to_json(value))).collect();
        object.extend(self.set_for(task).map(|key| (key.name.to_owned(), to_json(&key.value))));
        object.insert("_class_name".to_owned(), Json::String(self.class.clone()));
        Json::Object(object)
    }

    /// Builds the class's sampler once, so that an invalid value is an error when the bundle is opened.
    /// The number of steps is checked for each job.
    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        match self.report() {
            Ok(_) | Err(SamplerError::Steps { .. } | SamplerError::NotFinite { .. }) => Ok(self),
            Err(error) => {
                let fault = Fault::from_sampler(error, self.is_section);
                Err(ConfigError { path: self.path, fault })
            }
        }
    }

    /// How the configuration's own class uses each key.
    pub fn report(&self) -> Result<Vec<KeyReport>, SamplerError> {
        let sampler = sampler::by_class(&self.class)?;
        let mut settings = self.settings_for(&sampler, PipelineTask::Generation);
        build(&sampler, &mut settings)?;
        Ok(settings.report())
    }

    /// The key of the configuration's own class that a key which no class has most likely means.
    pub fn nearest_key(&self, key: &str) -> Option<String> {
        if known_keys(&self.values).contains(key) {
            return None;
        }
        let known = self.read_keys();
        nearest_key(key, known.keys().map(String::as_str)).map(str::to_owned)
    }

    /// Whether a key of the configuration that its own class does not have is one of another class, whose samplers read it.
    pub fn is_of_another_class(&self, key: &str) -> bool {
        known_keys(&self.values).contains(key)
    }

    /// What is to be said about a key that the configuration's own class does not have.
    pub(super) fn unused_key(&self, key: &str) -> String {
        if self.is_of_another_class(key) {
            return format!("{} has no such key; samplers of other classes read it", self.class);
        }
        let hint = self.nearest_key(key).map_or_else(String::new, |key| format!("; did you mean {key}?"));
        format!("{} has no such key{hint}", self.class)
    }

    /// The keys that the configuration's own class reads, with the values of the file or the defaults.
    pub(super) fn read_keys(&self) -> BTreeMap<String, Value> {
        let mut settings = self.settings();
        if let Ok(sampler) = sampler::by_class(&self.class) {
            // Keys are read before the steps are planned, which may fail for this number of them.
            let _ = build(&sampler, &mut settings);
        }
        let read = settings.report().into_iter().filter(|line| line.status != KeyStatus::Unknown);
        read.map(|line| (line.key, line.value)).collect()
    }

    /// The value of a key in the file.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }
}

/// How Python's json writes infinities, which JSON does not have.
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// Replaces every bare infinity outside of strings. [`convert`] turns those in quotes into numbers.
///
/// A JSON5 parser would read infinities too, but also accept comments, trailing commas and single quotes, which diffusers
/// rejects.
fn with_infinities(text: &str, replacement: impl Fn(&str) -> String) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let word =
            [INFINITY, NEGATIVE_INFINITY].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, next) {
            (Some(word), _) => {
                quoted.push_str(&replacement(word));
                word.len()
            }
            // An escaped character never ends a string.
            (None, '\\') => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            (None, _) => {
                in_string ^= next == '"';
                next.len_utf8()
            }
        };
        if word.is_none() {
            quoted.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    quoted
}

/// A value of denoised.toml. JSON has no infinities, which become strings as those of a JSON file.
fn toml_to_json(value: &toml::Value) -> Json {
    match value {
        toml::Value::Float(number) if number.is_infinite() => {
            if *number > 0.0 { INFINITY } else { NEGATIVE_INFINITY }.into()
        }
        other => serde_json::to_value(other).unwrap_or_else(|_| other.to_string().into()),
    }
}

fn convert(json: &Json) -> Value {
    let numbers = |list: &Vec<Json>| list.iter().map(Json::as_f64).collect::<Option<Vec<_>>>();
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => {
            number.as_f64().map_or_else(|| Value::Other(number.to_string()), Value::Number)
        }
        Json::String(text) => match text.as_str() {
            NEGATIVE_INFINITY => Value::Number(f64::NEG_INFINITY),
            INFINITY => Value::Number(f64::INFINITY),
            _ => Value::Text(text.clone()),
        },
        Json::Array(list) => numbers(list).map_or_else(|| Value::Other(json.to_string()), Value::Numbers),
        Json::Object(_) => Value::Other(json.to_string()),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Flag(flag) => (*flag).into(),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        Value::Number(number) if number.is_infinite() => {
            if *number > 0.0 { INFINITY } else { NEGATIVE_INFINITY }.into()
        }
        Value::Number(number) => (*number).into(),
        Value::Text(text) | Value::Other(text) => text.as_str().into(),
        Value::Numbers(numbers) => numbers.as_slice().into(),
    }
}

#[cfg(test)]
mod tests;
