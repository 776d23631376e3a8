//! Where models come from: the configuration, and directories that requests name. The only file system access of the
//! models beside loading them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bundle::model_name;
use crate::config::{Config, ModelEngineConfig};
use crate::inference::EngineOptions;
use crate::job::{ErrorCode, JobError};

/// The directory of a model, and what else decides how it is loaded.
#[derive(Debug, Clone)]
pub(super) struct ModelSource {
    pub(super) name: String,
    /// The directory without links. Where there is none, the path as it is written.
    pub(super) path: PathBuf,
    /// The overrides of `[engine]`.
    own: Option<ModelEngineConfig>,
    loras: Vec<PathBuf>,
    pub(super) options: EngineOptions,
}

impl PartialEq for ModelSource {
    /// Whether a model of one source is a model of the other. What `[engine]` has for all models changes at a restart only.
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.own == other.own && self.loras == other.loras
    }
}

/// Finds the sources of models by the configuration.
#[derive(Debug)]
pub(super) struct ModelSources(Config);

impl ModelSources {
    pub(super) fn new(config: &Config) -> Self {
        Self(config.clone())
    }

    /// Applies the settings that can change at run time.
    pub(super) fn reload(&mut self, config: &Config) {
        self.0.models = config.models.clone();
        self.0.limits = config.limits.clone();
    }

    /// How long a model stays in memory without jobs; `None` for ever.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.0.models.idle_limit()
    }

    /// The models of the configuration, in its order.
    pub(super) fn configured(&self) -> Vec<ModelSource> {
        self.0.models.paths.iter().map(|path| self.source(path)).collect()
    }

    /// The model in a directory that a request names. It must be in `models.paths` or in one of `models.directories`.
    pub(super) fn requested(&self, path: &Path) -> Result<ModelSource, JobError> {
        let models = &self.0.models;
        let shown = path.display();
        let is_below = |path: &Path| {
            models.directories.iter().any(|directory| is_below(path, directory))
                || models.paths.iter().any(|known| same_directory(known) == path || known == path)
        };
        let fault = match path.canonicalize() {
            Ok(real) if is_below(&real) && real.is_dir() => return Ok(self.source(path)),
            Ok(real) if is_below(&real) => "is no directory; name that of a model",
            // Others learn nothing about the files of this machine.
            Err(_) if is_below(path) => "does not exist; copy the model there first",
            _ => {
                "is in none of the directories that models.directories and models.paths allow; move the model, or \
                  extend the configuration"
            }
        };
        Err(JobError::of_field(ErrorCode::OutOfRange, "path", format!("path: {shown} {fault}")))
    }

    fn source(&self, path: &Path) -> ModelSource {
        ModelSource {
            name: model_name(path),
            own: self.0.engine_override(path).map(|(_, own)| own.clone()),
            loras: self.0.models.loras.clone(),
            options: self.0.engine_options(path),
            path: same_directory(path),
        }
    }
}

/// The directory without links.
fn same_directory(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether a path without `..` is below a directory.
fn is_below(path: &Path, directory: &Path) -> bool {
    let has_parents = path.components().any(|part| part == std::path::Component::ParentDir);
    !has_parents
        && [same_directory(directory), directory.to_owned()]
            .iter()
            .any(|directory| path.starts_with(directory) && path != directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_directory_that_the_configuration_allows() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["models/a", "other/b", "own/c"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::write(root.join("models/file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("other/b"), root.join("models/link")).unwrap();
        let mut config = Config::default();
        config.models.directories = vec![root.join("models")];
        config.models.paths = vec![root.join("own/c")];
        let sources = ModelSources::new(&config);
        let requested = |path: &str| sources.requested(&root.join(path));
        for (path, name) in [("models/a", "a"), ("own/c", "c"), ("models/../models/a", "a")] {
            let source = requested(path).unwrap();
            assert_eq!((source.name.as_str(), source.path), (name, root.join(path).canonicalize().unwrap()));
        }
        for (path, fault) in [
            ("models/file", "is no directory; name that of a model"),
            ("models/new", "does not exist; copy the model there first"),
            ("models", "is in none of the directories"),
            ("models/../new", "is in none of the directories"),
            ("models/link", "is in none of the directories"),
            ("other/b", "is in none of the directories"),
            ("other/new", "is in none of the directories"),
        ] {
            let error = requested(path).unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::OutOfRange, Some("path")));
            assert!(error.message.starts_with("path: ") && error.message.contains(fault), "{error}");
        }
    }

    #[test]
    fn a_source_changes_with_what_decides_how_the_model_is_loaded() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap();
        let sources = |text: &str| ModelSources::new(&config(text)).configured();
        let base = sources("[models]\npaths = [\"/m/a\"]");
        for (text, is_same) in [
            ("[models]\npaths = [\"/m/a\"]\nidle_unload_s = 5", true),
            ("[models]\npaths = [\"/n/a\"]", false),
            ("[models]\npaths = [\"/m/a\"]\nloras = [\"/l\"]", false),
            ("[models]\npaths = [\"/m/a\"]\n[models.engine.a]\nbatch = 2", false),
            ("[models]\npaths = [\"/m/a\"]\n[models.engine.b]\nbatch = 2", true),
        ] {
            assert_eq!(sources(text) == base, is_same, "{text}");
        }
    }
}
