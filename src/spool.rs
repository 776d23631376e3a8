//! The spool: what must not be lost stands here on disk until the broker has it.
//!
//! A thread of its own writes; whatever waits for it goes into one transaction, and only what is
//! written is passed on to the link: an acknowledgement of a request after the request, a message
//! after itself. It knows messages and the bytes of requests, and nothing of models.

mod changes;
mod completed_jobs;
mod record;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

pub use completed_jobs::CompletedJobs;
pub use record::{AcceptedJob, RecordError, ReplyTo, read_message, write_message};
pub use store::{Change, SpoolError, Store};

use crate::mqtt::Message;
use crate::mqtt::client::{AckToken, ClientCommand};

/// Messages that the link holds in memory at once; the rest waits on disk.
const AHEAD: usize = 64;
/// The bytes of those, about.
const AHEAD_BYTES: usize = 16 << 20;
/// What one transaction holds at most.
const BATCH: usize = 256;
/// How long to wait before a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How the spool is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its directory.
    pub path: PathBuf,
    /// The most bytes.
    pub max_bytes: u64,
    /// For how long a finished job's answers are kept, in seconds; 0: not at all.
    pub keep_s: u64,
    /// Where finished jobs are told.
    pub ledger: CompletedJobs,
}

impl Settings {
    fn open(&self) -> Result<Store, SpoolError> {
        Store::open(&self.path, self.max_bytes, self.keep_s, &self.ledger)
    }
}

/// What the spool is told.
#[derive(Debug)]
pub enum Order {
    /// Make a change, and go on to what follows from it.
    Change(Change),
    /// Acknowledge a message that came in, once all that was ordered before is on disk.
    Acknowledge(AckToken),
    /// Pass a message on that is not kept: of no use later, or replaced by the next.
    Pass(Message),
}

/// The service's end of the spool.
#[derive(Debug)]
pub struct Spool {
    /// What it is told; every order counts in [`Spool::told`].
    pub orders: mpsc::Sender<Order>,
    told: u64,
    carried_out: Arc<AtomicU64>,
    pending_bytes: Arc<AtomicU64>,
    max_bytes: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Open the spool, and begin to pass on what it holds; also the jobs that are still to be done.
    pub fn open(
        settings: Settings,
        link: mpsc::Sender<ClientCommand>,
    ) -> Result<(Self, Vec<AcceptedJob>), SpoolError> {
        let store = settings.open()?;
        let jobs = store.jobs()?;
        let (orders, ordered) = mpsc::channel(BATCH);
        let pending_bytes = Arc::new(AtomicU64::new(store.pending_bytes()));
        let stop = Arc::new(AtomicBool::new(false));
        let carried_out = Arc::new(AtomicU64::new(0));
        let max_bytes = settings.max_bytes;
        let keeper = SpoolWriter {
            store: Some(store),
            settings,
            link,
            ahead: BTreeMap::new(),
            again: VecDeque::new(),
            last: 0,
            pending_bytes: Arc::clone(&pending_bytes),
            carried_out: Arc::clone(&carried_out),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || keeper.run(ordered));
        let thread =
            thread.map_err(|error| SpoolError::Io { path: PathBuf::new(), error: error.to_string() })?;
        Ok((
            Self { orders, told: 0, carried_out, pending_bytes, max_bytes, stop, thread: Some(thread) },
            jobs,
        ))
    }

    /// One more order was given.
    pub fn told(&mut self) {
        self.told += 1;
    }

    /// The number of orders that were carried out.
    pub fn carried_out(&self) -> u64 {
        self.carried_out.load(Ordering::Acquire)
    }

    /// Whether every order was carried out and nothing waits for the broker.
    pub fn is_settled(&self) -> bool {
        self.carried_out.load(Ordering::Acquire) == self.told && self.pending_bytes() == 0
    }

    /// Whether more may wait for the broker.
    pub fn has_room(&self) -> bool {
        self.pending_bytes() < self.max_bytes
    }

    /// The bytes that wait for the broker.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Write what was ordered, and end; a disk that is full is waited for no longer.
    pub async fn close(self) {
        let Self { orders, stop, thread, .. } = self;
        drop(orders);
        let ended = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
        if tokio::time::timeout(Duration::from_secs(10), ended).await.is_err() {
            stop.store(true, Ordering::Relaxed);
            log::error!("the spool could not be written to the end; what was not acknowledged comes again");
        }
    }
}

/// The thread's state.
struct SpoolWriter {
    /// Missing only between a failed write and the next try.
    store: Option<Store>,
    settings: Settings,
    link: mpsc::Sender<ClientCommand>,
    /// The sizes of the messages that the link holds, by number.
    ahead: BTreeMap<u64, usize>,
    /// Older messages that are to be delivered again.
    again: VecDeque<u64>,
    /// The newest message that was passed on.
    last: u64,
    pending_bytes: Arc<AtomicU64>,
    carried_out: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl SpoolWriter {
    fn run(mut self, mut ordered: mpsc::Receiver<Order>) {
        self.pass_on();
        let mut batch = Vec::with_capacity(BATCH);
        while ordered.blocking_recv_many(&mut batch, BATCH) > 0 {
            let count = batch.len() as u64;
            let (mut changes, mut follow) = (Vec::new(), Vec::new());
            for order in batch.drain(..) {
                match order {
                    Order::Change(change) => {
                        if let Change::Delivered(number) = change {
                            self.ahead.remove(&number);
                        }
                        changes.push(change);
                    }
                    other => follow.push(other),
                }
            }
            if !changes.is_empty() && !self.write(&changes) {
                return;
            }
            follow.into_iter().for_each(|order| self.follow(order));
            self.pass_on();
            self.carried_out.fetch_add(count, Ordering::Release);
        }
    }

    /// Write, as often as it takes; false where the daemon stops first.
    fn write(&mut self, changes: &[Change]) -> bool {
        loop {
            match self.opened().and_then(|store| Ok((store.write(changes)?, store.pending_bytes()))) {
                Ok((again, bytes)) => {
                    self.again.extend(again);
                    self.pending_bytes.store(bytes, Ordering::Relaxed);
                    return true;
                }
                Err(error) => {
                    log::error!("the spool can't be written, nothing goes on until it can: {error}");
                    // After a failed write the file tells what is true.
                    self.store = None;
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn opened(&mut self) -> Result<&mut Store, SpoolError> {
        match &mut self.store {
            Some(store) => Ok(store),
            closed => Ok(closed.insert(self.settings.open()?)),
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Acknowledge(receipt) => self.ask(ClientCommand::Acknowledge(receipt)),
            Order::Pass(message) => self.ask(ClientCommand::Send { message, number: None }),
            Order::Change(_) => {}
        }
    }

    /// Hand the link the next messages, while it holds few.
    fn pass_on(&mut self) {
        while self.ahead.len() < AHEAD && self.ahead.values().sum::<usize>() < AHEAD_BYTES {
            let Some(number) = self.next_number() else { return };
            let message = self.store.as_ref().and_then(|store| store.message(number).ok().flatten());
            let Some(message) = message else { continue };
            self.ahead.insert(number, message.packet_size());
            self.ask(ClientCommand::Send { message, number: Some(number) });
        }
    }

    fn next_number(&mut self) -> Option<u64> {
        while let Some(number) = self.again.pop_front() {
            if number <= self.last && !self.ahead.contains_key(&number) {
                return Some(number);
            }
        }
        let next = self.store.as_ref()?.pending_after(self.last, 1).ok()?.first().copied()?;
        self.last = next;
        Some(next)
    }

    fn ask(&self, ask: ClientCommand) {
        // A link that has ended asks for nothing more; the spool keeps what it did not deliver.
        let _ = self.link.blocking_send(ask);
    }
}
