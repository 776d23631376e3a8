//! Remembers the SHA-256 of files, so that gigabytes of weights are not read again at every start.
//!
//! As in git's index, a file is taken for the one that was hashed if its path, length, times and inode are the same.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

const FILE: &str = "digests.json";

/// How old a file's last change must be when it is hashed. A later change could otherwise have the same time.
const MIN_AGE: Duration = Duration::from_secs(2);

/// Smaller files are hashed in a few milliseconds.
const MIN_LEN: u64 = 16 << 20;

/// More files are forgotten, those with the smallest paths first.
const MAX_FILES: usize = 1000;

/// What identifies the contents of a file without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    len: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            len: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the file is large, and its last change was long enough before this time.
    fn is_worth_remembering(&self, now: SystemTime) -> bool {
        if self.len < MIN_LEN {
            return false;
        }
        let Some(limit) = now.checked_sub(MIN_AGE) else { return false };
        let Ok(limit) = limit.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let limit = (limit.as_secs().cast_signed(), i64::from(limit.subsec_nanos()));
        self.modified < limit && self.changed < limit
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    identity: Identity,
    sha256: String,
}

/// The digests of files by their real paths, in a file of a cache directory.
#[derive(Debug, Default)]
pub(super) struct DigestMemo {
    path: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    has_new: bool,
}

/// A file that is being hashed.
pub(super) struct Pending {
    path: PathBuf,
    identity: Identity,
}

impl DigestMemo {
    /// Reads the digests in a directory. One that does not exist, or cannot be read, remembers none.
    pub(super) fn open(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path: Some(path), known: known.unwrap_or_default(), has_new: false }
    }

    /// The digest of a file, if it is the one that was hashed.
    pub(super) fn get(&self, file: &Path) -> Option<&str> {
        let path = file.canonicalize().ok()?;
        let known = self.known.get(&path)?;
        (Identity::of(&path)? == known.identity).then_some(known.sha256.as_str())
    }

    /// To be called before a file is hashed. `None` if it is small, or was changed so recently that its times do not show
    /// whether it changes again.
    pub(super) fn before_hashing(file: &Path) -> Option<Pending> {
        let now = SystemTime::now();
        let path = file.canonicalize().ok()?;
        let identity = Identity::of(&path).filter(|identity| identity.is_worth_remembering(now))?;
        Some(Pending { path, identity })
    }

    /// Adds the digest of a file unless it changed meanwhile.
    pub(super) fn insert(&mut self, pending: Pending, sha256: String) {
        if Identity::of(&pending.path).as_ref() == Some(&pending.identity) {
            self.known.insert(pending.path, Known { identity: pending.identity, sha256 });
            self.has_new = true;
        }
    }

    /// Writes the digests to their directory, if there are new ones and it can be written. Files that are gone are left
    /// out.
    pub(super) fn save(mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.has_new) else { return };
        self.known.retain(|file, _| file.exists());
        while self.known.len() > MAX_FILES {
            self.known.pop_first();
        }
        if let Err(error) = replace(path, &self.known) {
            log::debug!("{}: cannot remember digests: {error}", path.display());
        }
    }
}

fn replace(path: &Path, known: &BTreeMap<PathBuf, Known>) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut file, known)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memo of one file whose contents were last changed `age` ago.
    fn memo(directory: &Path, file: &Path, age: Duration) -> Option<DigestMemo> {
        std::fs::write(file, "weights").unwrap();
        let times = std::fs::File::options().write(true).open(file).unwrap();
        times.set_len(MIN_LEN).unwrap();
        times.set_modified(SystemTime::now() - age).unwrap();
        let mut pending = DigestMemo::before_hashing(file);
        // The time of the change of the inode cannot be set.
        if pending.is_none() && age > MIN_AGE {
            let path = file.canonicalize().unwrap();
            pending = Some(Pending { identity: Identity::of(&path).unwrap(), path });
        }
        let mut memo = DigestMemo::open(directory);
        memo.insert(pending?, "digest".to_owned());
        memo.save();
        Some(DigestMemo::open(directory))
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        let memo = memo(directory.path(), &file, Duration::from_secs(60)).unwrap();
        assert_eq!(memo.get(&file), Some("digest"));
        let link = directory.path().join("link.bin");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(memo.get(&link), Some("digest"));
        let modified = file.metadata().unwrap().modified().unwrap();
        // Other contents of the same length, with the same modification time.
        std::fs::write(&file, "WEIGHTS").unwrap();
        let other = std::fs::File::options().write(true).open(&file).unwrap();
        other.set_len(MIN_LEN).unwrap();
        other.set_modified(modified).unwrap();
        assert_eq!(memo.get(&file), None);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(memo.get(&file), None);
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        assert!(memo(directory.path(), &file, Duration::ZERO).is_none());
        let at = |seconds: u64| (seconds.cast_signed(), 0);
        let identity = |modified, changed| Identity { len: MIN_LEN, inode: 1, modified, changed };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert!(identity(at(97), at(97)).is_worth_remembering(now));
        assert!(!identity(at(98), at(97)).is_worth_remembering(now));
        assert!(!identity(at(97), at(99)).is_worth_remembering(now));
        assert!(!identity(at(200), at(97)).is_worth_remembering(now));
        assert!(!Identity { len: MIN_LEN - 1, ..identity(at(97), at(97)) }.is_worth_remembering(now));
    }

    #[test]
    fn a_damaged_memo_and_a_missing_directory_remember_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        std::fs::write(directory.path().join(FILE), "{\"x").unwrap();
        std::fs::write(&file, "weights").unwrap();
        assert_eq!(DigestMemo::open(directory.path()).get(&file), None);
        let missing = directory.path().join("missing");
        DigestMemo::open(&missing).save();
        assert!(!missing.exists());
    }
}
