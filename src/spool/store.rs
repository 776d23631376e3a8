//! The spool's file: accepted jobs, pending messages, and the answers of completed jobs.
//!
//! One transaction holds all changes of a batch, so that a crash leaves all of them or none.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::SpoolSettings;
use super::clock::SpoolClock;
use super::completed_jobs::CompletedJobs;
use super::error::{OpenError, SpoolError};
use super::former_names;
use super::record::{AcceptedJob, CompletedRecord, ReplyTo, read_json, read_message};
use super::topic_root;
use crate::mqtt::Message;

/// Accepted jobs by number.
pub(super) const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
/// Messages by number.
pub(super) const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
/// The numbers of the messages that the broker has not acknowledged.
pub(super) const PENDING: TableDefinition<'_, u64, ()> = TableDefinition::new("pending");
/// Completed jobs by id.
pub(super) const COMPLETED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("done");
/// The ids of completed jobs by the spool's time at which they finished, in seconds.
pub(super) const FINISHED_AT: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ages");
/// The digests of the latest commands that were handled, by number.
pub(super) const HANDLED: TableDefinition<'_, u64, u64> = TableDefinition::new("commands");
/// How many handled commands are remembered.
pub const MAX_HANDLED_COMMANDS: usize = 16_384;
/// The spool's time at the last commit, in seconds.
pub(super) const CLOCK: TableDefinition<'_, (), u64> = TableDefinition::new("clock");
/// Small values of other modules, by name.
pub(super) const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// The size of redb's page cache. Its default is 1 GiB; the operating system caches the file anyway.
const PAGE_CACHE_BYTES: usize = 256 << 10;
/// The name of the file in the spool's directory.
pub const FILE_NAME: &str = "spool.redb";

/// The user property of the messages of one picture of a stream. They are no answers, because a stream has any number of
/// them: they are removed once the broker has them.
pub const STREAM: &str = "stream";

/// Identifies a command by its content.
pub type CommandDigest = u64;

/// One change to the spool.
#[derive(Debug, Clone)]
pub enum Change {
    /// Stores an accepted job.
    Accept(AcceptedJob),
    /// Stores a message for delivery.
    Send(Message),
    /// Records that the broker acknowledged the message with this number.
    Delivered(u64),
    /// Completes a job. Its answers are the messages sent for it, except those to response topics.
    Finish {
        /// The job's id.
        id: String,
    },
    /// Removes a job that failed or was cancelled.
    Forget(String),
    /// Delivers a completed job's answers again, also to the requester's response topic.
    Redeliver {
        /// The job's id.
        id: String,
        /// The requester's response topic.
        reply: Option<ReplyTo>,
    },
    /// Remembers that a command was handled.
    Handled(CommandDigest),
    /// Stores a small value, or replaces it.
    SetValue {
        /// Its name.
        name: &'static str,
        /// The value.
        value: Vec<u8>,
    },
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    pub(super) database: Database,
    path: PathBuf,
    /// The number of the next job or message.
    pub(super) next_number: u64,
    /// The numbers of the accepted jobs, by id.
    pub(super) jobs: BTreeMap<String, u64>,
    /// For each accepted job, the numbers of its answers so far, by their kind and index.
    pub(super) answers: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) completed_jobs: CompletedJobs,
    /// The size of the messages that the broker has not acknowledged.
    pub(super) pending_bytes: u64,
    /// The size of the delivered messages that are kept as answers of completed jobs.
    pub(super) delivered_bytes: u64,
    pub(super) clock: SpoolClock,
    pub(super) keep_s: u64,
    pub(super) max_bytes: u64,
}

/// The result of a database operation.
pub(super) type DbResult<T> = Result<T, redb::Error>;

impl Store {
    /// Opens the spool of a directory, which is created if it does not exist. A file that is not a
    /// spool is renamed, and a new one is created. From then on, `completed_jobs` has the file's
    /// completed jobs.
    pub fn open(settings: &SpoolSettings, completed_jobs: &CompletedJobs) -> Result<Self, SpoolError> {
        let directory = &settings.path;
        std::fs::create_dir_all(directory)
            .map_err(|error| SpoolError::Directory { path: directory.clone(), error })?;
        let path = directory.join(FILE_NAME);
        match Self::open_or_create(&path, settings, completed_jobs) {
            Err(OpenError::Invalid(reason)) => {
                let renamed = unused_name(directory);
                log::error!(
                    "{} is not a valid spool ({reason}); renaming it to {} and creating a new one",
                    path.display(),
                    renamed.display()
                );
                std::fs::rename(&path, &renamed)
                    .map_err(|error| SpoolError::Directory { path: path.clone(), error })?;
                Self::open_or_create(&path, settings, completed_jobs)
            }
            result => result,
        }
        .map_err(|error| error.with_path(&path))
    }

    fn open_or_create(
        path: &Path,
        settings: &SpoolSettings,
        completed_jobs: &CompletedJobs,
    ) -> Result<Self, OpenError> {
        // redb takes an empty file for a new one.
        let is_empty = path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
        if is_empty && was_used(&settings.path) {
            return Err(OpenError::Invalid("it is empty".to_owned()));
        }
        let is_new = is_empty || !path.exists();
        let result = Self::open_file(path, settings, completed_jobs);
        if is_new && result.as_ref().is_err_and(OpenError::is_disk_full) {
            // An incomplete new file would be taken for an invalid one at the next attempt.
            let _ = std::fs::remove_file(path);
        }
        result
    }

    fn open_file(
        path: &Path,
        settings: &SpoolSettings,
        completed_jobs: &CompletedJobs,
    ) -> Result<Self, OpenError> {
        // redb panics on some damaged pages.
        crate::panics::caught(|| {
            let database = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path);
            let mut database = database.map_err(redb::Error::from)?;
            // The scan does not read every page, and a damaged one must not end the daemon later.
            if !database.check_integrity().map_err(redb::Error::from)? {
                log::warn!("{} was damaged and is repaired; its latest changes may be lost", path.display());
            }
            Ok(Self::from_database(database, path, settings, completed_jobs)?)
        })
        .unwrap_or_else(|panic| Err(OpenError::Invalid(format!("a page is damaged: {panic}"))))
    }

    pub(super) fn from_database(
        database: Database,
        path: &Path,
        settings: &SpoolSettings,
        completed_jobs: &CompletedJobs,
    ) -> DbResult<Self> {
        let mut store = Self {
            database,
            path: path.to_owned(),
            next_number: 1,
            jobs: BTreeMap::new(),
            answers: BTreeMap::new(),
            completed_jobs: completed_jobs.clone(),
            pending_bytes: 0,
            delivered_bytes: 0,
            clock: SpoolClock::resume(0),
            keep_s: settings.keep_s,
            max_bytes: settings.max_bytes,
        };
        store.scan()?;
        Ok(store)
    }

    /// Reads every record, to build the state in memory and to find corrupted records now.
    fn scan(&mut self) -> DbResult<()> {
        let completed_jobs = CompletedJobs::default();
        let write = self.database.begin_write()?;
        {
            let (jobs, messages) = (write.open_table(JOBS)?, write.open_table(MESSAGES)?);
            let (pending, completed) = (write.open_table(PENDING)?, write.open_table(COMPLETED)?);
            let mut finished_at = write.open_table(FINISHED_AT)?;
            let clock = write.open_table(CLOCK)?;
            for entry in messages.iter()? {
                let (number, record) = entry?;
                let message = read_message(record.value())?;
                let size = record.value().len() as u64;
                if pending.get(number.value())?.is_some() {
                    self.pending_bytes += size;
                } else {
                    self.delivered_bytes += size;
                }
                self.next_number = self.next_number.max(number.value() + 1);
                if let Some((id, part)) = answer_part(&message) {
                    self.answers.entry(id.to_owned()).or_default().insert(part, number.value());
                }
            }
            for entry in jobs.iter()? {
                let (number, record) = entry?;
                let job: AcceptedJob = read_json(record.value())?;
                self.answers.entry(job.id.clone()).or_default();
                self.jobs.insert(job.id, number.value());
                self.next_number = self.next_number.max(number.value() + 1);
            }
            for entry in completed.iter()? {
                let (id, record) = entry?;
                let job: CompletedRecord = read_json(record.value())?;
                self.answers.remove(id.value());
                finished_at.insert((job.at, id.value()), ())?;
                completed_jobs.insert(id.value(), &job.digest);
            }
            write.open_table(VALUES)?;
            let handled = write.open_table(HANDLED)?;
            let last = handled.last()?.map_or(0, |(number, _)| number.value());
            self.next_number = self.next_number.max(last + 1);
            let last_commit = clock.get(())?.map_or(0, |time| time.value());
            let newest = finished_at.last()?.map_or(0, |(key, _)| key.value().0);
            self.clock = SpoolClock::resume(last_commit.max(newest));
        }
        write.commit()?;
        self.completed_jobs.replace(&completed_jobs);
        let jobs = &self.jobs;
        self.answers.retain(|id, _| jobs.contains_key(id));
        Ok(())
    }

    /// Assigns only numbers above `number` from now on.
    pub(super) fn skip_numbers_through(&mut self, number: u64) {
        self.next_number = self.next_number.max(number + 1);
    }

    /// Returns the accepted jobs that are not finished, oldest first.
    pub fn jobs(&self) -> Result<Vec<AcceptedJob>, SpoolError> {
        self.with_path((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(JOBS)?;
            table.iter()?.map(|entry| Ok(read_json(entry?.1.value())?)).collect()
        })())
    }

    /// Returns the commands that were handled, oldest first.
    pub fn handled_commands(&self) -> Result<Vec<CommandDigest>, SpoolError> {
        self.with_path((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(HANDLED)?;
            table.iter()?.map(|entry| Ok(entry?.1.value())).collect()
        })())
    }

    /// Returns the small values, by name.
    pub fn values(&self) -> Result<BTreeMap<String, Vec<u8>>, SpoolError> {
        self.with_path((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(VALUES)?;
            let owned = |(name, value): (redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>)| {
                (name.value().to_owned(), value.value().to_vec())
            };
            table.iter()?.map(|entry| Ok(owned(entry?))).collect()
        })())
    }

    /// Returns the numbers of at most `limit` pending messages after `number`.
    pub fn pending_after(&self, number: u64, limit: usize) -> Result<Vec<u64>, SpoolError> {
        self.with_path((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(PENDING)?;
            let range = (Bound::Excluded(number), Bound::Unbounded);
            table.range(range)?.take(limit).map(|entry| Ok(entry?.0.value())).collect()
        })())
    }

    /// Returns the message with this number.
    pub fn message(&self, number: u64) -> Result<Option<Message>, SpoolError> {
        self.with_path((|| {
            let read = self.database.begin_read()?;
            let table = read.open_table(MESSAGES)?;
            let record = table.get(number)?;
            Ok(record.map(|record| read_message(record.value())).transpose()?)
        })())
    }

    /// Returns the size of the messages that the broker has not acknowledged, in bytes.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Commits all changes in one transaction. Returns the numbers of the messages to be delivered
    /// again.
    ///
    /// After an error the store must be dropped and opened again, because its state in memory may
    /// contain changes that the file does not.
    pub fn write(&mut self, changes: &[Change]) -> Result<Vec<u64>, SpoolError> {
        let result = self.try_write(changes);
        self.with_path(result)
    }

    fn with_path<T>(&self, result: DbResult<T>) -> Result<T, SpoolError> {
        result.map_err(|error| SpoolError::Io { path: self.path.clone(), error: error.to_string() })
    }
}

/// Returns the id of the job that a message answers, and which part of the answer it is: one of the
/// images, or the result. Returns `None` for other messages, for copies to response topics and for pictures of a stream.
pub(super) fn answer_part(message: &Message) -> Option<(&str, String)> {
    let property = |wanted: &str| {
        message.user_properties.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let kind = property("type").filter(|kind| matches!(*kind, "image" | "result"))?;
    let part = format!("{kind}/{}", property("index").unwrap_or(""));
    let is_answer = property("copy").is_none() && property(STREAM).is_none();
    property("id").filter(|_| is_answer).map(|id| (id, part))
}

/// Returns whether a daemon has started with the spool of this directory.
fn was_used(directory: &Path) -> bool {
    [former_names::CLIENT_IDS, topic_root::FILE_NAME].iter().any(|name| directory.join(name).exists())
}

/// Returns a path for an invalid spool that no earlier one has.
fn unused_name(directory: &Path) -> PathBuf {
    let mut number = 1_u64;
    loop {
        let path = directory.join(format!("{FILE_NAME}.set-aside-{number}"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}
