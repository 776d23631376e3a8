//! An entry that is written in a temporary directory and renamed to its place when it is complete.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::entry::{Entry, directories, remove};

/// The file whose lock is held by the one process that writes staged entries to the cache.
const LOCK_FILE: &str = "lock";
/// The extension of the temporary directories.
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
    /// Creates the temporary directory. Waits while another entry is written, by this or another process, and removes
    /// what killed processes left.
    pub(in crate::inference) fn create(root: &Path, entry: Entry) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let lock = lock(root)?;
        for directory in directories(root)? {
            // Whoever wrote it does not hold the lock, so that it no longer runs.
            if directory.extension().is_some_and(|extension| extension == EXTENSION) {
                log::info!("{}: removing an entry whose preparation was interrupted", directory.display());
                std::fs::remove_dir_all(directory)?;
            }
        }
        let mut name = entry.path().as_os_str().to_owned();
        name.push(".");
        name.push(EXTENSION);
        let directory = PathBuf::from(name);
        std::fs::create_dir(&directory)?;
        Ok(Self { entry, directory, committed: false, _lock: lock })
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

/// Waits for the lock of the cache.
fn lock(root: &Path) -> std::io::Result<File> {
    let path = root.join(LOCK_FILE);
    let mut options = File::options();
    let file = match options.read(true).write(true).create(true).truncate(false).open(&path) {
        // Another user made it. A file that can only be read can be locked as well.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => File::open(&path)?,
        file => file?,
    };
    if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
        log::info!("{}: waiting until another graph is prepared", root.display());
    }
    file.lock()?;
    Ok(file)
}
