//! The spool's file: jobs accepted, messages not yet delivered, and the answers of finished jobs.
//!
//! One transaction holds all changes of a turn, so that a crash leaves all of them or none.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::completed_jobs::CompletedJobs;
use super::record::{AcceptedJob, DoneJob, RecordError, ReplyTo, read_message};
use crate::mqtt::Message;

pub(super) const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
pub(super) const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
/// The numbers of the messages that the broker has not acknowledged.
pub(super) const PENDING: TableDefinition<'_, u64, ()> = TableDefinition::new("pending");
pub(super) const DONE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("done");
/// The finished jobs by the time at which they finished.
pub(super) const AGES: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ages");
/// Pages of the file that are kept in memory; the default would be a gigabyte. The system keeps more.
const CACHE: usize = 256 << 10;
const FILE: &str = "spool.redb";

/// One change of the spool.
#[derive(Debug, Clone)]
pub enum Change {
    /// A job is accepted.
    Accept(AcceptedJob),
    /// A message is to be delivered.
    Send(Message),
    /// The broker has the message with this number.
    Delivered(u64),
    /// A job is done; these of the messages sent answer it, besides those to a reply topic.
    Finish {
        /// The job's id.
        id: String,
    },
    /// A job will not be done: it failed, was cancelled or is refused.
    Forget(String),
    /// A finished job's answers are to be delivered again, to its requester's own topic too.
    Repeat {
        /// The job's id.
        id: String,
        /// The topic.
        reply: Option<ReplyTo>,
    },
}

/// A spool that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory.
    #[error("spool.path {path}: {error}; name a directory that the daemon may write")]
    Directory {
        /// It.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There is no room left on its disk.
    #[error("spool.path {path}: {error}; make room there, or name another directory")]
    Full {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another process holds the file.
    #[error("{0} is in use by another daemon; give each its own spool.path")]
    InUse(PathBuf),
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    pub(super) database: Database,
    path: PathBuf,
    pub(super) next: u64,
    /// Each accepted job's number.
    pub(super) jobs: BTreeMap<String, u64>,
    /// For each of them, the numbers of the messages that answer it so far.
    pub(super) answers: BTreeMap<String, BTreeMap<String, u64>>,
    /// What everybody may know of finished jobs.
    pub(super) ledger: CompletedJobs,
    pub(super) pending_bytes: u64,
    pub(super) kept_bytes: u64,
    pub(super) keep_s: u64,
    pub(super) max_bytes: u64,
}

pub(super) type Effects<T> = Result<T, redb::Error>;

impl Store {
    /// Open the spool of a directory, which is made where it is missing. A file that is no spool
    /// is set aside under another name.
    pub fn open(
        directory: &Path,
        max_bytes: u64,
        keep_s: u64,
        ledger: &CompletedJobs,
    ) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(directory)
            .map_err(|error| SpoolError::Directory { path: directory.to_owned(), error })?;
        let path = directory.join(FILE);
        match Self::open_or_create(&path, max_bytes, keep_s, ledger) {
            Err(Trouble::Foreign(reason)) => {
                let aside = directory.join(format!("{FILE}.set-aside-{}", now()));
                log::error!(
                    "{} is no spool ({reason}); it is set aside as {}",
                    path.display(),
                    aside.display()
                );
                std::fs::rename(&path, &aside)
                    .map_err(|error| SpoolError::Directory { path: path.clone(), error })?;
                let again = Self::open_or_create(&path, max_bytes, keep_s, ledger);
                again.map_err(|trouble| trouble.at(&path))
            }
            opened => opened.map_err(|trouble| trouble.at(&path)),
        }
    }

    fn open_or_create(
        path: &Path,
        max_bytes: u64,
        keep_s: u64,
        ledger: &CompletedJobs,
    ) -> Result<Self, Trouble> {
        let is_new = !path.exists();
        let opened = Self::open_file(path, max_bytes, keep_s, ledger);
        if is_new
            && matches!(&opened, Err(Trouble::RejectedProvider(error)) if error.kind() == ErrorKind::StorageFull)
        {
            // What could not be written to its end is no spool, and would be taken for a foreign file.
            let _ = std::fs::remove_file(path);
        }
        opened
    }

    fn open_file(path: &Path, max_bytes: u64, keep_s: u64, ledger: &CompletedJobs) -> Result<Self, Trouble> {
        let database = Database::builder().set_cache_size(CACHE).create(path);
        let database = database.map_err(|error| Trouble::of(error.into()))?;
        let mut store = Self {
            database,
            path: path.to_owned(),
            next: 1,
            jobs: BTreeMap::new(),
            answers: BTreeMap::new(),
            ledger: ledger.clone(),
            pending_bytes: 0,
            kept_bytes: 0,
            keep_s,
            max_bytes,
        };
        store.survey().map_err(Trouble::of)?;
        Ok(store)
    }

    /// Count what is there, and read every record once, so that a broken one is found now.
    fn survey(&mut self) -> Effects<()> {
        let write = self.database.begin_write()?;
        {
            let (jobs, messages) = (write.open_table(JOBS)?, write.open_table(MESSAGES)?);
            let (pending, done) = (write.open_table(PENDING)?, write.open_table(DONE)?);
            let mut ages = write.open_table(AGES)?;
            for entry in messages.iter()? {
                let (number, record) = entry?;
                let message = read_message(record.value()).map_err(corrupted)?;
                let size = record.value().len() as u64;
                if pending.get(number.value())?.is_some() {
                    self.pending_bytes += size;
                } else {
                    self.kept_bytes += size;
                }
                self.next = self.next.max(number.value() + 1);
                if let Some((id, part)) = answered(&message) {
                    self.answers.entry(id.to_owned()).or_default().insert(part, number.value());
                }
            }
            for entry in jobs.iter()? {
                let (number, record) = entry?;
                let job: AcceptedJob = read_json(record.value())?;
                self.answers.entry(job.id.clone()).or_default();
                self.jobs.insert(job.id, number.value());
                self.next = self.next.max(number.value() + 1);
            }
            for entry in done.iter()? {
                let (id, record) = entry?;
                let done: DoneJob = read_json(record.value())?;
                self.answers.remove(id.value());
                ages.insert((done.at, id.value()), ())?;
                self.ledger.insert(id.value(), &done.digest);
            }
        }
        write.commit()?;
        let jobs = &self.jobs;
        self.answers.retain(|id, _| jobs.contains_key(id));
        Ok(())
    }

    /// The jobs accepted and not done, in the order in which they came.
    pub fn jobs(&self) -> Result<Vec<AcceptedJob>, SpoolError> {
        self.told((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(JOBS)?;
            table.iter()?.map(|entry| read_json(entry?.1.value())).collect()
        })())
    }

    /// The numbers of the messages to be delivered after this one, at most so many.
    pub fn pending_after(&self, number: u64, most: usize) -> Result<Vec<u64>, SpoolError> {
        self.told((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(PENDING)?;
            let range = (Bound::Excluded(number), Bound::Unbounded);
            table.range(range)?.take(most).map(|entry| Ok(entry?.0.value())).collect()
        })())
    }

    /// The message with this number.
    pub fn message(&self, number: u64) -> Result<Option<Message>, SpoolError> {
        self.told((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(MESSAGES)?;
            let record = table.get(number)?;
            record.map(|record| read_message(record.value()).map_err(corrupted)).transpose()
        })())
    }

    /// The bytes that wait for the broker.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Make these changes, all or none; tells the numbers that are pending again.
    ///
    /// After an error the store must be opened anew: what it knows by heart is then more than the
    /// file holds.
    pub fn write(&mut self, changes: &[Change]) -> Result<Vec<u64>, SpoolError> {
        let written = self.try_write(changes);
        self.told(written)
    }

    fn told<T>(&self, outcome: Effects<T>) -> Result<T, SpoolError> {
        outcome.map_err(|error| SpoolError::Io { path: self.path.clone(), error: error.to_string() })
    }
}

/// The job that a message answers on the usual topics, and which part of the answer it is: one of
/// its images, or its result.
pub(super) fn answered(message: &Message) -> Option<(&str, String)> {
    let user = |wanted: &str| {
        message.user_properties.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.as_str())
    };
    let kind = user("type").filter(|kind| matches!(*kind, "image" | "result"))?;
    let part = format!("{kind}/{}", user("index").unwrap_or(""));
    user("id").filter(|_| user("copy").is_none()).map(|id| (id, part))
}

enum Trouble {
    InUse,
    RejectedProvider(std::io::Error),
    Foreign(String),
}

impl Trouble {
    fn of(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            // A file that is none of redb's is told as one of these.
            redb::Error::Io(error)
                if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Self::RejectedProvider(error)
            }
            other => Self::Foreign(other.to_string()),
        }
    }

    fn at(self, path: &Path) -> SpoolError {
        let path = path.to_owned();
        match self {
            Self::InUse => SpoolError::InUse(path),
            Self::RejectedProvider(error) if error.kind() == ErrorKind::StorageFull => {
                SpoolError::Full { path, error }
            }
            Self::RejectedProvider(error) => SpoolError::Directory { path, error },
            Self::Foreign(error) => SpoolError::Io { path, error },
        }
    }
}

pub(super) fn corrupted(error: RecordError) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(record: &[u8]) -> Effects<T> {
    serde_json::from_slice(record).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

pub(super) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Strings, numbers and lists always have a form in JSON.
    serde_json::to_vec(value).unwrap_or_default()
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
