//! Engine options that have no effect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::consistency::{engine_keys, tensorrt_keys};
use super::{Config, EngineConfig, ModelEngineConfig};
use crate::bundle::model_name;
use crate::inference::{EngineKind, EngineOptions, Policy, Provider, ProviderOptions};

/// Returns the providers whose options an override replaces.
fn own_sections(own: &ModelEngineConfig) -> Vec<Provider> {
    let sections = [
        (Provider::TensorRt, own.tensorrt.is_some()),
        (Provider::Cuda, own.cuda.is_some()),
        (Provider::OpenVino, own.openvino.is_some()),
    ];
    sections.into_iter().filter(|(_, is_set)| *is_set).map(|(provider, _)| provider).collect()
}

impl Config {
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

    /// Returns which engine options have no effect.
    pub(super) fn engine_warnings(&self) -> Vec<String> {
        let mut warnings = self.override_warnings();
        if self.engine.kind == EngineKind::Embedded {
            let keys = self.keys_of_onnx_runtime().into_iter();
            warnings.extend(keys.map(|key| format!("{key} has no effect with kind = \"embedded\"")));
            return warnings;
        }
        let engine = &self.engine;
        let sections = ProviderOptions {
            tensorrt: engine.tensorrt.clone(),
            cuda: engine.cuda.clone(),
            openvino: engine.openvino.clone(),
        };
        warnings
            .extend(sections.configured().into_iter().filter_map(|provider| self.unused_section(provider)));
        warnings.extend(self.models.paths.iter().flat_map(|path| self.unused_sections_of_override(path)));
        let builds = |path: &PathBuf| {
            self.engine_options(path).providers.first().is_some_and(|provider| provider.builds_engines())
        };
        let builds_none = !self.models.paths.iter().any(builds);
        if engine.interim_provider.is_some() && builds_none {
            warnings.push(
                "engine.interim_provider has no effect, because the first provider builds no engine"
                    .to_owned(),
            );
        }
        let builds_later = |path: &PathBuf| {
            self.engine_options(path).providers.iter().any(|provider| provider.builds_engines())
        };
        if engine.build_memory != EngineConfig::default().build_memory
            && !self.models.paths.iter().any(builds_later)
        {
            warnings
                .push("engine.build_memory has no effect, because no provider builds an engine".to_owned());
        }
        warnings
    }

    /// Returns the keys that are set and that the embedded engine does not have.
    fn keys_of_onnx_runtime(&self) -> Vec<String> {
        let (engine, default) = (&self.engine, EngineConfig::default());
        // The embedded engine runs on the CPU.
        let has_providers = engine.providers != default.providers && engine.providers != [Provider::Cpu];
        let mut keys: Vec<_> = [
            ("engine.library", self.onnxruntime_library().is_some()),
            ("engine.providers", has_providers),
            ("engine.policy", engine.policy == Policy::Required),
            ("engine.interim_provider", engine.interim_provider.is_some()),
            ("engine.rewrite", engine.rewrite != default.rewrite),
            ("engine.build_memory", engine.build_memory != default.build_memory),
            ("engine.tensorrt", engine.tensorrt != default.tensorrt),
            ("engine.cuda", engine.cuda != default.cuda),
            ("engine.openvino", engine.openvino != default.openvino),
        ]
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(key, _)| key.to_owned())
        .collect();
        for (name, own) in self.models.paths.iter().filter_map(|path| self.engine_override(path)) {
            let has_providers = own.providers.as_ref().is_some_and(|providers| *providers != [Provider::Cpu]);
            let own_keys = [("providers", has_providers), ("policy", own.policy == Some(Policy::Required))];
            let own_keys = own_keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key.to_owned());
            let sections = own_sections(own).into_iter().map(|provider| provider.to_string());
            keys.extend(own_keys.chain(sections).map(|key| format!("models.engine.{name}.{key}")));
        }
        keys
    }

    /// Returns the warning for a section of `[engine]` that no model uses.
    fn unused_section(&self, provider: Provider) -> Option<String> {
        let runs = |path: &&PathBuf| {
            self.engine.interim_provider == Some(provider)
                || self.engine_options(path).providers.contains(&provider)
        };
        let mut running = self.models.paths.iter().filter(runs).peekable();
        if running.peek().is_none() {
            let lists = self.provider_lists().join(" and ");
            return Some(format!("engine.{provider} has no effect, because {lists} has no {provider}"));
        }
        let own_section = |path: &PathBuf| {
            let (name, own) = self.engine_override(path)?;
            own_sections(own).contains(&provider).then(|| format!("models.engine.{name}.{provider}"))
        };
        let replacements: Option<BTreeSet<String>> = running.map(own_section).collect();
        replacements.map(|sections| {
            let verb = if sections.len() == 1 { "replaces" } else { "replace" };
            let sections: Vec<_> = sections.into_iter().collect();
            format!("engine.{provider} has no effect, because {} {verb} it", sections.join(" and "))
        })
    }

    /// Returns a warning for each section of a model's override whose provider the model does not use.
    fn unused_sections_of_override(&self, path: &Path) -> Vec<String> {
        let Some((name, own)) = self.engine_override(path) else { return Vec::new() };
        let options = self.engine_options(path);
        let list = engine_keys(self, path, "providers", |own| own.providers.is_some()).join(".");
        let is_unused = |provider: &Provider| {
            !options.providers.contains(provider) && self.engine.interim_provider != Some(*provider)
        };
        let unused = own_sections(own).into_iter().filter(is_unused);
        unused
            .map(|provider| {
                format!("models.engine.{name}.{provider} has no effect, because {list} has no {provider}")
            })
            .collect()
    }

    /// Returns the keys of the lists of providers that the models use.
    fn provider_lists(&self) -> Vec<String> {
        let key = |path: &PathBuf| engine_keys(self, path, "providers", |own| own.providers.is_some());
        let mut lists: Vec<_> = self.models.paths.iter().map(|path| key(path).join(".")).collect();
        lists.sort();
        lists.dedup();
        lists
    }

    /// What has no effect among the options of the model in a directory.
    pub(super) fn provider_warnings(&self, path: &Path, options: &EngineOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        if options.kind == EngineKind::Embedded {
            return warnings;
        }
        let after_cpu = options.providers.iter().skip_while(|provider| **provider != Provider::Cpu).skip(1);
        for provider in after_cpu {
            let key = engine_keys(self, path, "providers", |own| own.providers.is_some()).join(".");
            warnings.push(format!("{key}: {provider} after cpu is never used; move cpu to the end"));
        }
        let (tensorrt, key) = (&options.provider.tensorrt, tensorrt_keys(self, path).join("."));
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
