//! The directory of engines that providers build and of graphs prepared for them, so that the next start finds them.
//!
//! The name of an entry ends in a digest of everything that it depends on. An entry with another digest is reported and
//! removed once the new one works.

mod entry;
mod eviction;
mod staged;

use std::path::Path;

use super::provider::Provider;
use entry::remove;

pub(super) use entry::{Content, Entry, EntryLock, Key};
pub(super) use eviction::make_room;
pub(super) use staged::StagedEntry;

/// What to do if the cache cannot be written.
pub(super) const CACHE_HINT: &str = "Give this user the directory (sudo install -d -o \"$USER\" DIRECTORY), or set \
     [engine] cache to one that this user can write to";

/// The directory in which a provider builds an engine. It is removed on drop unless it is committed.
#[derive(Debug)]
pub(super) struct EngineCache {
    entry: Entry,
    /// Whether the directory held a committed engine when it was opened.
    pub(super) is_built: bool,
    committed: bool,
    /// Of an engine that was found.
    _lock: Option<EntryLock>,
}

impl EngineCache {
    /// Opens the directory for an engine under `root`. Engines for the same model and provider with another key stay
    /// until this one is committed.
    pub(super) fn open(root: &Path, model: &str, provider: Provider, key: Key) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let entry = Entry::find(root, model, provider, Content::Engine, key)?;
        let is_built = entry.is_committed();
        if !is_built && entry.path().exists() {
            // An interrupted build may have left half an engine.
            std::fs::remove_dir_all(entry.path())?;
        }
        std::fs::create_dir_all(entry.path())?;
        let lock = if is_built { Some(entry.lock()?) } else { None };
        Ok(Self { entry, is_built, committed: is_built, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.entry.path()
    }

    /// Marks the engine as unverified before it is used, so that it is removed unless it is committed reopened.
    pub(super) fn mark_unverified(&mut self) {
        self.committed = false;
    }

    /// Keeps the engine, which works, and removes those with another key. After an error the engine is not kept.
    pub(super) fn commit(mut self) -> std::io::Result<()> {
        self.entry.write_key(self.entry.path())?;
        self.committed = true;
        self.entry.remove_outdated();
        Ok(())
    }
}

impl Drop for EngineCache {
    fn drop(&mut self) {
        if !self.committed {
            remove(self.entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::entry::difference;
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
