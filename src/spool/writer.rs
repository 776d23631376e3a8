//! The spool's thread: writes changes, then sends what depends on them to the MQTT client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::completed_jobs::CompletedJobs;
use super::error::SpoolError;
use super::store::{Change, Store};
use super::{Shared, SpoolCommand, SpoolSettings};
use crate::mqtt::client::ClientCommand;

/// The most stored messages that the MQTT client holds; the others stay on disk.
const MAX_IN_FLIGHT: usize = 64;
/// About the most bytes of those messages.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// The most commands of one transaction.
const MAX_BATCH: usize = 256;
/// The delay before a failed write is retried.
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) struct SpoolWriter {
    /// `None` between an error and the next attempt.
    store: Option<Store>,
    settings: SpoolSettings,
    completed_jobs: CompletedJobs,
    client: mpsc::Sender<ClientCommand>,
    shared: Arc<Shared>,
    /// The sizes of the messages that the client holds, by number.
    in_flight: BTreeMap<u64, usize>,
    /// Numbers up to `last_sent` that are to be delivered again.
    redeliver: VecDeque<u64>,
    /// The highest number that was sent.
    last_sent: u64,
}

impl SpoolWriter {
    pub(super) fn new(
        store: Store,
        settings: SpoolSettings,
        completed_jobs: CompletedJobs,
        client: mpsc::Sender<ClientCommand>,
        shared: Arc<Shared>,
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
        }
    }

    /// Processes commands until all senders are dropped, or until [`Shared::stop`] is set during an
    /// error.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<SpoolCommand>) {
        self.refill_window();
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
            self.refill_window();
            self.shared.processed.fetch_add(count, Ordering::Release);
        }
    }

    /// Writes the changes, and retries until it succeeds. Returns `false` if the thread must end.
    fn write(&mut self, changes: &[Change]) -> bool {
        loop {
            match self.open_store().and_then(|store| Ok((store.write(changes)?, store.pending_bytes()))) {
                Ok((redeliver, pending_bytes)) => {
                    self.redeliver.extend(redeliver);
                    self.shared.pending_bytes.store(pending_bytes, Ordering::Relaxed);
                    return true;
                }
                Err(error) => {
                    log::error!("cannot write to the spool, retrying until it succeeds: {error}");
                    // After an error only the file is valid, not the store's state in memory.
                    self.store = None;
                }
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(WRITE_RETRY_DELAY);
        }
    }

    fn open_store(&mut self) -> Result<&mut Store, SpoolError> {
        match &mut self.store {
            Some(store) => Ok(store),
            closed => Ok(closed.insert(Store::open(&self.settings, &self.completed_jobs)?)),
        }
    }

    /// Sends pending messages until the client holds as many as it may.
    fn refill_window(&mut self) {
        while self.in_flight.len() < MAX_IN_FLIGHT
            && self.in_flight.values().sum::<usize>() < MAX_IN_FLIGHT_BYTES
        {
            let Some(number) = self.next_number() else { return };
            let message = self.store.as_ref().and_then(|store| store.message(number).ok().flatten());
            let Some(message) = message else { continue };
            self.in_flight.insert(number, message.packet_size());
            self.send(ClientCommand::Send { message, number: Some(number) });
        }
    }

    fn next_number(&mut self) -> Option<u64> {
        while let Some(number) = self.redeliver.pop_front() {
            if number <= self.last_sent && !self.in_flight.contains_key(&number) {
                return Some(number);
            }
        }
        let next = self.store.as_ref()?.pending_after(self.last_sent, 1).ok()?.first().copied()?;
        self.last_sent = next;
        Some(next)
    }

    fn send(&self, command: ClientCommand) {
        // If the client has ended, undelivered messages stay in the spool for the next start.
        let _ = self.client.blocking_send(command);
    }
}
