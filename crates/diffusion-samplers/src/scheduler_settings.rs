//! The keys of a scheduler configuration, and a report of how each key was used.
//!
//! The keys and their values are those of scheduler_config.json as diffusers writes it.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

pub use error::SettingsError;

/// Whole numbers from here on are no counts.
const MAX_COUNT: f64 = 1e15;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, which diffusers passes on as `None` instead of the default.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number, which can be infinite.
    Number(f64),
    /// A string.
    Text(String),
    /// A list of numbers.
    Numbers(Vec<f64>),
    /// A value of another type, as text for the error message.
    Other(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => write!(f, "null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            // The shortest form of a number with many digits.
            Self::Number(number) if number.is_finite() && number.abs() >= MAX_COUNT => {
                write!(f, "{number:e}")
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Numbers(numbers) => write!(f, "a list of {} numbers", numbers.len()),
            Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// How a sampler used a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// The configuration's value applies.
    Used,
    /// The key is not set: the default of the class applies.
    Defaulted,
    /// The sampler's name implies this value, which takes precedence over the configuration's.
    Implied,
    /// The class has the key, but does not use it.
    Ignored,
    /// The class uses the key only with another value of another key, which is the reason.
    WithoutEffect(&'static str),
    /// The sampler has no such key.
    Unknown,
}

/// A key of a configuration, its value, and how it was used.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyReport {
    /// The key.
    pub key: String,
    /// The value that applies.
    pub value: Value,
    /// How the sampler used it.
    pub status: KeyStatus,
}

/// The keys of a scheduler configuration. A sampler reads them one by one, each with the default of its class;
/// [`report`](Self::report) then returns how each key was used.
///
/// ```
/// use std::collections::BTreeMap;
/// use diffusion_samplers::scheduler_settings::{KeyStatus, Settings, Value};
///
/// let keys = BTreeMap::from([("beta_start".to_owned(), Value::Number(0.001))]);
/// let mut settings = Settings::new(keys);
/// assert_eq!(settings.number("beta_start", 1e-4), Ok(0.001));
/// assert_eq!(settings.number("beta_end", 0.02), Ok(0.02));
/// assert_eq!(settings.report()[0].status, KeyStatus::Defaulted); // beta_end
/// assert!(settings.flag("beta_start", true).is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Settings {
    given: BTreeMap<String, Value>,
    defaulted: BTreeMap<String, Value>,
    implied: BTreeSet<String>,
    ignored: BTreeSet<String>,
    without_effect: BTreeMap<String, &'static str>,
    read: BTreeSet<String>,
}

impl Settings {
    /// The keys of a configuration.
    pub fn new(given: BTreeMap<String, Value>) -> Self {
        Self { given, ..Self::default() }
    }

    /// Sets a key to the value that a sampler's name implies. It takes precedence over the configuration's value.
    pub fn set_implied(&mut self, key: &str, value: Value) {
        self.implied.insert(key.to_owned());
        self.given.insert(key.to_owned(), value);
    }

    /// Declares keys that the class has but does not use.
    pub fn ignore_keys(&mut self, keys: &[&str]) {
        self.ignored.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Declares keys that the value of another key switches off, with that value as the reason.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use diffusion_samplers::scheduler_settings::{KeyStatus, Settings, Value};
    ///
    /// let keys = BTreeMap::from([("clip_sample_range".to_owned(), Value::Number(2.0))]);
    /// let mut settings = Settings::new(keys);
    /// settings.number("clip_sample_range", 1.0).unwrap();
    /// settings.switch_off(&["clip_sample_range"], "clip_sample is false");
    /// assert_eq!(settings.report()[0].status, KeyStatus::WithoutEffect("clip_sample is false"));
    /// ```
    pub fn switch_off(&mut self, keys: &[&str], reason: &'static str) {
        self.without_effect.extend(keys.iter().map(|key| ((*key).to_owned(), reason)));
    }

    /// Takes back [`switch_off`](Self::switch_off) for a key that is used after all.
    pub(crate) fn switch_on(&mut self, key: &str) {
        self.without_effect.remove(key);
    }

    /// Returns whether the configuration or a sampler's name sets this key.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Returns whether a sampler has read this key.
    pub fn was_read(&self, key: &str) -> bool {
        self.read.contains(key)
    }

    fn get(&mut self, key: &str, default: impl FnOnce() -> Value) -> Value {
        self.read.insert(key.to_owned());
        match self.given.get(key) {
            None => {
                let value = default();
                self.defaulted.insert(key.to_owned(), value.clone());
                value
            }
            Some(value) => value.clone(),
        }
    }

    /// Reads a number.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn number(&mut self, key: &str, default: f64) -> Result<f64, SettingsError> {
        match self.get(key, || Value::Number(default)) {
            Value::Number(number) => Ok(number),
            other => Err(wrong_type(key, &other, "a number")),
        }
    }

    /// Reads a number that the class only uses in this case; in others it may be `null`.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn number_if(&mut self, is_used: bool, key: &str, default: f64) -> Result<f64, SettingsError> {
        match self.given.get(key) {
            Some(Value::Null) if !is_used => {
                self.read.insert(key.to_owned());
                Ok(default)
            }
            _ => self.number(key, default),
        }
    }

    /// Reads a number whose `null` is none, and not the default.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn number_or_null(&mut self, key: &str, default: f64) -> Result<Option<f64>, SettingsError> {
        match self.get(key, || Value::Number(default)) {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(number)),
            other => Err(wrong_type(key, &other, "a number or null")),
        }
    }

    /// Reads a whole number of at least 0.
    ///
    /// # Errors
    ///
    /// If the value is anything else.
    pub fn count(&mut self, key: &str, default: usize) -> Result<usize, SettingsError> {
        match self.get(key, || Value::Number(default as f64)) {
            Value::Number(n) if n.fract() == 0.0 && (0.0..MAX_COUNT).contains(&n) => Ok(n as usize),
            Value::Number(n) if n.fract() == 0.0 && n >= MAX_COUNT => {
                Err(SettingsError::out_of_range(key, Value::Number(n), format!("less than {MAX_COUNT:e}")))
            }
            other => Err(wrong_type(key, &other, "a whole number of at least 0")),
        }
    }

    /// Reads a whole number in a range.
    ///
    /// # Errors
    ///
    /// If the value is anything else.
    pub fn count_within(
        &mut self,
        key: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, SettingsError> {
        let bounds = || format!("a whole number from {} to {}", range.start(), range.end());
        match self.get(key, || Value::Number(default as f64)) {
            Value::Number(n) if n.fract() == 0.0 && n >= 0.0 && range.contains(&(n as usize)) => {
                Ok(n as usize)
            }
            other => Err(SettingsError::out_of_range(key, other, bounds())),
        }
    }

    /// Reads `true` or `false`. `null` is `false`, as Python's `None` is.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, SettingsError> {
        match self.get(key, || Value::Flag(default)) {
            Value::Flag(flag) => Ok(flag),
            Value::Null => Ok(false),
            other => Err(wrong_type(key, &other, "true or false")),
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn text(&mut self, key: &str, default: &str) -> Result<String, SettingsError> {
        match self.get(key, || Value::Text(default.to_owned())) {
            Value::Text(text) => Ok(text),
            other => Err(wrong_type(key, &other, "a string")),
        }
    }

    /// Reads a string whose `null` means the default.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn text_or_null(&mut self, key: &str, default: &str) -> Result<String, SettingsError> {
        match self.get(key, || Value::Text(default.to_owned())) {
            Value::Text(text) => Ok(text),
            Value::Null => Ok(default.to_owned()),
            other => Err(wrong_type(key, &other, "a string or null")),
        }
    }

    /// Reads a string that must be one of `known`.
    ///
    /// # Errors
    ///
    /// If the value is anything else.
    pub fn choice(&mut self, key: &str, default: &str, known: &[&str]) -> Result<String, SettingsError> {
        let text = self.text(key, default)?;
        if known.contains(&text.as_str()) {
            return Ok(text);
        }
        let reason = format!("it is none of {}", known.join(", "));
        Err(SettingsError::refused(key, text, reason))
    }

    /// Reads a number that has no default.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn optional_number(&mut self, key: &str) -> Result<Option<f64>, SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(number)),
            other => Err(wrong_type(key, &other, "a number or null")),
        }
    }

    /// Reads a key that is not supported.
    ///
    /// # Errors
    ///
    /// If the key is set and not null, with this reason.
    pub fn reject_if_set(&mut self, key: &str, reason: &str) -> Result<(), SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(()),
            other => Err(SettingsError::refused(key, other, reason)),
        }
    }

    /// Reads a list of numbers that has no default.
    ///
    /// # Errors
    ///
    /// If the value has another type.
    pub fn numbers(&mut self, key: &str) -> Result<Option<Vec<f64>>, SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(None),
            Value::Numbers(numbers) => Ok(Some(numbers)),
            other => Err(wrong_type(key, &other, "a list of numbers or null")),
        }
    }

    /// Every key that is set or was read, in alphabetical order, with its value and its use.
    pub fn report(&self) -> Vec<KeyReport> {
        let used =
            self.given.iter().filter(|(key, _)| !self.defaulted.contains_key(*key)).map(|(key, value)| {
                KeyReport {
                    key: key.clone(),
                    value: value.clone(),
                    status: if self.ignored.contains(key) {
                        KeyStatus::Ignored
                    } else if self.implied.contains(key) && self.read.contains(key) {
                        KeyStatus::Implied
                    } else if let Some(reason) = self.without_effect.get(key) {
                        KeyStatus::WithoutEffect(reason)
                    } else if !self.read.contains(key) {
                        KeyStatus::Unknown
                    } else {
                        KeyStatus::Used
                    },
                }
            });
        let defaulted = self.defaulted.iter().map(|(key, value)| KeyReport {
            key: key.clone(),
            value: value.clone(),
            status: KeyStatus::Defaulted,
        });
        let mut report: Vec<_> = used.chain(defaulted).collect();
        report.sort_by(|a, b| a.key.cmp(&b.key));
        report
    }
}

fn wrong_type(key: &str, found: &Value, expected: &'static str) -> SettingsError {
    SettingsError::Type { key: key.to_owned(), found: found.to_string(), expected }
}

#[cfg(test)]
mod tests;
