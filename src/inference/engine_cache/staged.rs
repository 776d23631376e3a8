//! An entry that is written in a temporary directory and renamed to its place when it is complete.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::entry::{Entry, directories, remove};

/// The file whose lock is held while temporary directories are made or removed.
const LOCK_FILE: &str = "lock";
/// The extension of the temporary directories. Whoever writes in one holds its lock.
const EXTENSION: &str = "tmp";

/// An entry that is being written. It is removed on drop unless it is committed.
#[derive(Debug)]
pub(in crate::inference) struct StagedEntry {
    entry: Entry,
    directory: PathBuf,
    committed: bool,
    _lock: File,
}

impl StagedEntry {
    /// Creates the temporary directory. Waits while the same entry is written, by this or another process, and removes
    /// what killed processes left.
    pub(in crate::inference) fn create(root: &Path, entry: Entry) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let mut name = entry.path().as_os_str().to_owned();
        name.push(".");
        name.push(EXTENSION);
        let directory = PathBuf::from(name);
        loop {
            let cache = lock(root)?;
            remove_interrupted(root)?;
            match std::fs::create_dir(&directory) {
                Ok(()) => {
                    let lock = File::open(&directory)?;
                    lock.lock()?;
                    return Ok(Self { entry, directory, committed: false, _lock: lock });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let writer = match File::open(&directory) {
                // It was committed, or given up.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                writer => writer?,
            };
            drop(cache);
            log::info!("{}: waiting until this graph is prepared", directory.display());
            writer.lock()?;
        }
    }

    /// The temporary directory.
    pub(in crate::inference) fn path(&self) -> &Path {
        &self.directory
    }

    /// Moves the entry to its place, and removes those with another key.
    pub(in crate::inference) fn commit(mut self) -> std::io::Result<()> {
        self.entry.write_key(&self.directory)?;
        let target = self.entry.path();
        if target.exists() {
            std::fs::remove_dir_all(target)?;
        }
        std::fs::rename(&self.directory, target)?;
        self.committed = true;
        self.entry.remove_outdated();
        Ok(())
    }
}

impl Drop for StagedEntry {
    fn drop(&mut self) {
        if !self.committed {
            remove(&self.directory);
        }
    }
}

/// Whether an entry is being written in a directory.
pub(super) fn is_temporary(directory: &Path) -> bool {
    directory.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Removes the temporary directories in which nobody writes.
fn remove_interrupted(root: &Path) -> std::io::Result<()> {
    for directory in directories(root)?.into_iter().filter(|directory| is_temporary(directory)) {
        let lock = match File::open(&directory) {
            // It was renamed to its place, or removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            lock => lock?,
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) if directory.exists() => {
                log::info!("{}: removing an entry whose preparation was interrupted", directory.display());
                std::fs::remove_dir_all(directory)?;
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Waits for the lock of the cache.
fn lock(root: &Path) -> std::io::Result<File> {
    let path = root.join(LOCK_FILE);
    let mut options = File::options();
    let file = match options.read(true).write(true).create(true).truncate(false).open(&path) {
        // Another user made it. A file that can only be read can be locked as well.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => File::open(&path)?,
        file => file?,
    };
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::inference::engine_cache::{Content, Key};
    use crate::inference::provider::Provider;

    fn entry(root: &Path, model: &str) -> Entry {
        let key = Key::from([("graph", model.to_owned())]);
        Entry::find(root, model, Provider::Cpu, Content::PreparedGraph, key).unwrap()
    }

    #[test]
    fn two_entries_are_written_at_the_same_time_and_the_same_entry_once() {
        let root = tempfile::tempdir().unwrap();
        let [first, other] =
            ["a", "b"].map(|model| StagedEntry::create(root.path(), entry(root.path(), model)));
        let (first, other) = (first.unwrap(), other.unwrap());
        std::fs::write(first.path().join("weights.bin"), "first").unwrap();
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = StagedEntry::create(root.path(), entry(root.path(), "a")).unwrap();
                sender.send(entry(root.path(), "a").is_committed()).unwrap();
                drop(second);
            });
            // Another entry is not waited for.
            drop(StagedEntry::create(root.path(), entry(root.path(), "c")).unwrap());
            first.commit().unwrap();
            assert!(receiver.recv().unwrap());
        });
        let committed = entry(root.path(), "a");
        assert_eq!(std::fs::read(committed.path().join("weights.bin")).unwrap(), b"first");
        let path = other.path().to_owned();
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }
}
