//! A directory for the engine that a provider builds from a graph, so that the next start finds it.
//!
//! The name of the directory ends in a digest of everything that the engine depends on. An engine with another digest is
//! reported and removed once the new one works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::provider::Provider;

/// Names and values that an engine depends on: the digest of the graph, the shapes, the provider's options, the versions
/// of the libraries, the device.
pub(super) type Key = BTreeMap<&'static str, String>;

/// The directory of one engine. It is removed on drop unless it is committed.
#[derive(Debug)]
pub(super) struct EngineCache {
    directory: PathBuf,
    key: Key,
    /// The directories of engines for the same model and provider with another key.
    outdated: Vec<PathBuf>,
    /// Whether the directory held a committed engine when it was opened.
    pub(super) is_built: bool,
    committed: bool,
}

/// The file that marks an engine as committed.
const KEY_FILE: &str = "key.json";

impl EngineCache {
    /// Opens the directory for an engine under `root`. Engines for the same model and provider with another key stay
    /// until this one is committed.
    pub(super) fn open(root: &Path, model: &str, provider: Provider, key: Key) -> std::io::Result<Self> {
        let stem = format!("{model}-{provider}-");
        let directory = root.join(format!("{stem}{}", digest(&key)?));
        std::fs::create_dir_all(root)?;
        let mut outdated = Vec::new();
        for entry in std::fs::read_dir(root)? {
            let path = entry?.path();
            let is_ours = path.file_name().is_some_and(|name| is_engine_of(&name.to_string_lossy(), &stem));
            if is_ours && path != directory {
                log::warn!(
                    "the engine that {provider} built for {model} no longer fits ({}) and is built again",
                    difference(&path, &key)
                );
                outdated.push(path);
            }
        }
        let is_built = directory.join(KEY_FILE).is_file();
        if !is_built && directory.exists() {
            // An interrupted build may have left half an engine.
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, key, outdated, is_built, committed: is_built })
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Marks the engine as unverified before it is used, so that it is removed unless it is committed reopened.
    pub(super) fn mark_unverified(&mut self) {
        self.committed = false;
    }

    /// Keeps the engine, which works, and removes those with another key. After an error the engine is not kept.
    pub(super) fn commit(mut self) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.key)?;
        std::fs::write(self.directory.join(KEY_FILE), json)?;
        self.committed = true;
        self.outdated.iter().for_each(|directory| remove(directory));
        Ok(())
    }
}

impl Drop for EngineCache {
    fn drop(&mut self) {
        if !self.committed {
            remove(&self.directory);
        }
    }
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        log::warn!("{}: cannot remove the engine: {error}", directory.display());
    }
}

/// Whether a name is the stem and a digest. The stem of the model `a` is a prefix of the one of `a-b`.
fn is_engine_of(name: &str, stem: &str) -> bool {
    let digest = name.strip_prefix(stem);
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The first 8 bytes of the SHA-256 of a key, in hexadecimal.
fn digest(key: &Key) -> std::io::Result<String> {
    let mut hex = format!("{:x}", Sha256::digest(serde_json::to_vec(key)?));
    hex.truncate(16);
    Ok(hex)
}

/// Lists the entries that differ between the key of an engine and `key`.
fn difference(directory: &Path, key: &Key) -> String {
    let text = std::fs::read_to_string(directory.join(KEY_FILE)).unwrap_or_default();
    let Ok(old) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
        return "its build did not finish".to_owned();
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
    fn an_engine_is_found_only_by_the_key_it_was_built_for() {
        let root = tempfile::tempdir().unwrap();
        let open =
            |model: &str, key: Key| EngineCache::open(root.path(), model, Provider::TensorRt, key).unwrap();
        let build = |model: &str, key: Key| {
            let cache = open(model, key);
            assert!(!cache.is_built && !cache.path().join("x.engine").exists());
            std::fs::write(cache.path().join("x.engine"), b"whole").unwrap();
            let path = cache.path().to_owned();
            cache.commit().unwrap();
            path
        };
        // A failed build, or a provider that cannot be registered, leaves nothing.
        let failed = open("digits", key("a", "orin"));
        std::fs::write(failed.path().join("x.engine"), b"half").unwrap();
        let path = failed.path().to_owned();
        drop(failed);
        assert!(!path.exists());
        // An interrupted build leaves half an engine, which is not used.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("x.engine"), b"half").unwrap();
        build("digits", key("a", "orin"));
        // A model whose name has the same prefix is another model.
        build("digits-tensorrt", key("b", "orin"));
        let reopened = open("digits", key("a", "orin"));
        assert!(reopened.is_built && reopened.path().join("x.engine").exists());
        assert_eq!(difference(reopened.path(), &key("c", "orin")), "another graph");
        assert_eq!(difference(reopened.path(), &key("c", "thor")), "another device, another graph");
        // An engine that is opened and not used, because a library is missing, stays.
        drop(reopened);
        assert!(open("digits", key("a", "orin")).is_built);
        // It also stays until an engine with another key is committed.
        drop(open("digits", key("c", "orin")));
        assert!(path.exists());
        build("digits", key("c", "orin"));
        assert!(!path.exists() && open("digits-tensorrt", key("b", "orin")).is_built);
        // An engine that was used without success is removed.
        let mut bad = open("digits", key("c", "orin"));
        bad.mark_unverified();
        drop(bad);
        assert!(!open("digits", key("c", "orin")).is_built);
    }
}
