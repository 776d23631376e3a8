//! scheduler_config.json: a class and its keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::diffusion::sampler::{self, Options, SamplerError};
use crate::diffusion::settings::{Settings, Value};

/// A scheduler's configuration as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// The file.
    pub path: PathBuf,
    /// `_class_name`.
    pub class: String,
    values: BTreeMap<String, Value>,
}

/// A scheduler configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConfigError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The file can't be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file is no JSON object.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// `_class_name` is missing or no string.
    #[error("_class_name must be a string such as \"DDIMScheduler\"")]
    Class,
    /// A key or the class.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl SchedulerConfig {
    /// Read a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        std::fs::read_to_string(path)
            .map_err(Fault::from)
            .and_then(|text| Self::parse(path, &text))
            .map_err(|fault| ConfigError { path: path.to_owned(), fault })
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Fault> {
        let object: BTreeMap<String, Json> = serde_json::from_str(text)?;
        let Some(Json::String(class)) = object.get("_class_name") else {
            return Err(Fault::Class);
        };
        let values = object
            .iter()
            .filter(|(key, _)| !key.starts_with('_'))
            .map(|(key, value)| (key.clone(), convert(value)))
            .collect();
        let config = Self { path: path.to_owned(), class: class.clone(), values };
        config.check()?;
        Ok(config)
    }

    /// The values, to be read by a sampler.
    pub fn settings(&self) -> Settings {
        Settings::new(self.values.clone())
    }

    /// The values as JSON, for receipts.
    pub fn to_json(&self) -> Json {
        let mut object: serde_json::Map<_, _> =
            self.values.iter().map(|(key, value)| (key.clone(), to_json(value))).collect();
        object.insert("_class_name".to_owned(), Json::String(self.class.clone()));
        Json::Object(object)
    }

    /// Every family reads its keys once, so that a wrong type is found when a bundle is opened.
    fn check(&self) -> Result<(), Fault> {
        let family = sampler::by_class(&self.class)?;
        let options = Options { steps: 1, eta: None };
        (family.build)(&mut self.settings(), &options)?;
        Ok(())
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
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => numbers(list).map_or_else(|| Value::Other(json.to_string()), Value::Numbers),
        Json::Object(_) => Value::Other(json.to_string()),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Flag(flag) => (*flag).into(),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        Value::Number(number) => (*number).into(),
        Value::Text(text) | Value::Other(text) => text.as_str().into(),
        Value::Numbers(numbers) => numbers.as_slice().into(),
    }
}
