//! Where a provider keeps the engine that it built from a graph, so that the next start has it.
//!
//! The directory's name holds a digest of everything that the engine depends on. What was built for
//! something else is told, and makes way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::providers::Provider;

/// What an engine depends on, by name: the graph's digest, the shapes, the provider's options, the
/// versions of the libraries, the device.
pub(super) type Key = BTreeMap<&'static str, String>;

/// One engine's directory.
#[derive(Debug)]
pub(super) struct EngineCache {
    directory: PathBuf,
    key: Key,
    /// Whether a whole engine stands there already.
    pub(super) is_built: bool,
}

const KEY: &str = "key.json";

impl EngineCache {
    /// The directory for a model's engine under `root`. Engines of this model and provider that
    /// were built for something else are removed, aloud.
    pub(super) fn open(root: &Path, model: &str, provider: Provider, key: Key) -> std::io::Result<Self> {
        let stem = format!("{model}-{provider}-");
        let directory = root.join(format!("{stem}{}", digest(&key)));
        std::fs::create_dir_all(root)?;
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let ours = path.file_name().is_some_and(|name| is_engine_of(&name.to_string_lossy(), &stem));
            if ours && path != directory {
                log::warn!(
                    "the engine that {provider} built for {model} no longer fits ({}) and is built anew",
                    difference(&path, &key)
                );
                std::fs::remove_dir_all(&path)?;
            }
        }
        let is_built = directory.join(KEY).is_file();
        if !is_built && directory.exists() {
            // A build that was interrupted left something that may be no whole engine.
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, key, is_built })
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// The engine works: keep it.
    pub(super) fn keep(&self) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.key).unwrap_or_default();
        std::fs::write(self.directory.join(KEY), json)
    }

    /// The engine does not work: no later start is to find it.
    pub(super) fn discard(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            log::warn!("{}: {error}", self.directory.display());
        }
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
        let first = open("digits", key("a", "orin"));
        assert!(!first.is_built);
        std::fs::write(first.path().join("x.engine"), b"half").unwrap();
        // Interrupted: what is there may be half an engine.
        let again = open("digits", key("a", "orin"));
        assert!(!again.is_built && !again.path().join("x.engine").exists());
        std::fs::write(again.path().join("x.engine"), b"whole").unwrap();
        again.keep().unwrap();
        // A model whose name begins alike is another one.
        open("digits-tensorrt", key("b", "orin")).keep().unwrap();
        let third = open("digits", key("a", "orin"));
        assert!(third.is_built && third.path().join("x.engine").exists());
        assert_eq!(difference(third.path(), &key("c", "orin")), "another graph");
        assert_eq!(difference(third.path(), &key("c", "thor")), "another device, another graph");
        let other = open("digits", key("c", "orin"));
        assert!(!other.is_built && !third.path().exists());
        assert!(open("digits-tensorrt", key("b", "orin")).is_built);
    }
}
