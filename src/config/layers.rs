//! Reads the layers of the configuration. Each one is validated alone, so that every error has its file and line.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;
use super::consistency::{self, Inconsistency};
use super::environment::{Variables, check_variable};
use super::file::{check_file, find_line};
use crate::serde_message::{DocumentFormat, without_rust_types};

/// The file that is read by default, if it exists.
pub const DEFAULT_FILE: &str = "/etc/denoised/config.toml";

/// The location of an error that no single layer has.
const MERGED: &str = "configuration";

/// One error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// `FILE:LINE`, with `:COLUMN` where the file is not TOML, or the name of the environment variable.
    pub location: String,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.key.as_str() {
            "" => format!("{}: {}", self.location, self.message),
            key => format!("{}: {key}: {}", self.location, self.message),
        };
        // A key may hold control characters, which must not reach a terminal.
        f.write_str(&text.replace(char::is_control, "\u{fffd}"))
    }
}

/// All errors in a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.iter().map(ConfigFault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigFault>);

/// Loads the defaults, then the file, then the environment variables `DENOISED_SECTION__KEY`.
///
/// Without a `file`, reads [`DEFAULT_FILE`] if it exists. Returns the errors of all layers together.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut faults = Vec::new();
    let mut layers = Layers::default();
    if let Some((path, text)) = read(file, &mut faults) {
        let table = check_file(&path, &text, &mut faults);
        layers.file = Some((path, text, table));
    }
    let variables = Variables::new(environment);
    for (name, raw) in &variables.configuring {
        match check_variable(name, raw) {
            Ok(table) => layers.variables.push((name.clone(), table)),
            Err(fault) => faults.push(fault),
        }
    }
    match layers.merge() {
        Ok(config) => {
            let inconsistencies = consistency::faults(&config);
            // A value that is not valid is missing here, so that its key may seem to contradict others.
            let is_known = |keys: &[String]| faults.iter().any(|fault| is_about(&fault.key, keys));
            let found =
                inconsistencies.into_iter().filter(|found| !found.keys.iter().any(|keys| is_known(keys)));
            let found: Vec<_> = found.map(|found| layers.located(found)).collect();
            faults.extend(found);
            let config = Config { ignored_variables: variables.foreign, ..config };
            if faults.is_empty() { Ok(config) } else { Err(ConfigErrors(faults)) }
        }
        Err(error) if faults.is_empty() => Err(ConfigErrors(vec![ConfigFault {
            location: MERGED.to_owned(),
            key: String::new(),
            message: without_rust_types(&error.to_string(), DocumentFormat::Toml),
        }])),
        Err(_) => Err(ConfigErrors(faults)),
    }
}

/// Whether a fault's key is this one or one of its sections.
fn is_about(fault: &str, keys: &[String]) -> bool {
    let key = keys.join(".");
    !fault.is_empty() && key.strip_prefix(fault).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What is valid in the file and in the environment variables.
#[derive(Debug, Default)]
struct Layers {
    /// The file, its text and its valid keys.
    file: Option<(PathBuf, String, Table)>,
    /// The name and the key of each variable.
    variables: Vec<(String, Table)>,
}

impl Layers {
    fn merge(&self) -> Result<Config, config::ConfigError> {
        let file = self.file.iter().map(|(_, _, table)| table);
        let tables = file.chain(self.variables.iter().map(|(_, table)| table));
        let layers = tables.fold(config::Config::builder(), |layers, table| layers.add_source(source(table)));
        layers.build()?.try_deserialize()
    }

    /// Returns an inconsistency with the place of its key, or else of the first key that it depends on and that is set.
    fn located(&self, found: Inconsistency) -> ConfigFault {
        let location = found.keys.iter().find_map(|keys| self.location(keys));
        ConfigFault {
            location: location.unwrap_or_else(|| MERGED.to_owned()),
            key: found.keys.first().map(|keys| keys.join(".")).unwrap_or_default(),
            message: found.message,
        }
    }

    /// Returns the place where a key is set.
    fn location(&self, keys: &[String]) -> Option<String> {
        let variable = self.variables.iter().find(|(_, table)| contains(table, keys));
        if let Some((name, _)) = variable {
            return Some(name.clone());
        }
        let (path, text, _) = self.file.as_ref().filter(|(_, _, table)| contains(table, keys))?;
        Some(format!("{}:{}", path.display(), find_line(text, keys)))
    }
}

/// Whether a table has a value for this key.
fn contains(table: &Table, keys: &[String]) -> bool {
    let Some((first, rest)) = keys.split_first() else { return false };
    rest.iter().try_fold(table.get(first), |value, key| Some(value?.get(key))).flatten().is_some()
}

fn source(table: &Table) -> config::File<config::FileSourceString, config::FileFormat> {
    config::File::from_str(&table.to_string(), config::FileFormat::Toml)
}

fn read(file: Option<&Path>, faults: &mut Vec<ConfigFault>) -> Option<(PathBuf, String)> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Some((path.to_owned(), text)),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            faults.push(ConfigFault {
                location: path.display().to_string(),
                key: String::new(),
                message: format!("cannot read the file: {error}"),
            });
            None
        }
    }
}

/// The floats up to this number have all whole numbers.
const MAX_WHOLE_FLOAT: f64 = (1_u64 << 53) as f64;

/// Replaces floats such as 3.0, which some writers of TOML make of every number, by integers. No key takes only floats.
pub(super) fn whole_floats_to_integers(table: &mut Table) {
    fn replace(value: &mut Value) {
        match value {
            Value::Float(float) if float.fract() == 0.0 && float.abs() <= MAX_WHOLE_FLOAT => {
                *value = Value::Integer(*float as i64);
            }
            Value::Array(values) => values.iter_mut().for_each(replace),
            Value::Table(table) => whole_floats_to_integers(table),
            _ => {}
        }
    }
    table.iter_mut().for_each(|(_, value)| replace(value));
}

pub(super) fn deserialize(table: &Table) -> Result<Config, serde_path_to_error::Error<toml::de::Error>> {
    serde_path_to_error::deserialize(table.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BatchLimit, Bounded};

    fn with_file(text: &str) -> Result<Config, ConfigErrors> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path), []).map_err(|ConfigErrors(mut faults)| {
            for fault in &mut faults {
                fault.location = fault.location.replace(&path.display().to_string(), "c.toml");
            }
            ConfigErrors(faults)
        })
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(with_file("").unwrap(), Config::default());
    }

    #[test]
    fn the_example_documents_every_key_with_its_default() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/config.toml");
        assert_eq!(load(Some(&example), []).unwrap(), Config::default());
        let text = std::fs::read_to_string(example).unwrap();
        let invalid = with_file(
            "x = 1\n[mqtt]\nx = 1\n[models]\nx = 1\n[engine]\nx = 1\n[spool]\nx = 1\n[limits]\nx = 1\n[log]\nx = 1\n[board]\nx = 1\n[engine.tensorrt]\nx = 1\n[engine.cuda]\nx = 1\n[engine.openvino]\nx = 1\n",
        );
        let ConfigErrors(faults) = invalid.unwrap_err();
        assert_eq!(faults.len(), 11);
        // The error for an unknown key lists all keys of its section.
        for fault in faults {
            for key in fault.message.split('`').skip(3).step_by(2) {
                let documented = text.lines().any(|line| {
                    let line = line.trim_start_matches('#');
                    line.starts_with(&format!("{key} =")) || line == format!("[{key}]")
                });
                assert!(documented, "{key} is not in the example");
            }
        }
    }

    #[test]
    fn all_errors_are_reported_with_line_and_key() {
        let text = "node = \"a b\"\n\n[mqtt]\nurll = \"x\"\nqos = 7\n[limits]\nsteps = 0\n\
                    [engine]\nproviders = [\"cpu\", \"tpu\"]\n[nonsense]\n";
        let ConfigErrors(faults) = with_file(text).unwrap_err();
        let mut found: Vec<_> = faults.iter().map(|f| (f.location.as_str(), f.key.as_str())).collect();
        found.sort_unstable();
        let expected = [
            ("c.toml:1", "node"),
            ("c.toml:10", "nonsense"),
            ("c.toml:4", "mqtt.urll"),
            ("c.toml:5", "mqtt.qos"),
            ("c.toml:7", "limits.steps"),
            ("c.toml:9", "engine.providers[1]"),
        ];
        assert_eq!(found, expected);
        let text = ConfigErrors(faults).to_string();
        assert!(text.contains("unknown field `urll`, expected one of `url`"), "{text}");
        assert!(text.contains("0 must lie between 1 and 100000"), "{text}");
    }

    /// serde assigned the values of a list to the keys of a section by their order.
    #[test]
    fn lists_were_taken_for_sections() {
        for (text, expected) in [
            (
                "mqtt = [\"mqtt://h:1\"]",
                "c.toml:1: mqtt: must be a table, and is an array; write [mqtt], and its keys below",
            ),
            (
                "[[mqtt]]\nurl = \"mqtt://h:1\"",
                "c.toml:1: mqtt: must be a table, and is an array; write [mqtt] instead of [[mqtt]]",
            ),
            (
                "node = \"a\"\nlimits = []",
                "c.toml:2: limits: must be a table, and is an array; write [limits], and its keys below",
            ),
            (
                "[engine]\ntensorrt = [1]\n",
                "c.toml:2: engine.tensorrt: must be a table, and is an array; write [engine.tensorrt], and its keys below",
            ),
            (
                "[models.engine]\ndigits = [[\"cpu\"]]",
                "c.toml:2: models.engine.digits: must be a table, and is an array; write [models.engine.digits], and \
                 its keys below",
            ),
        ] {
            assert_eq!(with_file(text).unwrap_err().to_string(), expected);
        }
        // All of them, and the other errors.
        let ConfigErrors(faults) = with_file("spool = [\"/x\"]\nlimits = [3]\nnode = 3").unwrap_err();
        assert_eq!(faults.len(), 3);
    }

    #[test]
    fn a_number_beyond_64_bits_was_reported_without_its_key() {
        let text = "[limits]\nsteps = 99999999999999999999\nqueue = -99999999999999999999\n";
        assert_eq!(
            with_file(text).unwrap_err().to_string(),
            "c.toml:3: limits.queue: the number -99999999999999999999 is too large; whole numbers have at most 64 bits\n\
             c.toml:2: limits.steps: the number 99999999999999999999 is too large; whole numbers have at most 64 bits"
        );
    }

    #[test]
    fn control_characters_of_a_key_reached_the_terminal() {
        let text = with_file("\"\\u001b[31m\" = 1").unwrap_err().to_string();
        assert!(
            text.starts_with("c.toml:1: \u{fffd}[31m: unknown field `\u{fffd}[31m`, expected one of"),
            "{text}"
        );
    }

    #[test]
    fn a_repeated_key_was_not_named() {
        for (text, expected) in [
            ("[mqtt]\nqos = 1\nqos = 2", "c.toml:3:1: the key qos occurs twice; remove one of them"),
            (
                "[mqtt]\nqos = 1\n[mqtt]",
                "c.toml:3:2: the table [mqtt] occurs twice; put all its keys below one header",
            ),
        ] {
            assert_eq!(with_file(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn whole_floats_are_integers() {
        let text = "[limits]\nsteps = 50.0\nqueue = 1e3\n[mqtt]\nqos = 2.0\nmax_packet = 1048576.0\n\
                    [engine]\nbatch = 4.0\ntensorrt = { min_batch = 2.0 }\n";
        let config = with_file(text).unwrap();
        assert_eq!((config.limits.steps.0, config.limits.queue.0), (50, 1000));
        assert_eq!((config.mqtt.max_packet.0, config.engine.batch), (1 << 20, BatchLimit::Fixed(Bounded(4))));
        assert_eq!(config.engine.tensorrt.min_batch.map(|batch| batch.0), Some(2));
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        let ConfigErrors(faults) = with_file("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!((faults[0].location.as_str(), faults.len()), ("c.toml:2:5", 1));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "node = \"file\"\n[limits]\nqueue = 5\n").unwrap();
        let variables = [("DENOISED_NODE", "007"), ("DENOISED_MODELS__PATHS", "a, b"), ("HOME", "/")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = load(Some(file.path()), variables).unwrap();
        assert_eq!(config.node.as_str(), "007");
        assert_eq!(config.limits.queue.0, 5);
        assert_eq!(config.models.paths, [PathBuf::from("a"), PathBuf::from("b")]);
    }

    #[test]
    fn a_missing_file_is_an_error_only_if_it_was_named() {
        let ConfigErrors(faults) = load(Some(Path::new("/nonexistent.toml")), []).unwrap_err();
        assert!(faults[0].message.starts_with("cannot read the file"), "{}", faults[0]);
    }
}
