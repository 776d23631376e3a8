//! The values of a scheduler configuration, and a record of what was done with each key.

use std::collections::{BTreeMap, BTreeSet};

/// One value of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Not set; the default counts.
    Null,
    /// true or false.
    Flag(bool),
    /// Any number, infinities included.
    Number(f64),
    /// A word.
    Text(String),
    /// A list of numbers.
    Numbers(Vec<f64>),
    /// Anything else; its text is kept for the error.
    Other(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => write!(f, "null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Numbers(numbers) => write!(f, "a list of {} numbers", numbers.len()),
            Self::Other(text) => write!(f, "{text}"),
        }
    }
}

/// What a sampler did with a key.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyStatus {
    /// The configuration's value counts.
    Used,
    /// The configuration lacks the key; the class's own default counts.
    Defaulted,
    /// The sampler's name says this, whatever the configuration has.
    Named,
    /// The class has the key, and nothing depends on it.
    WithoutEffect,
    /// The sampler at hand has no such key.
    NotOfThisSampler,
}

/// One line of what `inspect` tells about a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyReport {
    /// The key.
    pub key: String,
    /// The value that counts.
    pub value: Value,
    /// What was done with it.
    pub treatment: KeyStatus,
}

/// A key whose value can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The value has another type.
    #[error("{key} is {found}, but must be {expected}")]
    Type {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// The value is understood and not accepted.
    #[error("{key} = {value} is refused: {reason}")]
    Refused {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        reason: String,
    },
    /// The values make no noise schedule.
    #[error("{0}")]
    Schedule(String),
}

impl SettingsError {
    /// A value that is understood and not accepted, with the reason.
    pub fn refused(key: &str, value: impl ToString, reason: impl ToString) -> Self {
        Self::Refused { key: key.to_owned(), value: value.to_string(), reason: reason.to_string() }
    }
}

/// A configuration's values, read key by key with the defaults of the class that reads.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    given: BTreeMap<String, Value>,
    defaulted: BTreeMap<String, Value>,
    named: BTreeSet<String>,
    idle: BTreeSet<String>,
    asked: BTreeSet<String>,
}

impl Settings {
    /// The values that a configuration gives.
    pub fn new(given: BTreeMap<String, Value>) -> Self {
        Self { given, ..Self::default() }
    }

    /// Let a value count that a sampler's name implies, whatever the configuration has.
    pub fn name(&mut self, key: &str, value: Value) {
        self.named.insert(key.to_owned());
        self.given.insert(key.to_owned(), value);
    }

    /// Say that the class has these keys and that nothing depends on them.
    pub fn ignore_keys(&mut self, keys: &[&str]) {
        self.idle.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Whether a sampler has asked for this key.
    pub fn was_asked(&self, key: &str) -> bool {
        self.asked.contains(key)
    }

    fn get(&mut self, key: &str, default: impl FnOnce() -> Value) -> Value {
        self.asked.insert(key.to_owned());
        match self.given.get(key) {
            None | Some(Value::Null) => {
                let value = default();
                self.defaulted.insert(key.to_owned(), value.clone());
                value
            }
            Some(value) => value.clone(),
        }
    }

    /// A number.
    pub fn number(&mut self, key: &str, default: f64) -> Result<f64, SettingsError> {
        match self.get(key, || Value::Number(default)) {
            Value::Number(number) => Ok(number),
            other => Err(wrong_type(key, &other, "a number")),
        }
    }

    /// A whole number of at least 0.
    pub fn count(&mut self, key: &str, default: usize) -> Result<usize, SettingsError> {
        match self.get(key, || Value::Number(default as f64)) {
            Value::Number(n) if n.fract() == 0.0 && (0.0..1e15).contains(&n) => Ok(n as usize),
            other => Err(wrong_type(key, &other, "a whole number of at least 0")),
        }
    }

    /// true or false.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool, SettingsError> {
        match self.get(key, || Value::Flag(default)) {
            Value::Flag(flag) => Ok(flag),
            other => Err(wrong_type(key, &other, "true or false")),
        }
    }

    /// A word.
    pub fn text(&mut self, key: &str, default: &str) -> Result<String, SettingsError> {
        match self.get(key, || Value::Text(default.to_owned())) {
            Value::Text(text) => Ok(text),
            other => Err(wrong_type(key, &other, "a string")),
        }
    }

    /// One of a few words.
    pub fn choice(&mut self, key: &str, default: &str, known: &[&str]) -> Result<String, SettingsError> {
        let text = self.text(key, default)?;
        if known.contains(&text.as_str()) {
            return Ok(text);
        }
        let reason = format!("it is none of {}", known.join(", "));
        Err(SettingsError::refused(key, text, reason))
    }

    /// A number, or nothing.
    pub fn optional_number(&mut self, key: &str) -> Result<Option<f64>, SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(number)),
            other => Err(wrong_type(key, &other, "a number or null")),
        }
    }

    /// A key that must be left out or null, for the reason given.
    pub fn reject_if_set(&mut self, key: &str, reason: &str) -> Result<(), SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(()),
            other => Err(SettingsError::refused(key, other, reason)),
        }
    }

    /// A list of numbers, or nothing.
    pub fn numbers(&mut self, key: &str) -> Result<Option<Vec<f64>>, SettingsError> {
        match self.get(key, || Value::Null) {
            Value::Null => Ok(None),
            Value::Numbers(numbers) => Ok(Some(numbers)),
            other => Err(wrong_type(key, &other, "a list of numbers or null")),
        }
    }

    /// Every key that was given or asked for, with what was done with it.
    pub fn report(&self) -> Vec<KeyReport> {
        let used =
            self.given.iter().filter(|(key, _)| !self.defaulted.contains_key(*key)).map(|(key, value)| {
                KeyReport {
                    key: key.clone(),
                    value: value.clone(),
                    treatment: if self.idle.contains(key) {
                        KeyStatus::WithoutEffect
                    } else if !self.asked.contains(key) {
                        KeyStatus::NotOfThisSampler
                    } else if self.named.contains(key) {
                        KeyStatus::Named
                    } else {
                        KeyStatus::Used
                    },
                }
            });
        let defaulted = self.defaulted.iter().map(|(key, value)| KeyReport {
            key: key.clone(),
            value: value.clone(),
            treatment: KeyStatus::Defaulted,
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
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(BTreeMap::from([
            ("beta_start".to_owned(), Value::Number(0.1)),
            ("clip_sample".to_owned(), Value::Text("yes".to_owned())),
            ("solver_order".to_owned(), Value::Number(2.0)),
            ("trained_betas".to_owned(), Value::Null),
        ]))
    }

    #[test]
    fn every_key_is_accounted_for() {
        let mut s = settings();
        assert_eq!(s.number("beta_start", 1e-4), Ok(0.1));
        assert_eq!(s.number("beta_end", 0.02), Ok(0.02));
        assert_eq!(s.numbers("trained_betas"), Ok(None));
        let report: Vec<_> = s.report().into_iter().map(|line| (line.key, line.treatment)).collect();
        let expected = [
            ("beta_end", KeyStatus::Defaulted),
            ("beta_start", KeyStatus::Used),
            ("clip_sample", KeyStatus::NotOfThisSampler),
            ("solver_order", KeyStatus::NotOfThisSampler),
            ("trained_betas", KeyStatus::Defaulted),
        ];
        assert_eq!(report, expected.map(|(key, t)| (key.to_owned(), t)));
    }

    #[test]
    fn a_wrong_type_names_key_value_and_expectation() {
        let error = settings().flag("clip_sample", true).unwrap_err();
        assert_eq!(error.to_string(), "clip_sample is \"yes\", but must be true or false");
    }
}
