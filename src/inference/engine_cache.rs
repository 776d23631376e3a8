//! Where a provider keeps the engine that it built from a graph, so that the next start has it.
//!
//! The directory's name holds a digest of everything that the engine depends on. What was built for
//! something else is told, and makes way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::inference::provider::Provider;

/// What an engine depends on, by name: the graph's digest, the shapes, the provider's options, the
/// versions of the libraries, the device.
pub(crate) type Key = BTreeMap<&'static str, String>;

/// One engine's directory.
#[derive(Debug)]
pub(crate) struct EngineCache {
    directory: PathBuf,
    key: Key,
    /// Engines of the same model and provider that were built for something else.
    outdated: Vec<PathBuf>,
    /// Whether a whole engine stands there already.
    pub(crate) is_built: bool,
    stays: bool,
}

const KEY: &str = "key.json";

impl EngineCache {
    /// The directory for a model's engine under `root`. An engine of this model and provider that
    /// was built for something else is told, and stays until the new one works.
    pub(crate) fn open(root: &Path, model: &str, provider: Provider, key: Key) -> std::io::Result<Self> {
        let stem = format!("{model}-{provider}-");
        let directory = root.join(format!("{stem}{}", digest(&key)));
        std::fs::create_dir_all(root)?;
        let mut outdated = Vec::new();
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let ours = path.file_name().is_some_and(|name| is_engine_of(&name.to_string_lossy(), &stem));
            if ours && path != directory {
                log::warn!(
                    "the engine that {provider} built for {model} no longer fits ({}) and is built anew",
                    difference(&path, &key)
                );
                outdated.push(path);
            }
        }
        let is_built = directory.join(KEY).is_file();
        if !is_built && directory.exists() {
            // A build that was interrupted left something that may be no whole engine.
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, key, outdated, is_built, stays: is_built })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// The engine is about to be used: unless it is then kept, no later start is to find it.
    pub(crate) fn doubt(&mut self) {
        self.stays = false;
    }

    /// The engine works: keep it, and none that was built for something else.
    pub(crate) fn keep(mut self) {
        let json = serde_json::to_vec_pretty(&self.key).unwrap_or_default();
        match std::fs::write(self.directory.join(KEY), json) {
            Ok(()) => self.stays = true,
            Err(error) => log::warn!(
                "{}: the engine can't be kept ({error}), so the next start builds it again",
                self.directory.display()
            ),
        }
        self.outdated.iter().for_each(|directory| remove(directory));
    }
}

impl Drop for EngineCache {
    fn drop(&mut self) {
        if !self.stays {
            remove(&self.directory);
        }
    }
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        log::warn!("{}: {error}", directory.display());
    }
}

/// Whether a name is the stem and a digest: the model `a-b` is not `a`.
fn is_engine_of(name: &str, stem: &str) -> bool {
    let digest = name.strip_prefix(stem);
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn digest(key: &Key) -> String {
    let json = serde_json::to_vec(key).unwrap_or_default();
    Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What differs between an engine's key and the one that is needed, by name.
fn difference(directory: &Path, key: &Key) -> String {
    let text = std::fs::read_to_string(directory.join(KEY)).unwrap_or_default();
    let Ok(old) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
        return "it was not built to its end".to_owned();
    };
    let differs = key.iter().filter(|(name, value)| old.get(**name) != Some(value));
    let names: Vec<_> = differs.map(|(name, _)| *name).collect();
    format!("another {}", names.join(", another "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(graph: &str, device: &str) -> Key {
        BTreeMap::from([("graph", graph.to_owned()), ("device", device.to_owned())])
    }

    #[test]
    fn an_engine_is_found_again_only_for_what_it_was_built_for() {
        let root = tempfile::tempdir().unwrap();
        let open =
            |model: &str, key: Key| EngineCache::open(root.path(), model, Provider::TensorRt, key).unwrap();
        let build = |model: &str, key: Key| {
            let cache = open(model, key);
            assert!(!cache.is_built && !cache.path().join("x.engine").exists());
            std::fs::write(cache.path().join("x.engine"), b"whole").unwrap();
            let path = cache.path().to_owned();
            cache.keep();
            path
        };
        // A build that fails, or a provider that can't be registered, leaves nothing.
        let failed = open("digits", key("a", "orin"));
        std::fs::write(failed.path().join("x.engine"), b"half").unwrap();
        let path = failed.path().to_owned();
        drop(failed);
        assert!(!path.exists());
        // An interrupted one leaves what may be half an engine.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("x.engine"), b"half").unwrap();
        build("digits", key("a", "orin"));
        // A model whose name begins alike is another one.
        build("digits-tensorrt", key("b", "orin"));
        let again = open("digits", key("a", "orin"));
        assert!(again.is_built && again.path().join("x.engine").exists());
        assert_eq!(difference(again.path(), &key("c", "orin")), "another graph");
        assert_eq!(difference(again.path(), &key("c", "thor")), "another device, another graph");
        // Opened and not used, as where a library is missing, it stays.
        drop(again);
        assert!(open("digits", key("a", "orin")).is_built);
        // Until another one works, it stays too.
        drop(open("digits", key("c", "orin")));
        assert!(path.exists());
        build("digits", key("c", "orin"));
        assert!(!path.exists() && open("digits-tensorrt", key("b", "orin")).is_built);
        // Used without success, it goes.
        let mut bad = open("digits", key("c", "orin"));
        bad.doubt();
        drop(bad);
        assert!(!open("digits", key("c", "orin")).is_built);
    }
}
