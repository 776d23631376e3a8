//! Remembers the SHA-256 of files, so that gigabytes of weights are not read again at every start.
//!
//! As in git's index, a file is taken for the one that was hashed if its path, length, times and inode are the same.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

const FILE: &str = "digests.json";

/// How old a file's last change must be when it is hashed, in seconds. A later change could otherwise have the same time.
const MIN_AGE: i64 = 2;

/// Smaller files are hashed in a few milliseconds.
const MIN_LEN: u64 = 16 << 20;

/// More files are forgotten, those with the smallest paths first.
const MAX_FILES: usize = 1000;

/// Held while the file of digests is replaced, because the digests of several graphs are made at the same time.
static REPLACING: Mutex<()> = Mutex::new(());

/// What identifies the contents of a file without reading them. Times are in seconds and nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    len: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        Some(Self::from_metadata(&path.metadata().ok()?))
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file is large, and its last change was long enough before `now`.
    fn is_worth_remembering(&self, now: (i64, i64)) -> bool {
        let limit = (now.0 - MIN_AGE, now.1);
        self.len >= MIN_LEN && self.modified < limit && self.changed < limit
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
    /// `None` remembers nothing.
    directory: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
}

/// Files that are being hashed.
pub(super) struct Recording {
    memo: DigestMemo,
    /// The new file of digests. It was created before the files are hashed, and its time is the clock of file systems.
    file: NamedTempFile,
    pending: Vec<(PathBuf, Identity)>,
}

impl DigestMemo {
    /// Reads the digests in a directory. One that does not exist, or cannot be read, remembers none.
    pub(super) fn open(directory: &Path) -> Self {
        let text = std::fs::read(directory.join(FILE)).ok();
        let known = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { directory: Some(directory.to_owned()), known }
    }

    /// The digest of a file, if it is the one that was hashed.
    pub(super) fn get(&self, file: &Path) -> Option<&str> {
        let path = file.canonicalize().ok()?;
        let known = self.known.get(&path)?;
        (Identity::of(&path)? == known.identity).then_some(known.sha256.as_str())
    }

    /// To be called before files are hashed. `None` if nothing of them is to be remembered, or nothing can be.
    pub(super) fn record(self, files: &[&Path]) -> Option<Recording> {
        let directory = self.directory.as_ref()?;
        let identified = files.iter().filter_map(|file| {
            let path = file.canonicalize().ok()?;
            Some((Identity::of(&path)?, path))
        });
        let large: Vec<_> = identified.filter(|(identity, _)| identity.len >= MIN_LEN).collect();
        if large.is_empty() {
            return None;
        }
        let create = || {
            std::fs::create_dir_all(directory)?;
            let file = NamedTempFile::new_in(directory)?;
            let now = Identity::from_metadata(&file.as_file().metadata()?).changed;
            std::io::Result::Ok((file, now))
        };
        let (file, now) = create().inspect_err(|error| cannot_remember(directory, error)).ok()?;
        let settled = large.into_iter().filter(|(identity, _)| identity.is_worth_remembering(now));
        let pending = settled.map(|(identity, path)| (path, identity)).collect();
        Some(Recording { memo: self, file, pending })
    }
}

impl Recording {
    /// Adds the digests of files that did not change meanwhile to those that are known by now. Files that are gone are
    /// forgotten.
    pub(super) fn save(mut self, digest: impl Fn(&Path) -> Option<String>) {
        let Some(directory) = &self.memo.directory else { return };
        let _replacing = REPLACING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = DigestMemo::open(directory).known;
        for (path, identity) in self.pending {
            if let (Some(sha256), true) = (digest(&path), Identity::of(&path).as_ref() == Some(&identity)) {
                known.insert(path, Known { identity, sha256 });
            }
        }
        known.retain(|file, _| file.exists());
        while known.len() > MAX_FILES {
            known.pop_first();
        }
        let written = serde_json::to_writer(&mut self.file, &known).map_err(std::io::Error::from);
        let replaced = written.and_then(|()| Ok(self.file.persist(directory.join(FILE))?));
        if let Err(error) = replaced {
            cannot_remember(directory, &error);
        }
    }
}

fn cannot_remember(directory: &Path, error: &std::io::Error) {
    log::debug!("{}: cannot remember digests: {error}", directory.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records a digest for a file, which was just written, as if it had been changed long ago.
    fn remember(directory: &Path, file: &Path) -> DigestMemo {
        let mut recording = DigestMemo::open(directory).record(&[file]).unwrap();
        assert!(recording.pending.is_empty());
        let path = file.canonicalize().unwrap();
        recording.pending.push((path.clone(), Identity::of(&path).unwrap()));
        recording.save(|_| Some("digest".to_owned()));
        DigestMemo::open(directory)
    }

    fn write(file: &Path, text: &str) -> std::fs::File {
        std::fs::write(file, text).unwrap();
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(MIN_LEN).unwrap();
        file
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        write(&file, "weights");
        let memo = remember(directory.path(), &file);
        assert_eq!(memo.get(&file), Some("digest"));
        let link = directory.path().join("link.bin");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(memo.get(&link), Some("digest"));
        // Other contents of the same length, with the same modification time.
        let modified = file.metadata().unwrap().modified().unwrap();
        write(&file, "WEIGHTS").set_modified(modified).unwrap();
        assert_eq!(memo.get(&file), None);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(memo.get(&file), None);
    }

    #[test]
    fn digests_that_were_made_at_the_same_time_are_all_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["a.bin", "b.bin"].map(|name| directory.path().join(name));
        files.iter().for_each(|file| drop(write(file, "weights")));
        let recordings = files.each_ref().map(|file| {
            let mut recording = DigestMemo::open(directory.path()).record(&[file]).unwrap();
            recording.pending.push((file.canonicalize().unwrap(), Identity::of(file).unwrap()));
            recording
        });
        recordings.into_iter().for_each(|recording| recording.save(|_| Some("digest".to_owned())));
        let memo = DigestMemo::open(directory.path());
        assert_eq!(files.each_ref().map(|file| memo.get(file)), [Some("digest"); 2]);
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        write(&file, "weights");
        let mut recording = DigestMemo::open(directory.path()).record(&[&file]).unwrap();
        recording.pending.push((file.canonicalize().unwrap(), Identity::of(&file).unwrap()));
        write(&file, "changed").set_len(MIN_LEN + 1).unwrap();
        recording.save(|_| Some("digest".to_owned()));
        assert_eq!(DigestMemo::open(directory.path()).get(&file), None);
    }

    #[test]
    fn a_file_that_is_small_or_has_just_changed_is_not_remembered() {
        let identity = |modified: i64, changed: i64| Identity {
            len: MIN_LEN,
            inode: 1,
            modified: (modified, 0),
            changed: (changed, 0),
        };
        assert!(identity(97, 97).is_worth_remembering((100, 0)));
        assert!(!identity(98, 97).is_worth_remembering((100, 0)));
        assert!(!identity(97, 99).is_worth_remembering((100, 0)));
        // The clock was set back after the change.
        assert!(!identity(200, 97).is_worth_remembering((100, 0)));
        assert!(!Identity { len: MIN_LEN - 1, ..identity(97, 97) }.is_worth_remembering((100, 0)));
    }

    #[test]
    fn a_damaged_memo_knows_nothing_and_small_files_make_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weights.bin");
        std::fs::write(directory.path().join(FILE), "{\"x").unwrap();
        std::fs::write(&file, "weights").unwrap();
        assert_eq!(DigestMemo::open(directory.path()).get(&file), None);
        let missing = directory.path().join("missing");
        assert!(DigestMemo::open(&missing).record(&[&file]).is_none());
        assert!(!missing.exists());
        write(&file, "weights");
        assert!(DigestMemo::default().record(&[&file]).is_none());
    }
}
