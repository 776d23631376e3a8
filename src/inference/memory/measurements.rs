//! What was measured of sessions, kept in a file for the next start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::throughput::Throughput;
use super::working_memory::WorkingMemory;

/// The file in the engine cache.
const FILE: &str = "measurements.json";
/// A file of another version is not read, and is replaced.
const VERSION: u32 = 1;
/// The most sessions in the file.
const MAX_SESSIONS: usize = 256;

/// What was measured of one session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SessionMeasurements {
    /// The memory that opening takes at most, in bytes; 0 if it is not known.
    pub(super) opening: u64,
    /// The memory of the open session before its first evaluation, in bytes; 0 if it is not known.
    pub(super) open: u64,
    #[serde(flatten)]
    pub(super) working: WorkingMemory,
    #[serde(flatten)]
    pub(super) throughput: Throughput,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// By the graph and what runs it.
    sessions: BTreeMap<String, SessionMeasurements>,
}

/// The measurements in one directory, shared by all models.
#[derive(Debug)]
pub(crate) struct MeasurementStore {
    path: PathBuf,
    contents: Mutex<Contents>,
}

/// The stores of this process by their directories, so that models share one.
static STORES: LazyLock<Mutex<BTreeMap<PathBuf, Arc<MeasurementStore>>>> = LazyLock::new(Mutex::default);

impl MeasurementStore {
    /// Opens the measurements in the engine cache. A file that is missing, damaged or of another version counts as empty:
    /// it holds nothing that is not measured again.
    pub(crate) fn open(cache: &Path) -> Arc<Self> {
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = || Arc::new(Self::read(cache.join(FILE)));
        Arc::clone(stores.entry(cache.to_owned()).or_insert_with(opened))
    }

    fn read(path: PathBuf) -> Self {
        let contents = Mutex::new(read(&path));
        Self { path, contents }
    }

    pub(super) fn get(&self, key: &str) -> SessionMeasurements {
        self.lock().sessions.get(key).cloned().unwrap_or_default()
    }

    /// Replaces the measurements of a session and writes the file.
    pub(super) fn set(&self, key: &str, measurements: SessionMeasurements) {
        let mut contents = self.lock();
        // Another process may have written meanwhile.
        for (other, theirs) in read(&self.path).sessions {
            contents.sessions.entry(other).or_insert(theirs);
        }
        contents.sessions.insert(key.to_owned(), measurements);
        while contents.sessions.len() > MAX_SESSIONS {
            let first = contents.sessions.keys().find(|other| *other != key).cloned();
            first.and_then(|first| contents.sessions.remove(&first));
        }
        contents.version = VERSION;
        if let Err(error) = write(&self.path, &contents) {
            // The next start measures again.
            log::debug!("{}: cannot keep measurements: {error}", self.path.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Contents {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let contents: Contents = serde_json::from_str(&text).unwrap_or_default();
    if contents.version == VERSION { contents } else { Contents::default() }
}

/// Replaces the file, so that it has the old or the new contents even if the power fails.
fn write(path: &Path, contents: &Contents) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(contents)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::memory::EvaluationSize;

    fn measurements(opening: u64) -> SessionMeasurements {
        let mut measurements = SessionMeasurements { opening, open: 3, ..SessionMeasurements::default() };
        let size = EvaluationSize { values: 100, batch: 2 };
        measurements.working.record(size, 7, 5);
        measurements.throughput.record(size, 0.25);
        measurements
    }

    #[test]
    fn measurements_survive_a_restart_and_two_processes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache").join(FILE);
        let (first, second) = (MeasurementStore::read(path.clone()), MeasurementStore::read(path.clone()));
        first.set("a", measurements(1));
        second.set("b", measurements(2));
        let reopened = MeasurementStore::read(path.clone());
        assert_eq!([reopened.get("a"), reopened.get("b")], [1, 2].map(measurements));
        assert_eq!(reopened.get("c"), SessionMeasurements::default());
        for damaged in ["{", "{\"version\": 99, \"sessions\": {}}"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(MeasurementStore::read(path.clone()).get("a"), SessionMeasurements::default());
        }
        reopened.set("a", measurements(3));
        assert_eq!(MeasurementStore::read(path).get("b"), measurements(2));
    }

    #[test]
    fn a_directory_that_cannot_be_written_costs_only_the_measurements() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("file");
        std::fs::write(&taken, "").unwrap();
        let store = MeasurementStore::read(taken.join(FILE));
        store.set("a", measurements(1));
        assert_eq!(store.get("a"), measurements(1));
    }
}
