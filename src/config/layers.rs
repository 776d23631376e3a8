//! The layers of a configuration, each checked for itself so that every fault has its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_path_to_error::{Path as KeyPath, Segment};
use toml::{Table, Value};

use super::Config;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/denoised/config.toml";

const PREFIX: &str = "DENOISED_";

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `FILE:LINE`, or the environment variable.
    pub place: String,
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.message),
            key => write!(f, "{}: {key}: {}", self.place, self.message),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<Fault>);

/// Defaults, then the file, then variables named `DENOISED_SECTION__KEY`.
///
/// Without a `file` the one at [`DEFAULT_FILE`] counts, if it is there. All faults of all layers
/// are told at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut faults = Vec::new();
    let mut layers = config::Config::builder();
    if let Some((path, text)) = read(file, &mut faults) {
        let table = check_file(&path, &text, &mut faults);
        layers = layers.add_source(source(&table));
    }
    for (name, raw) in relevant(environment) {
        match check_variable(&name, &raw) {
            Ok(table) => layers = layers.add_source(source(&table)),
            Err(fault) => faults.push(fault),
        }
    }
    let merged = layers.build().and_then(config::Config::try_deserialize::<Config>);
    match merged {
        Ok(config) if faults.is_empty() => Ok(config),
        Err(error) if faults.is_empty() => Err(ConfigErrors(vec![Fault {
            place: "configuration".to_owned(),
            key: String::new(),
            message: error.to_string(),
        }])),
        _ => Err(ConfigErrors(faults)),
    }
}

fn source(table: &Table) -> config::File<config::FileSourceString, config::FileFormat> {
    config::File::from_str(&table.to_string(), config::FileFormat::Toml)
}

fn read(file: Option<&Path>, faults: &mut Vec<Fault>) -> Option<(PathBuf, String)> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Some((path.to_owned(), text)),
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            faults.push(Fault {
                place: path.display().to_string(),
                key: String::new(),
                message: format!("can't be read: {error}"),
            });
            None
        }
    }
}

/// Collect all faults of a file; what is left of it without them is returned.
fn check_file(path: &Path, text: &str, faults: &mut Vec<Fault>) -> Table {
    let place = |line: usize| format!("{}:{line}", path.display());
    let mut table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let error: toml::de::Error = error;
            faults.push(Fault {
                place: place(line_of(text, error.span().map_or(0, |span| span.start))),
                key: String::new(),
                message: error.message().to_owned(),
            });
            return Table::new();
        }
    };
    while let Err(error) = deserialize(&table) {
        let keys = keys(error.path());
        faults.push(Fault {
            place: place(find_line(text, &keys)),
            key: error.path().to_string(),
            message: error.inner().message().to_owned(),
        });
        if !remove(&mut table, &keys) {
            break;
        }
    }
    table
}

fn deserialize(table: &Table) -> Result<Config, serde_path_to_error::Error<toml::de::Error>> {
    serde_path_to_error::deserialize(table.clone())
}

/// The map keys that lead to a fault; what lies inside a list counts as the list's.
fn keys(path: &KeyPath) -> Vec<String> {
    path.iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        })
        .collect()
}

fn remove(table: &mut Table, keys: &[String]) -> bool {
    match keys {
        [] => false,
        [last] => table.remove(last).is_some(),
        [first, rest @ ..] => match table.get_mut(first) {
            Some(Value::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// The line, counted from 1, of the key; of the nearest key above it if it can't be found.
fn find_line(text: &str, keys: &[String]) -> usize {
    let Ok(document) = toml::de::DeTable::parse(text) else {
        return 1;
    };
    let mut table = document.get_ref();
    let mut offset = 0;
    for key in keys {
        let Some((found, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        offset = found.span().start;
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    line_of(text, offset)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The variables that are meant for us, in a fixed order.
fn relevant(environment: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// A variable as a table with one key: a text where the key takes one, else a TOML value, else
/// a list of texts separated by commas.
fn check_variable(name: &str, raw: &str) -> Result<Table, Fault> {
    let keys: Vec<String> =
        name[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
    let literal = format!("value = {raw}").parse::<Table>().ok();
    let list = raw.split(',').map(|part| Value::String(part.trim().to_owned()));
    let candidates = [
        Some(Value::String(raw.to_owned())),
        literal.and_then(|mut table| table.remove("value")),
        Some(Value::Array(list.collect())),
    ];
    let mut complaints = Vec::new();
    for value in candidates.into_iter().flatten() {
        let table = nest(&keys, value);
        match deserialize(&table) {
            Ok(_) => return Ok(table),
            Err(error) => complaints.push(error.inner().message().to_owned()),
        }
    }
    // One about the type says only that this reading was not meant.
    let fitting = complaints.iter().find(|complaint| !complaint.starts_with("invalid type"));
    let message = fitting.or(complaints.first()).cloned().unwrap_or_default();
    Err(Fault { place: name.to_owned(), key: keys.join("."), message })
}

fn nest(keys: &[String], value: Value) -> Table {
    let (first, rest) = match keys {
        [] => return Table::new(),
        [first, rest @ ..] => (first, rest),
    };
    let inner = if rest.is_empty() { value } else { Value::Table(nest(rest, value)) };
    Table::from_iter([(first.clone(), inner)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, ConfigErrors> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path), []).map_err(|ConfigErrors(mut faults)| {
            for fault in &mut faults {
                fault.place = fault.place.replace(&path.display().to_string(), "c.toml");
            }
            ConfigErrors(faults)
        })
    }

    fn variable(name: &str, value: &str) -> Result<Config, ConfigErrors> {
        let empty = tempfile::NamedTempFile::new().unwrap();
        load(Some(empty.path()), [(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(with_file("").unwrap(), Config::default());
    }

    #[test]
    fn the_example_holds_every_key_with_its_default() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/config.toml");
        assert_eq!(load(Some(&example), []).unwrap(), Config::default());
        let text = std::fs::read_to_string(example).unwrap();
        let faulty = with_file(
            "x = 1\n[mqtt]\nx = 1\n[models]\nx = 1\n[engine]\nx = 1\n[spool]\nx = 1\n[limits]\nx = 1\n[log]\nx = 1\n[board]\nx = 1\n[engine.tensorrt]\nx = 1\n[engine.cuda]\nx = 1\n[engine.openvino]\nx = 1\n",
        );
        let ConfigErrors(faults) = faulty.unwrap_err();
        assert_eq!(faults.len(), 11);
        // What an unknown key is told are all keys of its section.
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
    fn all_faults_are_told_with_line_and_key() {
        let text = "node = \"a b\"\n\n[mqtt]\nurll = \"x\"\nqos = 7\n[limits]\nsteps = 0\n\
                    [engine]\nproviders = [\"cpu\", \"tpu\"]\n[nonsense]\n";
        let ConfigErrors(faults) = with_file(text).unwrap_err();
        let mut told: Vec<_> = faults.iter().map(|f| (f.place.as_str(), f.key.as_str())).collect();
        told.sort_unstable();
        let expected = [
            ("c.toml:1", "node"),
            ("c.toml:10", "nonsense"),
            ("c.toml:4", "mqtt.urll"),
            ("c.toml:5", "mqtt.qos"),
            ("c.toml:7", "limits.steps"),
            ("c.toml:9", "engine.providers[1]"),
        ];
        assert_eq!(told, expected);
        let text = ConfigErrors(faults).to_string();
        assert!(text.contains("unknown field `urll`, expected one of `url`"), "{text}");
        assert!(text.contains("0 must lie between 1 and 100000"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let ConfigErrors(faults) = with_file("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!((faults[0].place.as_str(), faults.len()), ("c.toml:2", 1));
    }

    #[test]
    fn the_environment_counts_before_the_file() {
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
    fn variables_have_the_types_of_their_keys() {
        assert_eq!(variable("DENOISED_LIMITS__STEPS", "7").unwrap().limits.steps.0, 7);
        let config = variable("DENOISED_MQTT__MAX_PACKET", "1 MiB").unwrap();
        assert_eq!(config.mqtt.max_packet.0, 1 << 20);
        let ConfigErrors(faults) = variable("DENOISED_MQTT__QOS", "3").unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "DENOISED_MQTT__QOS: mqtt.qos: invalid value: integer `3`, expected 1 or 2"
        );
        let ConfigErrors(faults) = variable("DENOISED_ENGINE__CUDA__CUDA_GRAPH", "yes").unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "DENOISED_ENGINE__CUDA__CUDA_GRAPH: engine.cuda.cuda_graph: invalid type: string \"yes\", expected a \
             boolean"
        );
        let ConfigErrors(faults) = variable("DENOISED_ENGINE__PROVIDERS", "cpu, tpu").unwrap_err();
        assert!(faults[0].message.contains("`tpu`"), "{}", faults[0]);
        let ConfigErrors(faults) = variable("DENOISED_LIMIT__STEPS", "7").unwrap_err();
        assert!(faults[0].message.contains("unknown field `limit`"), "{}", faults[0]);
    }

    #[test]
    fn a_missing_file_is_an_error_only_where_it_was_named() {
        let ConfigErrors(faults) = load(Some(Path::new("/nonexistent.toml")), []).unwrap_err();
        assert!(faults[0].message.starts_with("can't be read"), "{}", faults[0]);
    }
}
