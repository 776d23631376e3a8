//! The spool: stores accepted jobs and outgoing messages on disk until the broker has them.
//!
//! One thread writes. It commits all pending changes in one transaction, and only then sends what
//! depends on them to the MQTT client: the acknowledgement of a request, or a message. The spool
//! knows messages and the bytes of requests; it does not know models.

pub(crate) mod atomic_file;
mod changes;
mod clock;
mod completed_jobs;
mod error;
pub(crate) mod former_names;
mod record;
mod retry_log;
mod store;
pub(crate) mod topic_root;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

pub use completed_jobs::{CompletedJob, CompletedJobs};
pub use error::SpoolError;
pub use record::{AcceptedJob, RecordError, ReplyTo, read_message, write_message};
pub use retry_log::RetryLog;
pub use store::{Change, CommandDigest, FILE_NAME, MAX_HANDLED_COMMANDS, STREAM, Store};

use crate::mqtt::Message;
use crate::mqtt::client::{AckToken, ClientCommand};
use writer::SpoolWriter;

/// Capacity of the command channel.
const COMMAND_QUEUE_LEN: usize = 256;
/// How long closing waits for pending commands to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the spool is, and how much it keeps.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// The directory.
    pub path: PathBuf,
    /// The size limit in bytes. Messages that the broker has not acknowledged may exceed it.
    pub max_bytes: u64,
    /// How long the answers of a completed job are kept, in seconds that the daemon runs; 0 keeps none.
    pub keep_s: u64,
}

/// Returns the files of a spool that exist in its directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let names = [FILE_NAME, former_names::CLIENT_IDS, former_names::SHARED_QUEUES, topic_root::FILE_NAME];
    names.map(|name| directory.join(name)).into_iter().filter(|file| file.exists()).collect()
}

/// A command to the spool.
#[derive(Debug)]
pub enum SpoolCommand {
    /// Write a change.
    Write(Change),
    /// Acknowledge a received message, after all changes before this command are committed.
    Ack(AckToken),
    /// Send a message that is not stored, because it is of no use later.
    Forward(Message),
}

/// The spool's thread has ended, so it accepts no more commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool has ended")]
pub struct SpoolClosed;

/// State that the handles and the thread share.
#[derive(Debug, Default)]
struct SpoolProgress {
    /// How many commands were sent.
    submitted: AtomicU64,
    /// How many commands were processed.
    processed: AtomicU64,
    /// The size of the messages that the broker has not acknowledged.
    pending_bytes: AtomicU64,
    /// Whether the thread must end instead of retrying a failed write.
    stop: AtomicBool,
}

/// Sends commands to the spool.
#[derive(Debug, Clone)]
pub struct SpoolSender {
    commands: mpsc::Sender<SpoolCommand>,
    shared: Arc<SpoolProgress>,
}

/// Capacity for one command.
#[derive(Debug)]
pub struct SpoolPermit<'a> {
    permit: mpsc::Permit<'a, SpoolCommand>,
    submitted: &'a AtomicU64,
}

impl SpoolSender {
    /// Waits for capacity for one command.
    pub async fn reserve(&self) -> Result<SpoolPermit<'_>, SpoolClosed> {
        let permit = self.commands.reserve().await.map_err(|_| SpoolClosed)?;
        Ok(SpoolPermit { permit, submitted: &self.shared.submitted })
    }

    /// Waits until the spool's thread has ended.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    /// Waits for capacity, and sends a command.
    pub async fn send(&self, command: SpoolCommand) -> Result<(), SpoolClosed> {
        self.reserve().await?.send(command);
        Ok(())
    }
}

impl SpoolPermit<'_> {
    /// Sends a command.
    pub fn send(self, command: SpoolCommand) {
        // Counted first: the spool must not appear settled while the command is in the channel.
        self.submitted.fetch_add(1, Ordering::Release);
        self.permit.send(command);
    }
}

/// A handle to the spool's thread.
#[derive(Debug)]
pub struct Spool {
    sender: SpoolSender,
    completed_jobs: CompletedJobs,
    handled_commands: Vec<CommandDigest>,
    values: BTreeMap<String, Vec<u8>>,
    max_bytes: u64,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Opens the spool, and starts to send its pending messages. Also returns the jobs that were
    /// accepted and not finished.
    pub fn open(
        settings: SpoolSettings,
        client: mpsc::Sender<ClientCommand>,
    ) -> Result<(Self, Vec<AcceptedJob>), SpoolError> {
        let completed_jobs = CompletedJobs::default();
        let store = Store::open(&settings, &completed_jobs)?;
        let (jobs, handled_commands, values) = (store.jobs()?, store.handled_commands()?, store.values()?);
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_LEN);
        let shared = Arc::new(SpoolProgress::default());
        shared.pending_bytes.store(store.pending_bytes(), Ordering::Relaxed);
        let (path, max_bytes) = (settings.path.clone(), settings.max_bytes);
        let writer = SpoolWriter::new(store, settings, completed_jobs.clone(), client, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run(receiver));
        let thread = thread.map_err(|error| SpoolError::Io { path, error: error.to_string() })?;
        let sender = SpoolSender { commands, shared };
        Ok((Self { sender, completed_jobs, handled_commands, values, max_bytes, thread: Some(thread) }, jobs))
    }

    /// Returns a sender of commands. The spool can only close once all senders are dropped.
    pub fn sender(&self) -> SpoolSender {
        self.sender.clone()
    }

    /// Returns a handle that looks up completed jobs.
    pub fn completed_jobs(&self) -> CompletedJobs {
        self.completed_jobs.clone()
    }

    /// Returns the commands that were handled before the spool was opened, oldest first.
    pub fn handled_commands(&self) -> &[CommandDigest] {
        &self.handled_commands
    }

    /// Returns the value with this name, as it was when the spool was opened.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// Returns how many commands were processed, in the order in which they were sent. The changes
    /// among them are committed.
    pub fn processed(&self) -> u64 {
        self.sender.shared.processed.load(Ordering::Acquire)
    }

    /// Returns whether every command was processed and no message is pending.
    pub fn is_settled(&self) -> bool {
        // A command is counted as submitted before it is counted as processed.
        let processed = self.processed();
        processed == self.sender.shared.submitted.load(Ordering::Acquire) && self.pending_bytes() == 0
    }

    /// Returns whether the pending messages are below the size limit.
    pub fn has_capacity(&self) -> bool {
        self.pending_bytes() < self.max_bytes
    }

    /// Returns the size of the messages that the broker has not acknowledged, in bytes.
    pub fn pending_bytes(&self) -> u64 {
        self.sender.shared.pending_bytes.load(Ordering::Relaxed)
    }

    /// Returns the panic message of the thread, once it has ended.
    pub fn panic_message(&mut self) -> String {
        let panic = self.thread.take().and_then(|thread| thread.join().err());
        panic.map_or_else(String::new, |panic| crate::panics::message(&*panic))
    }

    /// Writes the pending commands and ends the thread. Gives up after 10 s, for example if the disk
    /// is full.
    pub async fn close(self) {
        let Self { sender: SpoolSender { commands, shared }, thread, .. } = self;
        drop(commands);
        let ended = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
        if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
            log::error!(
                "timed out after {CLOSE_TIMEOUT:?} writing to the spool; the broker will send unacknowledged \
                 requests again"
            );
        }
    }
}

#[cfg(test)]
mod tests;
