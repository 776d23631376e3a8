//! The environment variables of the configuration, `DENOISED_SECTION__KEY`, apart from those that others set.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Config;
use super::known_keys::{Meant, meant_by};
use super::layers::{ConfigFault, deserialize, whole_floats_to_integers};
use crate::serde_message::{DocumentFormat, without_rust_types};
use crate::toml_document::{array_for_section, keys_of_section, nest};

const PREFIX: &str = "DENOISED_";

/// Variables of this project's tests and scripts, without the prefix. A trailing `_` matches any ending.
const OWN: [&str; 4] = ["PROGRAM", "SAMPLER_CASES", "TEST_", "BENCH_"];

/// The replacement of text that is not UTF-8.
const NOT_UTF8: char = char::REPLACEMENT_CHARACTER;

/// The variables that begin with `DENOISED_`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    /// The configuration: names and values, sorted by name.
    pub(super) configuring: BTreeMap<String, String>,
    /// The names of variables that others set for another purpose.
    pub(super) foreign: Vec<String>,
}

impl Variables {
    pub(super) fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables = Self::default();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if is_foreign(rest, &value) || is_foreign_word(rest) {
                variables.foreign.push(name);
            } else {
                variables.configuring.insert(name, value);
            }
        }
        variables.foreign.sort();
        variables
    }
}

/// Returns the environment variables of this process. What is not UTF-8 is replaced, and an error if it is a value of
/// the configuration.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Whether a variable, without its prefix, has a shape that Kubernetes or Docker gives to the addresses of a service
/// whose name begins with `denoised`, or belongs to this project's tests.
fn is_foreign(name: &str, value: &str) -> bool {
    let is_own = |own: &&str| name == *own || (own.ends_with('_') && name.starts_with(*own));
    let words: Vec<&str> = name.split('_').collect();
    // A key has two underscores between its section and its name, and so an empty word.
    let last_start = words.iter().position(|word| word.is_empty()).unwrap_or(words.len() - 1);
    OWN.iter().any(is_own) || (0..=last_start).any(|start| is_service_link(&words[start..], value))
}

/// Whether a variable, without its prefix, is a single word that matches no key. Wrapper programs set such variables: `DENOISED_HOME`, `DENOISED_VERSION`, `DENOISED_PID`.
fn is_foreign_word(name: &str) -> bool {
    let is_word = !name.is_empty() && !name.contains('_');
    is_word && meant_by(&[name.to_ascii_lowercase()]) == Some(Meant::Nothing)
}

/// Whether the words after the service's name are those of a link to the service.
fn is_service_link(words: &[&str], value: &str) -> bool {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    match words {
        // tcp://10.0.0.1:1883; a plain number would be somebody's attempt to set the broker's port.
        ["PORT"] => ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)),
        ["PORT", number, "TCP" | "UDP" | "SCTP", ..] => is_number(number),
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        // /container/alias
        ["NAME"] => value.starts_with('/'),
        ["ENV", name, ..] => !name.is_empty(),
        _ => false,
    }
}

fn is_huge_integer(raw: &str) -> bool {
    let digits = raw.trim().trim_start_matches(['+', '-']);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && raw.trim().parse::<i64>().is_err()
}

/// Parses a variable into a table with one key: as a string if the key takes one, else as a TOML value, else as a
/// comma-separated list of strings.
pub(super) fn check_variable(name: &str, raw: &str) -> Result<Table, ConfigFault> {
    let keys: Vec<String> =
        name[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
    let fault = |message: String| ConfigFault { location: name.to_owned(), key: keys.join("."), message };
    if raw.contains(NOT_UTF8) {
        return Err(fault("the value is not valid UTF-8".to_owned()));
    }
    let variable = |key: &[String]| format!("{PREFIX}{}", key.join("__").to_ascii_uppercase());
    if let Some(meant) = meant_by(&keys) {
        let advice = match meant {
            Meant::Key(key) => format!("the nearest one is {}", variable(&key)),
            Meant::Section(keys) => {
                let names: Vec<_> = keys.iter().map(|key| variable(key)).collect();
                format!("its section has {}", names.join(", "))
            }
            Meant::Nothing => "a variable of the configuration is named DENOISED_SECTION__KEY".to_owned(),
        };
        return Err(fault(format!("there is no such key; {advice}")));
    }
    let literal = format!("value = {raw}").parse::<Table>().ok().and_then(|mut table| {
        whole_floats_to_integers(&mut table);
        table.remove("value")
    });
    let parts = raw.split(',').filter(|_| !raw.trim().is_empty());
    let list = parts.map(|part| Value::String(part.trim().to_owned())).collect();
    let candidates = [Some(Value::String(raw.to_owned())), literal, Some(Value::Array(list))];
    let mut complaints = Vec::new();
    for value in candidates.into_iter().flatten() {
        let table = nest(&keys, value);
        if array_for_section::<Config>(&table).is_some() {
            continue;
        }
        match deserialize(&table) {
            Ok(_) => return Ok(table),
            Err(error) => complaints.push(error.inner().message().to_owned()),
        }
    }
    if let Some(names) = keys_of_section::<Config>(&keys) {
        let example = names.first().map(|name| variable(&[&keys[..], std::slice::from_ref(name)].concat()));
        return Err(fault(format!(
            "is a section; set a variable for each key, such as {}",
            example.unwrap_or_default()
        )));
    }
    if is_huge_integer(raw) {
        return Err(fault(format!("the number {raw} is too large; whole numbers have at most 64 bits")));
    }
    // A wrong type only means that the value should be parsed differently.
    let fitting = complaints.iter().find(|complaint| !complaint.starts_with("invalid type"));
    let message = fitting
        .or(complaints.first())
        .map_or_else(String::new, |message| without_rust_types(message, DocumentFormat::Toml));
    Err(fault(message))
}

#[cfg(test)]
mod tests {
    use super::super::layers::ConfigErrors;
    use super::super::{BatchLimit, Bounded, Config, load};

    fn variable(name: &str, value: &str) -> Result<Config, ConfigErrors> {
        let empty = tempfile::NamedTempFile::new().unwrap();
        load(Some(empty.path()), [(name.to_owned(), value.to_owned())])
    }

    fn message(name: &str, value: &str) -> String {
        variable(name, value).unwrap_err().to_string()
    }

    #[test]
    fn variables_have_the_types_of_their_keys() {
        assert_eq!(variable("DENOISED_LIMITS__STEPS", "7").unwrap().limits.steps.0, 7);
        assert_eq!(variable("DENOISED_LIMITS__STEPS", "7.0").unwrap().limits.steps.0, 7);
        let config = variable("DENOISED_MQTT__MAX_PACKET", "1 MiB").unwrap();
        assert_eq!(config.mqtt.max_packet.0, 1 << 20);
        assert_eq!(
            message("DENOISED_MQTT__QOS", "3"),
            "DENOISED_MQTT__QOS: mqtt.qos: invalid value: integer `3`, expected 1 or 2"
        );
        assert_eq!(
            message("DENOISED_ENGINE__CUDA__CUDA_GRAPH", "yes"),
            "DENOISED_ENGINE__CUDA__CUDA_GRAPH: engine.cuda.cuda_graph: invalid value: string \"yes\", expected \
             \"auto\", true or false"
        );
        assert_eq!(
            message("DENOISED_LIMITS__STEPS", "many"),
            "DENOISED_LIMITS__STEPS: limits.steps: invalid type: string \"many\", expected a whole number"
        );
        assert!(message("DENOISED_ENGINE__PROVIDERS", "cpu, tpu").contains("`tpu`"));
        assert_eq!(
            message("DENOISED_MODELS__PATHS", ""),
            "DENOISED_MODELS__PATHS: models.paths: the list is empty; name at least one model's directory"
        );
        assert_eq!(
            message("DENOISED_NODE", "k\u{fffd}che"),
            "DENOISED_NODE: node: the value is not valid UTF-8"
        );
        let config = variable("DENOISED_MODELS__ENGINE__DIGITS__BATCH", "4").unwrap();
        assert_eq!(config.models.engine["digits"].batch, Some(BatchLimit::Fixed(Bounded(4))));
    }

    #[test]
    fn an_unknown_variable_names_the_nearest_key() {
        for (name, nearest) in [
            ("LIMIT__STEPS", "LIMITS__STEPS"),
            ("MQTT_URL", "MQTT__URL"),
            ("URL", "MQTT__URL"),
            ("MODEL_PATHS", "MODELS__PATHS"),
            ("NODE__NAME", "NODE"),
            ("PROVIDERS", "ENGINE__PROVIDERS"),
            ("ENGINE__TENSORRT__FP8", "ENGINE__TENSORRT__FP16"),
            ("NAME", "NODE"),
        ] {
            let name = format!("DENOISED_{name}");
            let message = message(&name, "1883");
            let expected = format!("there is no such key; the nearest one is DENOISED_{nearest}");
            assert!(message.starts_with(&format!("{name}: ")) && message.ends_with(&expected), "{message}");
        }
    }

    #[test]
    fn a_variable_far_from_every_key_had_a_senseless_suggestion() {
        assert_eq!(
            message("DENOISED_SPOOL_DIR", "/x"),
            "DENOISED_SPOOL_DIR: spool_dir: there is no such key; its section has DENOISED_SPOOL__KEEP_S, \
             DENOISED_SPOOL__MAX_BYTES, DENOISED_SPOOL__PATH"
        );
        assert_eq!(
            message("DENOISED_DATA_DIR", "/x"),
            "DENOISED_DATA_DIR: data_dir: there is no such key; a variable of the configuration is named \
             DENOISED_SECTION__KEY"
        );
    }

    /// A wrapper's own variables stopped the daemon, with the advice to use a key that has nothing to do with them.
    #[test]
    fn a_wrappers_own_variables_stopped_the_daemon() {
        for name in ["HOME", "VERSION", "PID", "MAINPID", "INSTANCE", "CONFIG"] {
            let name = format!("DENOISED_{name}");
            assert_eq!(variable(&name, "1").unwrap().ignored_variables, [name]);
        }
        assert_eq!(
            message("DENOISED_LOG", "debug"),
            "DENOISED_LOG: log: is a section; set a variable for each key, such as DENOISED_LOG__LEVEL"
        );
    }

    #[test]
    fn a_list_was_taken_for_a_section() {
        for value in ["mqtt://h:1", "[\"mqtt://h:1\"]", "3", "{ urll = 1 }"] {
            assert_eq!(
                message("DENOISED_MQTT", value),
                "DENOISED_MQTT: mqtt: is a section; set a variable for each key, such as DENOISED_MQTT__URL"
            );
        }
        assert_eq!(variable("DENOISED_MQTT", "{ url = \"mqtt://h:1\" }").unwrap().mqtt.url.host, "h");
        assert_eq!(
            message("DENOISED_LIMITS__STEPS", "99999999999999999999"),
            "DENOISED_LIMITS__STEPS: limits.steps: the number 99999999999999999999 is too large; whole numbers have at \
             most 64 bits"
        );
    }

    /// Kubernetes and Docker put the addresses of a service named `denoised` into every container beside it, and the
    /// daemon did not start.
    #[test]
    fn the_variables_that_service_managers_set_stopped_the_daemon() {
        let foreign = [
            ("DENOISED_PORT", "tcp://10.0.0.1:1883"),
            ("DENOISED_SERVICE_HOST", "10.0.0.1"),
            ("DENOISED_SERVICE_PORT", "1883"),
            ("DENOISED_SERVICE_PORT_MQTT_TLS", "8883"),
            ("DENOISED_PORT_1883_TCP", "tcp://10.0.0.1:1883"),
            ("DENOISED_PORT_1883_TCP_ADDR", "10.0.0.1"),
            ("DENOISED_PORT_1883_TCP_PORT", "1883"),
            ("DENOISED_PORT_1883_TCP_PROTO", "tcp"),
            ("DENOISED_PORT_5353_UDP_ADDR", "10.0.0.1"),
            // A service named denoised-broker.
            ("DENOISED_BROKER_SERVICE_HOST", "10.0.0.2"),
            ("DENOISED_BROKER_PORT", "tcp://10.0.0.2:1883"),
            ("DENOISED_BROKER_PORT_1883_TCP_ADDR", "10.0.0.2"),
            ("DENOISED_NAME", "/web/denoised"),
            ("DENOISED_ENV_PATH", "/usr/bin"),
            ("DENOISED_ENV_LD__PRELOAD", ""),
            ("DENOISED_PROGRAM", "target/debug/denoised"),
            ("DENOISED_TEST_OPENVINO", "/lib/libonnxruntime.so"),
            ("DENOISED_BENCH_PYTHON", "python3"),
            ("DENOISED_TESTS", "1"),
        ];
        for (name, value) in foreign {
            let config = variable(name, value).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.ignored_variables, [name]);
            assert_eq!(Config { ignored_variables: Vec::new(), ..config }, Config::default());
        }
        // Those of a configuration with a wrong value or a wrong key are errors.
        for (name, value) in [
            ("DENOISED_PORT", "1883"),
            ("DENOISED_MQTT_PORT", "1883"),
            ("DENOISED_MQTT__PORT", "tcp://10.0.0.1:1883"),
            ("DENOISED_NAME", "kitchen"),
            ("DENOISED_MQTT__NAME", "/kitchen"),
            ("DENOISED_PORT_MQTT_TCP", "1883"),
            ("DENOISED_ENV_", "1"),
        ] {
            assert!(variable(name, value).is_err(), "{name}");
        }
    }
}
