//! The spool's thread: writes changes, then sends what depends on them to the MQTT client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::completed_jobs::CompletedJobs;
use super::error::SpoolError;
use super::retry_log::RetryLog;
use super::store::{Change, Store};
use super::{SpoolCommand, SpoolProgress, SpoolSettings};
use crate::mqtt::Message;
use crate::mqtt::client::ClientCommand;

/// Maximum number of stored messages that the MQTT client holds; the others stay on disk.
const MAX_IN_FLIGHT: usize = 64;
/// Approximate maximum size of those messages, in bytes.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Maximum number of commands in one transaction.
const MAX_BATCH: usize = 256;
/// The delay before the spool is opened again after a read or write error.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) struct SpoolWriter {
    /// `None` between an error and the next attempt.
    store: Option<Store>,
    settings: SpoolSettings,
    completed_jobs: CompletedJobs,
    client: mpsc::Sender<ClientCommand>,
    shared: Arc<SpoolProgress>,
    /// The sizes of the messages that the client holds, by number.
    in_flight: BTreeMap<u64, usize>,
    /// Numbers up to `last_sent` that must be delivered again.
    redeliver: VecDeque<u64>,
    /// The highest number that was sent.
    last_sent: u64,
    errors: RetryLog,
}

impl SpoolWriter {
    pub(super) fn new(
        store: Store,
        settings: SpoolSettings,
        completed_jobs: CompletedJobs,
        client: mpsc::Sender<ClientCommand>,
        shared: Arc<SpoolProgress>,
    ) -> Self {
        Self {
            store: Some(store),
            settings,
            completed_jobs,
            client,
            shared,
            in_flight: BTreeMap::new(),
            redeliver: VecDeque::new(),
            last_sent: 0,
            errors: RetryLog::default(),
        }
    }

    /// Processes commands until all senders are dropped, or until [`SpoolProgress::stop`] is set during an
    /// error.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<SpoolCommand>) {
        if !self.refill_window() {
            return;
        }
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while commands.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let count = batch.len() as u64;
            let mut changes = Vec::new();
            let mut after_commit = Vec::new();
            for command in batch.drain(..) {
                match command {
                    SpoolCommand::Write(change) => {
                        if let Change::Delivered(number) = change {
                            self.in_flight.remove(&number);
                        }
                        changes.push(change);
                    }
                    SpoolCommand::Ack(ack) => after_commit.push(ClientCommand::Ack(ack)),
                    SpoolCommand::Forward(message) => {
                        after_commit.push(ClientCommand::Send { message, number: None });
                    }
                }
            }
            if !changes.is_empty() && !self.write(&changes) {
                return;
            }
            after_commit.into_iter().for_each(|command| self.send(command));
            if !self.refill_window() {
                return;
            }
            self.shared.processed.fetch_add(count, Ordering::Release);
        }
        // Stores the spool's time, so that the answers age even if nothing else was written since the last start.
        if let Some(Err(error)) = self.store.as_mut().map(|store| store.write(&[])) {
            log::warn!("cannot store the spool's time: {error}");
        }
    }

    /// Writes the changes, and retries until it succeeds. Returns `false` if the thread must end.
    fn write(&mut self, changes: &[Change]) -> bool {
        loop {
            match self.open_store().and_then(|store| Ok((store.write(changes)?, store.pending_bytes()))) {
                Ok((redeliver, pending_bytes)) => {
                    if self.errors.succeeded() {
                        log::info!("the spool can be written to again");
                    }
                    self.redeliver.extend(redeliver);
                    self.shared.pending_bytes.store(pending_bytes, Ordering::Relaxed);
                    return true;
                }
                Err(error) => {
                    if !self.retries_after(&error, "write to") {
                        return false;
                    }
                }
            }
        }
    }

    /// Handles an error of the store, and waits before the next attempt. Returns `false` if the
    /// thread must end.
    fn retries_after(&mut self, error: &SpoolError, operation: &str) -> bool {
        if self.errors.is_due(Instant::now()) {
            log::error!("cannot {operation} the spool, retrying until it succeeds: {error}");
        }
        // After an error only the file is valid, not the store's state in memory.
        self.store = None;
        if self.shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(RETRY_DELAY);
        true
    }

    fn open_store(&mut self) -> Result<&mut Store, SpoolError> {
        match &mut self.store {
            Some(store) => Ok(store),
            closed => {
                let mut store = Store::open(&self.settings, &self.completed_jobs)?;
                // If the file is empty now, it would reuse numbers that were already sent.
                store.skip_numbers_through(self.last_sent);
                self.shared.pending_bytes.store(store.pending_bytes(), Ordering::Relaxed);
                Ok(closed.insert(store))
            }
        }
    }

    /// Sends pending messages until the client holds as many as it may, and retries until the spool
    /// can be read. Returns `false` if the thread must end.
    fn refill_window(&mut self) -> bool {
        while self.in_flight.len() < MAX_IN_FLIGHT
            && self.in_flight.values().sum::<usize>() < MAX_IN_FLIGHT_BYTES
        {
            match self.next_message() {
                Ok(Some((number, message))) => {
                    self.in_flight.insert(number, message.packet_size());
                    self.send(ClientCommand::Send { message, number: Some(number) });
                }
                Ok(None) => return true,
                Err(error) => {
                    if !self.retries_after(&error, "read") {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn next_message(&mut self) -> Result<Option<(u64, Message)>, SpoolError> {
        while let Some(number) = self.next_number()? {
            let message = self.open_store()?.message(number)?;
            // The number is consumed after the read, so that a read error does not skip the message.
            if self.redeliver.front() == Some(&number) {
                self.redeliver.pop_front();
            } else {
                self.last_sent = number;
            }
            if let Some(message) = message {
                return Ok(Some((number, message)));
            }
        }
        Ok(None)
    }

    /// Returns the number of the next message without consuming it; redeliveries come first.
    fn next_number(&mut self) -> Result<Option<u64>, SpoolError> {
        while let Some(&number) = self.redeliver.front() {
            if number <= self.last_sent && !self.in_flight.contains_key(&number) {
                return Ok(Some(number));
            }
            self.redeliver.pop_front();
        }
        let last_sent = self.last_sent;
        Ok(self.open_store()?.pending_after(last_sent, 1)?.first().copied())
    }

    fn send(&self, command: ClientCommand) {
        // If the client has ended, undelivered messages stay in the spool for the next start.
        let _ = self.client.blocking_send(command);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicBool;

    use super::super::tests::settings;
    use super::*;

    /// The size of a message that redb stores in a page larger than those of the pending numbers.
    const LARGE: usize = 100_000;

    /// A file of which the reads of large messages fail while `fails` is set.
    #[derive(Debug)]
    struct FaultyFile {
        file: File,
        fails: Arc<AtomicBool>,
    }

    impl redb::StorageBackend for FaultyFile {
        fn len(&self) -> std::io::Result<u64> {
            Ok(self.file.metadata()?.len())
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            if out.len() > LARGE && self.fails.load(Ordering::Relaxed) {
                return Err(std::io::Error::other("the disk does not answer"));
            }
            self.file.read_exact_at(out, offset)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.file.write_all_at(data, offset)
        }
    }

    fn send(payload_size: usize) -> Change {
        Change::Send(Message::new("t".to_owned(), vec![7; payload_size]))
    }

    /// Returns the number and the payload's size of the next message that was sent.
    fn sent(received: &mut mpsc::Receiver<ClientCommand>) -> Option<(u64, usize)> {
        match received.try_recv().ok()? {
            ClientCommand::Send { message, number } => Some((number.unwrap(), message.payload.len())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_read_error_delayed_a_message_until_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (settings, completed_jobs) = (settings(directory.path(), 0), CompletedJobs::default());
        let mut store = Store::open(&settings, &completed_jobs).unwrap();
        store.write(&[send(LARGE), send(8)]).unwrap();
        drop(store);
        let path = directory.path().join("spool.redb");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let backend = FaultyFile { file, fails: Arc::clone(&fails) };
        let database = redb::Database::builder().set_cache_size(0).create_with_backend(backend).unwrap();
        let store = Store::from_database(database, &path, &settings, &completed_jobs).unwrap();
        let (client, mut received) = mpsc::channel(8);
        let mut writer = SpoolWriter::new(store, settings, completed_jobs, client, Arc::default());
        fails.store(true, Ordering::Relaxed);
        // The writer opens the file itself after the error, without the faulty backend.
        let started = Instant::now();
        assert!(writer.refill_window());
        assert!(started.elapsed() >= RETRY_DELAY, "no read failed");
        assert_eq!(sent(&mut received), Some((1, LARGE)));
        assert_eq!(sent(&mut received), Some((2, 8)));
        assert_eq!(sent(&mut received), None);
    }

    #[test]
    fn messages_after_a_write_error_were_not_sent_if_all_earlier_ones_were_delivered() {
        let directory = tempfile::tempdir().unwrap();
        let (settings, completed_jobs) = (settings(directory.path(), 0), CompletedJobs::default());
        let store = Store::open(&settings, &completed_jobs).unwrap();
        let (client, mut received) = mpsc::channel(8);
        let mut writer = SpoolWriter::new(store, settings, completed_jobs, client, Arc::default());
        assert!(writer.write(&[send(1)]) && writer.refill_window());
        assert_eq!(sent(&mut received), Some((1, 1)));
        writer.in_flight.remove(&1);
        assert!(writer.write(&[Change::Delivered(1)]));
        // After an error the file is opened again; nothing in it uses a number.
        writer.store = None;
        assert!(writer.write(&[send(2)]) && writer.refill_window());
        assert_eq!(sent(&mut received), Some((2, 2)));
    }
}
