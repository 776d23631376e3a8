//! Keeps the cache within its size, by removing the entries that were not used for the longest time.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::entry::{KEY_FILE, directories, last_use, remove};
use super::staged::is_temporary;

/// A committed entry.
struct Candidate {
    directory: PathBuf,
    bytes: u64,
    last_use: u64,
}

/// Removes the least recently used entries until all entries together with `additional` bytes fit in `size`. Entries in
/// use, entries that are being written, and `exclude` stay. Returns whether they fit. Nothing is removed for more bytes than
/// the cache may have.
pub(in crate::inference) fn make_room(
    root: &Path,
    size: u64,
    additional: u64,
    exclude: &Path,
) -> std::io::Result<bool> {
    if additional > size {
        return Ok(false);
    }
    let (mut candidates, mut total) = (Vec::new(), additional);
    for directory in directories(root)? {
        if is_temporary(&directory) {
            let is_other = directory != exclude;
            total = total.saturating_add(if is_other { len(&directory) } else { 0 });
        } else if let Some(candidate) = candidate(directory) {
            total = total.saturating_add(candidate.bytes);
            candidates.push(candidate);
        }
    }
    candidates.sort_by_key(|candidate| candidate.last_use);
    for candidate in candidates {
        if total <= size {
            break;
        }
        if candidate.directory != exclude && !is_in_use(&candidate.directory) {
            log::info!(
                "{}: evicted from the engine cache ([engine] cache_size)",
                candidate.directory.display()
            );
            remove(&candidate.directory);
            total -= candidate.bytes;
        }
    }
    Ok(total <= size)
}

/// The entry in a directory. `None` if none is committed there; one may be built at the moment.
fn candidate(directory: PathBuf) -> Option<Candidate> {
    directory.join(KEY_FILE).metadata().ok()?;
    Some(Candidate { last_use: last_use(&directory), bytes: len(&directory), directory })
}

/// The bytes of the files in a directory.
fn len(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn is_in_use(directory: &Path) -> bool {
    // What cannot be locked is not removed.
    File::open(directory.join(KEY_FILE)).is_ok_and(|file| file.try_lock().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of this many bytes, with its key, and with this number of its last use.
    fn entry(root: &Path, name: &str, bytes: usize, used: u64) -> PathBuf {
        let directory = root.join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("weights"), vec![0; bytes - 3]).unwrap();
        std::fs::write(directory.join(KEY_FILE), "{}").unwrap();
        std::fs::write(directory.join("last_use"), used.to_string()).unwrap();
        directory
    }

    #[test]
    fn the_least_recently_used_entries_are_evicted_except_those_in_use() {
        let root = tempfile::tempdir().unwrap();
        let [old, new, used, own] = [("old", 2), ("new", 3), ("used", 1), ("own", 0)]
            .map(|(name, time)| entry(root.path(), name, 100, time));
        // An unfinished build has no key, and does not count.
        let unfinished = root.path().join("unfinished");
        std::fs::create_dir(&unfinished).unwrap();
        std::fs::write(unfinished.join("x.engine"), [0; 1000]).unwrap();
        // One that is being written has the length that it will have.
        let written = root.path().join("written.tmp");
        std::fs::create_dir(&written).unwrap();
        File::create(written.join("weights.bin")).unwrap().set_len(300).unwrap();
        assert!(make_room(root.path(), 700, 0, &own).unwrap());
        assert!(make_room(root.path(), 400, 0, &written).unwrap());
        std::fs::remove_dir_all(&written).unwrap();
        let lock = File::open(used.join(KEY_FILE)).unwrap();
        lock.lock_shared().unwrap();
        let exists = || [&old, &new, &used, &own, &unfinished].map(|path| path.exists());
        assert!(make_room(root.path(), 400, 0, &own).unwrap());
        assert_eq!(exists(), [true; 5]);
        assert!(!make_room(root.path(), 400, 401, &own).unwrap());
        assert_eq!(exists(), [true; 5]);
        assert!(make_room(root.path(), 400, 100, &own).unwrap());
        assert_eq!(exists(), [false, true, true, true, true]);
        assert!(!make_room(root.path(), 100, 0, &own).unwrap());
        assert_eq!(exists(), [false, false, true, true, true]);
        drop(lock);
        assert!(make_room(root.path(), 100, 0, &own).unwrap());
        assert_eq!(exists(), [false, false, false, true, true]);
    }
}
