//! The directory of one entry of the cache: its name, its key, and the lock that protects it while it is in use.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::inference::provider::Provider;

/// Names and values that an entry depends on: the digest of the graph, the shapes, the provider's options, the versions
/// of the libraries, the device.
pub(in crate::inference) type Key = BTreeMap<&'static str, String>;

/// The file with the key, which marks an entry as committed.
pub(super) const KEY_FILE: &str = "key.json";

/// The file with the number of an entry's last use. Uses are numbered, because clocks of boards jump.
const USE_FILE: &str = "last_use";

/// What an entry contains, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inference) enum Content {
    /// The engine that a provider built.
    Engine,
    /// A graph that was prepared for a provider.
    PreparedGraph,
}

/// The place of an entry in the cache.
#[derive(Debug, Clone)]
pub(in crate::inference) struct Entry {
    pub(super) directory: PathBuf,
    key: Key,
    /// The directories of entries for the same model and provider with another key.
    outdated: Vec<PathBuf>,
}

impl Entry {
    /// The files that every entry has, besides its contents.
    pub(in crate::inference) const OWN_FILES: [&str; 2] = [KEY_FILE, USE_FILE];

    /// Finds the place of an entry under `root`, and reports entries for the same model and provider with another key.
    /// Writes nothing.
    pub(in crate::inference) fn find(
        root: &Path,
        model: &str,
        provider: Provider,
        content: Content,
        key: Key,
    ) -> std::io::Result<Self> {
        let stem = match content {
            Content::Engine => format!("{model}-{provider}-"),
            Content::PreparedGraph => format!("{model}-{provider}-graph-"),
        };
        let directory = root.join(format!("{stem}{}", digest(&key)?));
        let mut outdated = Vec::new();
        for path in directories(root)? {
            let is_ours = path.file_name().is_some_and(|name| is_entry_of(&name.to_string_lossy(), &stem));
            if is_ours && path != directory {
                let reason = difference(&path, &key);
                match content {
                    Content::Engine => log::warn!(
                        "the engine that {provider} built for {model} no longer fits ({reason}) and is built again"
                    ),
                    Content::PreparedGraph => log::info!(
                        "the graph of {model} that was prepared for {provider} no longer fits ({reason}) and is prepared \
                         again"
                    ),
                }
                outdated.push(path);
            }
        }
        Ok(Self { directory, key, outdated })
    }

    pub(in crate::inference) fn path(&self) -> &Path {
        &self.directory
    }

    /// Whether the entry was committed.
    pub(in crate::inference) fn is_committed(&self) -> bool {
        self.directory.join(KEY_FILE).is_file()
    }

    /// Whether the key in the directory is this one.
    pub(in crate::inference) fn has_own_key(&self) -> bool {
        let text = std::fs::read(self.directory.join(KEY_FILE)).unwrap_or_default();
        let key = |(name, value): (&&'static str, &String)| ((*name).to_owned(), value.clone());
        let own: BTreeMap<String, String> = self.key.iter().map(key).collect();
        serde_json::from_slice::<BTreeMap<String, String>>(&text).is_ok_and(|found| found == own)
    }

    /// Writes the key to a directory, which commits the entry there.
    pub(super) fn write_key(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::write(directory.join(KEY_FILE), serde_json::to_vec_pretty(&self.key)?)
    }

    /// Removes the entries with another key.
    pub(super) fn remove_outdated(&self) {
        self.outdated.iter().for_each(|directory| remove(directory));
    }

    /// Makes this entry the one that was used last.
    fn number_use(&self) -> std::io::Result<()> {
        let others = directories(self.directory.parent().unwrap_or(Path::new(".")))?;
        let last = others.iter().map(|directory| last_use(directory)).max().unwrap_or(0);
        std::fs::write(self.directory.join(USE_FILE), (last + 1).to_string())
    }

    /// Marks a committed entry as used now, and protects it from eviction.
    pub(in crate::inference) fn lock(&self) -> std::io::Result<EntryLock> {
        let file = File::open(self.directory.join(KEY_FILE))?;
        file.lock_shared()?;
        // In a cache that cannot be written nothing is evicted.
        let _ = self.number_use();
        Ok(EntryLock { _file: file })
    }
}

/// Protects an entry from eviction by this and other processes until it is dropped.
#[derive(Debug)]
pub(in crate::inference) struct EntryLock {
    _file: File,
}

/// The number of the last use of the entry in a directory. 0 if it is unknown.
pub(super) fn last_use(directory: &Path) -> u64 {
    let number = std::fs::read_to_string(directory.join(USE_FILE)).ok();
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub(super) fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        log::warn!("{}: cannot remove this entry of the engine cache: {error}", directory.display());
    }
}

/// The directories in the cache. None if there is no cache.
pub(super) fn directories(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

/// Whether a name is the stem and a digest. The stem of the model `a` is a prefix of the one of `a-b`.
fn is_entry_of(name: &str, stem: &str) -> bool {
    let digest = name.strip_prefix(stem);
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The first 8 bytes of the SHA-256 of a key, in hexadecimal.
fn digest(key: &Key) -> std::io::Result<String> {
    let mut hex = format!("{:x}", Sha256::digest(serde_json::to_vec(key)?));
    hex.truncate(16);
    Ok(hex)
}

/// Lists the values that differ between the key of an entry and `key`.
pub(super) fn difference(directory: &Path, key: &Key) -> String {
    let text = std::fs::read_to_string(directory.join(KEY_FILE)).unwrap_or_default();
    let Ok(old) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
        return "its build did not finish".to_owned();
    };
    let differs = key.iter().filter(|(name, value)| old.get(**name) != Some(value));
    let names: Vec<_> = differs.map(|(name, _)| *name).collect();
    format!("another {}", names.join(", another "))
}
