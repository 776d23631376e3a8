//! The keys of a scheduler configuration, and a report of how each key was used.
//!
//! The keys and their values are those of scheduler_config.json as diffusers writes it.

use std::collections::{BTreeMap, BTreeSet};

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

/// An error in the value of a key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The value has the wrong type.
    #[error("{key} is {found}, but must be {expected}")]
    Type {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The expected type.
        expected: &'static str,
    },
    /// The value is invalid or not supported.
    #[error("{key} = {value} is refused: {reason}")]
    Refused {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// The values of the noise schedule are invalid.
    #[error("{0}")]
    Schedule(String),
}

impl SettingsError {
    /// The error for a value that is invalid or not supported, with the reason.
    pub fn refused(key: &str, value: impl ToString, reason: impl ToString) -> Self {
        Self::Refused { key: key.to_owned(), value: value.to_string(), reason: reason.to_string() }
    }
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
            Value::Number(n) if n.fract() == 0.0 && (0.0..1e15).contains(&n) => Ok(n as usize),
            other => Err(wrong_type(key, &other, "a whole number of at least 0")),
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
                    } else if !self.read.contains(key) {
                        KeyStatus::Unknown
                    } else if self.implied.contains(key) {
                        KeyStatus::Implied
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
    fn every_key_is_reported() {
        let mut s = settings();
        assert_eq!(s.number("beta_start", 1e-4), Ok(0.1));
        assert_eq!(s.number("beta_end", 0.02), Ok(0.02));
        assert_eq!(s.numbers("trained_betas"), Ok(None));
        let report: Vec<_> = s.report().into_iter().map(|line| (line.key, line.status)).collect();
        let expected = [
            ("beta_end", KeyStatus::Defaulted),
            ("beta_start", KeyStatus::Used),
            ("clip_sample", KeyStatus::Unknown),
            ("solver_order", KeyStatus::Unknown),
            ("trained_betas", KeyStatus::Used),
        ];
        assert_eq!(report, expected.map(|(key, t)| (key.to_owned(), t)));
    }

    #[test]
    fn null_is_python_s_none_and_not_the_default() {
        let null = |key: &str| Settings::new(BTreeMap::from([(key.to_owned(), Value::Null)]));
        assert_eq!(null("set_alpha_to_one").flag("set_alpha_to_one", true), Ok(false));
        assert_eq!(null("sigma_min").optional_number("sigma_min"), Ok(None));
        assert_eq!(null("intermediate_timesteps").number_or_null("intermediate_timesteps", 1.3), Ok(None));
        assert_eq!(Settings::default().number_or_null("intermediate_timesteps", 1.3), Ok(Some(1.3)));
        assert_eq!(null("sample_max_value").number_if(false, "sample_max_value", 1.0), Ok(1.0));
        assert_eq!(
            null("variance_type").text_or_null("variance_type", "fixed_small").unwrap(),
            "fixed_small"
        );
        let error = null("beta_start").number("beta_start", 1e-4).unwrap_err();
        assert_eq!(error.to_string(), "beta_start is null, but must be a number");
        assert!(null("sample_max_value").number_if(true, "sample_max_value", 1.0).is_err());
        assert!(null("beta_schedule").text("beta_schedule", "linear").is_err());
    }

    #[test]
    fn the_error_for_a_wrong_type_has_key_value_and_expected_type() {
        let error = settings().flag("clip_sample", true).unwrap_err();
        assert_eq!(error.to_string(), "clip_sample is \"yes\", but must be true or false");
    }
}
