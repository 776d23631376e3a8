//! Checks of the whole configuration: keys that contradict each other, and keys that have no effect.

use std::path::Path;

use super::layers::{ConfigFault, MERGED};
use super::{Config, ModelEngineConfig, MqttConfig};
use crate::bundle::model_name;
use crate::inference::{Cuda, EngineKind, EngineOptions, OpenVino, Policy, Provider, TensorRt};
use crate::mqtt::Topics;
use crate::topic_name::MAX_BYTES;

/// The largest and smallest useful sizes of an MQTT packet, in bytes. The largest is the protocol's.
const PACKET_BYTES: std::ops::RangeInclusive<u64> = 1024..=(256 << 20);
/// The smallest useful size of the spool, in bytes.
const MIN_SPOOL_BYTES: u64 = 64 << 10;

/// Returns the errors of a configuration whose values are all valid.
pub(super) fn faults(config: &Config) -> Vec<ConfigFault> {
    let max_packet = config.mqtt.max_packet;
    let mut faults = Vec::new();
    let mut add = |key: &str, message: String| {
        faults.push(ConfigFault { location: MERGED.to_owned(), key: key.to_owned(), message });
    };
    if let Some(fault) = config.mqtt.incomplete_pair() {
        add("", fault.to_owned());
    }
    if let Some((_, topic)) = config.mqtt.shared_queue.parts()
        && Topics::new(config.root()).is_own_topic(topic)
    {
        let message = format!(
            "{topic} is a topic of this daemon itself; name one that is outside {}, such as denoised/request",
            config.root()
        );
        add("mqtt.shared_queue", message);
    }
    // A password may end with a line break, which is not sent.
    let password_bytes = config.mqtt.password_file.as_ref().and_then(|path| path.metadata().ok());
    if let Some(file) = password_bytes.filter(|file| file.len() > MAX_BYTES as u64 + 2) {
        add("mqtt.password_file", format!("{} bytes are more than a password can have, 65,535", file.len()));
    }
    if !PACKET_BYTES.contains(&max_packet.0) {
        add("mqtt.max_packet", format!("{} bytes must lie between 1 KiB and 256 MiB", max_packet.0));
    }
    if config.spool.max_bytes.0 < MIN_SPOOL_BYTES {
        add("spool.max_bytes", format!("{} bytes must be at least 64 KiB", config.spool.max_bytes.0));
    }
    for path in &config.models.paths {
        let options = config.engine_options(path);
        if !runs_tensorrt(&options) {
            continue;
        }
        let TensorRt { min_batch, opt_batch, .. } = options.provider.tensorrt;
        if let Some(table) =
            options.provider.tensorrt.calibration_table.as_ref().filter(|table| !table.is_file())
        {
            let key = format!("{}.calibration_table", tensorrt_key(config, path));
            add(&key, format!("there is no file {}", table.display()));
        }
        let (batch, key) = (options.batch as u64, tensorrt_key(config, path));
        let (min, opt) = (min_batch.map_or(1, |n| n.0), opt_batch.map_or(batch, |n| n.0));
        if opt > batch {
            add(&format!("{key}.opt_batch"), format!("{opt} is more than the batch, {batch}"));
        } else if min > opt {
            let largest = if opt_batch.is_some() { "opt_batch" } else { "the batch" };
            add(&format!("{key}.min_batch"), format!("{min} is more than {largest}, {opt}"));
        }
    }
    faults.dedup();
    faults
}

/// Returns the key of an engine option of a model: that of its override if `is_own`, or else that of `[engine]`.
fn engine_key(
    config: &Config,
    path: &Path,
    option: &str,
    is_own: impl Fn(&ModelEngineConfig) -> bool,
) -> String {
    match config.engine_override(path) {
        Some((name, own)) if is_own(own) => format!("models.engine.{name}.{option}"),
        _ => format!("engine.{option}"),
    }
}

/// Returns the section that has the TensorRT options of a model.
fn tensorrt_key(config: &Config, path: &Path) -> String {
    engine_key(config, path, "tensorrt", |own| own.tensorrt.is_some())
}

impl Config {
    /// Returns what the configuration sets without effect on this machine, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.mqtt_warnings();
        warnings.extend(self.engine_warnings());
        for path in &self.models.paths {
            let options = self.engine_options(path);
            warnings.extend(self.provider_warnings(path, &options));
            if runs_tensorrt(&options) {
                let tensorrt = self.board.platform().tensorrt(self.onnxruntime_library());
                let found = tensorrt.warnings(&options.provider.tensorrt);
                warnings.extend(found.iter().map(|text| format!("{}.{text}", tensorrt_key(self, path))));
            }
        }
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

    /// Returns which overrides apply to no model.
    fn override_warnings(&self) -> Vec<String> {
        let models: Vec<_> = self.models.paths.iter().map(|path| (model_name(path), path)).collect();
        let applied = |path: &Path| self.engine_override(path).map(|(key, _)| key);
        let unused =
            self.models.engine.keys().filter(|key| models.iter().all(|(_, path)| applied(path) != Some(key)));
        let reason = |key: &String| match models.iter().find(|(name, _)| name == key) {
            // A link's name comes before that of its directory.
            Some((_, path)) => {
                format!("models.engine.{} applies to the same model", applied(path).unwrap_or(key))
            }
            None => {
                let names: Vec<_> = models.iter().map(|(name, _)| name.as_str()).collect();
                format!("models.paths has only {}", names.join(", "))
            }
        };
        unused.map(|key| format!("models.engine.{key} has no effect: {}", reason(key))).collect()
    }

    fn engine_warnings(&self) -> Vec<String> {
        let engine = &self.engine;
        let mut warnings = self.override_warnings();
        if engine.kind == EngineKind::Embedded && engine.policy == Policy::Required {
            warnings.push("engine.policy has no effect with kind = \"embedded\"".to_owned());
        }
        let options: Vec<_> = self.models.paths.iter().map(|path| self.engine_options(path)).collect();
        let is_used = |provider: Provider| {
            engine.interim_provider == Some(provider)
                || options.iter().any(|options| options.providers.contains(&provider))
        };
        let sections = [
            (Provider::TensorRt, engine.tensorrt != TensorRt::default()),
            (Provider::Cuda, engine.cuda != Cuda::default()),
            (Provider::OpenVino, engine.openvino != OpenVino::default()),
        ];
        let unused = sections.into_iter().filter(|(provider, is_set)| *is_set && !is_used(*provider));
        warnings.extend(unused.map(|(provider, _)| {
            format!("engine.{provider} has no effect, because engine.providers has no {provider}")
        }));
        let builds = |options: &EngineOptions| options.providers.first().is_some_and(|p| p.builds_engines());
        if engine.interim_provider.is_some() && !options.iter().any(builds) {
            warnings.push(
                "engine.interim_provider has no effect, because the first provider builds no engine"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What has no effect among the options of the model in a directory.
    fn provider_warnings(&self, path: &Path, options: &EngineOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        let after_cpu = options.providers.iter().skip_while(|provider| **provider != Provider::Cpu).skip(1);
        for provider in after_cpu {
            let key = engine_key(self, path, "providers", |own| own.providers.is_some());
            warnings.push(format!("{key}: {provider} after cpu is never used; move cpu to the end"));
        }
        let (tensorrt, key) = (&options.provider.tensorrt, tensorrt_key(self, path));
        if tensorrt.calibration_table.is_some() && !tensorrt.int8 {
            warnings.push(format!("{key}.calibration_table has no effect without int8 = true"));
        }
        if tensorrt.dla_core.is_some() && !tensorrt.fp16 && !tensorrt.int8 {
            warnings.push(format!(
                "{key}.dla_core has no effect without fp16 or int8, the only types that a DLA has"
            ));
        }
        warnings
    }
}

fn runs_tensorrt(options: &EngineOptions) -> bool {
    options.kind != EngineKind::Embedded && options.providers.contains(&Provider::TensorRt)
}
