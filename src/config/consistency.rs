//! Checks of the whole configuration: keys that contradict each other, and keys that have no effect.

use std::path::Path;

use super::{
    ByteSize, Config, DiscoveryForm, DiscoveryPrefix, HomeAssistantConfig, MemoryLimit, ModelEngineConfig,
    MqttConfig,
};
use crate::inference::{EngineKind, EngineOptions, Provider, TensorRt};
use crate::mqtt::Topics;
use crate::topic_name::MAX_BYTES;
use crate::units::binary_size;

/// The largest and smallest useful sizes of an MQTT packet, in bytes. The largest is the protocol's.
const PACKET_BYTES: std::ops::RangeInclusive<u64> = 1024..=(256 << 20);
/// The smallest useful size of the spool, in bytes.
const MIN_SPOOL_BYTES: u64 = 64 << 10;
/// The smallest useful memory of sessions, in bytes. An open graph takes twice the size of its file, and more.
const MIN_SESSION_BYTES: u64 = 64 << 10;
/// Topics for a shared queue, of which one is outside the topics of any daemon.
const QUEUE_EXAMPLES: [&str; 2] = ["denoised/request", "jobs/request"];

/// Keys that contradict each other, or a value that is out of bounds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inconsistency {
    /// The keys of the value at fault, and then those of the values that it depends on.
    pub(super) keys: Vec<Vec<String>>,
    pub(super) message: String,
}

impl Inconsistency {
    /// An inconsistency of a key with others that it depends on.
    fn new(key: &str, others: &[&str], message: String) -> Self {
        let keys = std::iter::once(&key).chain(others).map(|key| parts(key)).collect();
        Self { keys, message }
    }
}

fn parts(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// Returns the errors of a configuration whose values are all valid.
pub(super) fn faults(config: &Config) -> Vec<Inconsistency> {
    let mut faults = Vec::new();
    if let Some([key, other]) = config.mqtt.incomplete_pair() {
        faults.push(Inconsistency::new(key, &[other], format!("requires {other}; set both or neither")));
    }
    faults.extend(shared_queue_fault(config));
    faults.extend(discovery_prefix_fault(config));
    if let (Some(address), None) = (config.http.listen.remote(), &config.http.token_file) {
        let message = format!(
            "{address} can be reached from other machines, so it requires http.token_file; set it, or listen on 127.0.0.1"
        );
        faults.push(Inconsistency::new("http.listen", &["http.token_file"], message));
    }
    // A password may end with a line break, which is not sent.
    let password_bytes = config.mqtt.password_file.as_ref().and_then(|path| path.metadata().ok());
    if let Some(file) = password_bytes.filter(|file| file.len() > MAX_BYTES as u64 + 2) {
        let message = format!("{} bytes are more than a password can have, 65,535", file.len());
        faults.push(Inconsistency::new("mqtt.password_file", &[], message));
    }
    let (max_packet, max_spool) = (config.mqtt.max_packet.0, config.spool.max_bytes.0);
    if !PACKET_BYTES.contains(&max_packet) {
        let message = format!("{max_packet} bytes must lie between 1 KiB and 256 MiB");
        faults.push(Inconsistency::new("mqtt.max_packet", &[], message));
    }
    if max_spool < MIN_SPOOL_BYTES {
        let message = format!("{max_spool} bytes must be at least 64 KiB");
        faults.push(Inconsistency::new("spool.max_bytes", &[], message));
    }
    if let MemoryLimit::Bytes(ByteSize(limit)) = config.engine.memory
        && limit < MIN_SESSION_BYTES
    {
        let message = format!(
            "{} is too small for any model; set a size such as \"4 GiB\", \"auto\" for a share of the free memory, or \
             \"none\" for no limit",
            binary_size(limit)
        );
        faults.push(Inconsistency::new("engine.memory", &[], message));
    }
    faults.extend(config.models.paths.iter().flat_map(|path| tensorrt_faults(config, path)));
    // Models without overrides share their faults.
    let mut unique: Vec<Inconsistency> = Vec::new();
    for fault in faults {
        if !unique.contains(&fault) {
            unique.push(fault);
        }
    }
    unique
}

/// A queue that is one of the daemon's own topics.
fn shared_queue_fault(config: &Config) -> Option<Inconsistency> {
    let (_, topic) = config.mqtt.shared_queue.parts()?;
    let topics = Topics::new(config.root());
    if !topics.is_own_topic(topic) {
        return None;
    }
    let example = QUEUE_EXAMPLES.iter().find(|example| !topics.is_own_topic(example)).unwrap_or(&"jobs");
    let message = format!(
        "{topic} is a topic of this daemon itself; name one that is not, such as $share/denoised/{example}"
    );
    Some(Inconsistency::new("mqtt.shared_queue", &["mqtt.root", "node"], message))
}

/// A prefix below which the daemon has topics of its own.
fn discovery_prefix_fault(config: &Config) -> Option<Inconsistency> {
    let home_assistant = &config.home_assistant;
    let prefix = home_assistant.prefix.as_str();
    let topics = Topics::new(config.root()).with_home_assistant(Some(prefix));
    let is_own = topics.home_assistant_status().is_some_and(|status| topics.is_own_topic(&status));
    if !home_assistant.enabled || !is_own {
        return None;
    }
    let message = format!(
        "{prefix}/status is a topic of this daemon itself; set the discovery prefix of Home Assistant, whose default is \
         homeassistant"
    );
    Some(Inconsistency::new("home_assistant.prefix", &["mqtt.root", "node"], message))
}

/// Wrong options of TensorRT for the model in a directory.
fn tensorrt_faults(config: &Config, path: &Path) -> Vec<Inconsistency> {
    let options = config.engine_options(path);
    if !runs_tensorrt(&options) {
        return Vec::new();
    }
    let section = tensorrt_keys(config, path);
    let batch_keys = engine_keys(config, path, "batch", |own| own.batch.is_some());
    let key = |name: &str| [&section[..], &[name.to_owned()]].concat();
    let mut faults = Vec::new();
    let TensorRt { min_batch, opt_batch, calibration_table, .. } = &options.provider.tensorrt;
    if let Some(table) = calibration_table.as_ref().filter(|table| !table.is_file()) {
        let message = format!("there is no file {}", table.display());
        faults.push(Inconsistency { keys: vec![key("calibration_table")], message });
    }
    let batch = options.batch as u64;
    let (min, opt) = (min_batch.as_ref().map_or(1, |n| n.0), opt_batch.as_ref().map_or(batch, |n| n.0));
    if opt > batch {
        let message = format!("{opt} is more than the batch, {batch}");
        faults.push(Inconsistency { keys: vec![key("opt_batch"), batch_keys], message });
    } else if min > opt {
        let largest = if opt_batch.is_some() { "opt_batch" } else { "the batch" };
        let message = format!("{min} is more than {largest}, {opt}");
        faults.push(Inconsistency { keys: vec![key("min_batch"), key("opt_batch"), batch_keys], message });
    }
    faults
}

/// Returns the key of an engine option of a model: that of its override if `is_own`, or else that of `[engine]`.
pub(super) fn engine_keys(
    config: &Config,
    path: &Path,
    option: &str,
    is_own: impl Fn(&ModelEngineConfig) -> bool,
) -> Vec<String> {
    let keys = match config.engine_override(path) {
        Some((name, own)) if is_own(own) => vec!["models", "engine", name, option],
        _ => vec!["engine", option],
    };
    keys.into_iter().map(str::to_owned).collect()
}

/// Returns the section that has the TensorRT options of a model.
pub(super) fn tensorrt_keys(config: &Config, path: &Path) -> Vec<String> {
    engine_keys(config, path, "tensorrt", |own| own.tensorrt.is_some())
}

impl Config {
    /// Returns what the configuration sets without effect on this machine, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.mqtt_warnings();
        if self.http.listen.address().is_none() && self.http.token_file.is_some() {
            warnings.push("http.token_file has no effect, because http.listen is not set".to_owned());
        }
        let HomeAssistantConfig { enabled, prefix, discovery } = &self.home_assistant;
        let unused = [
            (*prefix != DiscoveryPrefix::default(), "prefix"),
            (*discovery != DiscoveryForm::default(), "discovery"),
        ];
        warnings.extend(unused.iter().filter(|(is_set, _)| *is_set && !enabled).map(|(_, key)| {
            format!("home_assistant.{key} has no effect, because home_assistant.enabled is false")
        }));
        warnings.extend(self.engine_warnings());
        for path in &self.models.paths {
            let options = self.engine_options(path);
            warnings.extend(self.provider_warnings(path, &options));
            if runs_tensorrt(&options) {
                let tensorrt = self.board.platform().tensorrt(self.onnxruntime_library());
                let found = tensorrt.warnings(&options.provider.tensorrt);
                warnings.extend(
                    found.iter().map(|text| format!("{}.{text}", tensorrt_keys(self, path).join("."))),
                );
            }
        }
        let missing = self.models.directories.iter().filter(|directory| !directory.is_dir());
        warnings.extend(missing.map(|directory| {
            format!(
                "models.directories: {} is not a directory; name one that has the directories of models",
                directory.display()
            )
        }));
        let missing = self.models.loras.iter().filter(|directory| !directory.is_dir());
        warnings.extend(missing.map(|directory| {
            format!(
                "models.loras: {} is not a directory; name one that has .safetensors files",
                directory.display()
            )
        }));
        let mut seen = std::collections::BTreeSet::new();
        warnings.retain(|warning| seen.insert(warning.clone()));
        warnings
    }

    /// Returns the configured ONNX Runtime library.
    pub(crate) fn onnxruntime_library(&self) -> Option<&Path> {
        Some(self.engine.library.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    fn mqtt_warnings(&self) -> Vec<String> {
        let MqttConfig { url, ca_file, cert_file, max_packet, .. } = &self.mqtt;
        let without_tls = |is_set: bool, key: &str| {
            (is_set && !url.tls)
                .then(|| format!("mqtt.{key} has no effect, because mqtt.url is not mqtts://"))
        };
        let warnings = [
            without_tls(ca_file.is_some(), "ca_file"),
            without_tls(cert_file.is_some(), "cert_file"),
            (self.limits.payload.0 > max_packet.0).then(|| {
                "limits.payload is more than mqtt.max_packet, so that the largest requests never arrive"
                    .to_owned()
            }),
        ];
        warnings.into_iter().flatten().collect()
    }
}

fn runs_tensorrt(options: &EngineOptions) -> bool {
    options.kind != EngineKind::Embedded && options.providers.contains(&Provider::TensorRt)
}
