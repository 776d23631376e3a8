//! An LRU pool of inference sessions under a memory budget.
//!
//! A session is opened when it is first used. If the budget does not allow another open session, idle sessions are evicted,
//! the least recently used first. Callers that need memory of a session in use wait, and are served in order. A session
//! counts with what its [`SessionMemory`] knows: its weights, its arena, and the evaluation that it runs.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::{EngineError, EvaluationError};
use super::memory::{EvaluationSize, SessionMemory};
use super::session::Session;

/// The name of a pooled session and the memory that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSize {
    /// The name of the model, followed by a slash and the component's name for a session other than the denoiser's.
    pub name: String,
    /// The memory of its weights in bytes, as estimated from the files.
    pub bytes: u64,
}

/// Opens a session.
type Open = Box<dyn FnMut() -> Result<Box<dyn Session>, EngineError> + Send>;

/// The pool, shared by all models. A handle is that of one model.
#[derive(Clone, Default)]
pub struct SessionPool {
    shared: Arc<SharedSlots>,
    /// The number of the model, which its sessions have.
    model: u64,
}

#[derive(Default)]
struct SharedSlots {
    slots: Mutex<Slots>,
    /// Notified when a session is returned.
    returned: Condvar,
}

impl std::fmt::Debug for SessionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionPool").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Slots {
    budget: Option<u64>,
    /// A slot becomes `None` when its [`PooledSession`] is dropped.
    slots: Vec<Option<Slot>>,
    clock: u64,
    /// The requests that wait, by the clock.
    queue: VecDeque<u64>,
    /// How many sessions are in use or being opened.
    in_use: usize,
    /// How often a session was taken into use.
    uses: u64,
    /// The number of the newest model.
    models: u64,
}

struct Slot {
    name: String,
    /// The number of the model.
    model: u64,
    memory: Arc<SessionMemory>,
    /// The memory that the present use needs, in bytes.
    reserved: u64,
    last_used: u64,
    /// `None` while the session is in use.
    session: Option<ReopenableSession>,
}

struct ReopenableSession {
    open: Open,
    session: Option<Box<dyn Session>>,
}

impl Slot {
    fn is_in_use(&self) -> bool {
        self.session.is_none()
    }

    /// Whether the session is open. A session in use counts as open.
    fn takes_memory(&self) -> bool {
        self.session.as_ref().is_none_or(|reopenable| reopenable.session.is_some())
    }

    /// The memory of the open session in bytes.
    fn bytes(&self) -> u64 {
        self.memory.held().max(self.reserved)
    }

    fn is_evictable(&self) -> bool {
        self.session.as_ref().is_some_and(|reopenable| reopenable.session.is_some())
    }

    fn evict(&mut self) {
        log::info!("evicted session {} (memory limit)", self.name);
        self.close();
    }

    fn close(&mut self) {
        if let Some(reopenable) = &mut self.session {
            reopenable.session = None;
        }
        self.memory.set_closed();
    }
}

/// A session in the pool. Dropping it removes the session.
pub(crate) struct PooledSession {
    pool: SessionPool,
    slot: usize,
    memory: Arc<SessionMemory>,
}

impl SessionPool {
    /// A pool with a budget in bytes, or without a limit.
    pub fn with_budget(budget: Option<u64>) -> Self {
        let slots = Mutex::new(Slots { budget, ..Slots::default() });
        Self { shared: Arc::new(SharedSlots { slots, returned: Condvar::new() }), model: 0 }
    }

    /// A handle of the same pool for a model that has no sessions yet. Two models may have the same name.
    pub(crate) fn for_new_model(&self) -> Self {
        let mut slots = self.lock();
        slots.models += 1;
        Self { shared: Arc::clone(&self.shared), model: slots.models }
    }

    /// Adds a session that is not open.
    pub(crate) fn insert(&self, name: String, memory: Arc<SessionMemory>, open: Open) -> PooledSession {
        let mut slots = self.lock();
        let last_used = slots.tick();
        let session = Some(ReopenableSession { open, session: None });
        let own = Arc::clone(&memory);
        let new = Some(Slot { name, model: self.model, memory, reserved: 0, last_used, session });
        // Models come and go, and their slots are used again.
        let slot = match slots.slots.iter().position(Option::is_none) {
            Some(free) => {
                slots.slots[free] = new;
                free
            }
            None => {
                slots.slots.push(new);
                slots.slots.len() - 1
            }
        };
        drop(slots);
        PooledSession { pool: self.clone(), slot, memory: own }
    }

    /// The memory that open sessions hold, in bytes. All of it may be had for another session.
    pub(crate) fn held(&self) -> u64 {
        self.lock().slots.iter().flatten().filter(|slot| slot.takes_memory()).map(Slot::bytes).sum()
    }

    /// The sessions of this model.
    pub(crate) fn sizes(&self) -> Vec<SessionSize> {
        let slots = self.lock();
        let size = |slot: &Slot| SessionSize { name: slot.name.clone(), bytes: slot.memory.weights() };
        slots.of_model(self.model).map(size).collect()
    }

    /// Closes the sessions of this model that are not in use. The next use of each opens it again.
    pub(crate) fn close_model(&self) {
        let mut slots = self.lock();
        let own = slots.slots.iter_mut().flatten().filter(|slot| slot.model == self.model);
        own.filter(|slot| slot.is_evictable()).for_each(Slot::close);
        drop(slots);
        self.shared.returned.notify_all();
    }

    /// Whether the budget allows the denoiser of this model, which has its name, and any one of its other sessions at the
    /// same time.
    pub(crate) fn fits_denoiser_and_another(&self, name: &str) -> bool {
        let slots = self.lock();
        let Some(budget) = slots.budget else { return true };
        let own = slots.of_model(self.model);
        let (denoiser, others): (Vec<_>, Vec<_>) = own.partition(|slot| slot.name == name);
        let denoiser: u64 = denoiser.iter().map(|slot| slot.memory.held()).sum();
        others.iter().all(|other| denoiser + other.memory.held() <= budget)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The sessions of the model with this number.
    fn of_model(&self, model: u64) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten().filter(move |slot| slot.model == model)
    }

    /// Counts a use, and returns its number.
    fn begin_use(&mut self) -> u64 {
        self.in_use += 1;
        self.uses += 1;
        self.uses
    }

    /// Whether the use with this number is the only one, and the newest.
    fn is_alone(&self, use_number: u64) -> bool {
        self.in_use == 1 && self.uses == use_number
    }

    /// Evicts least-recently-used idle sessions, never `exclude`, until `additional` bytes fit in the budget. Returns
    /// `false` if that requires a session that is in use.
    fn evict_until_fits(&mut self, additional: u64, exclude: usize) -> bool {
        let Some(budget) = self.budget else { return true };
        loop {
            let open = self.slots.iter().flatten().filter(|slot| slot.takes_memory());
            if open.map(Slot::bytes).sum::<u64>() + additional <= budget {
                return true;
            }
            let others = self.slots.iter_mut().enumerate().filter(|(slot, _)| *slot != exclude);
            let others = others.filter_map(|(_, slot)| slot.as_mut());
            match others.filter(|slot| slot.is_evictable()).min_by_key(|slot| slot.last_used) {
                Some(oldest) => oldest.evict(),
                None => return !self.slots.iter().flatten().any(Slot::is_in_use),
            }
        }
    }

    /// Whether the request made at the time `requested` may take the session now, for an evaluation of this size.
    fn is_available(&mut self, slot: usize, requested: u64, size: Option<EvaluationSize>) -> bool {
        let Some(own) = self.slots[slot].as_ref() else { return true };
        let needed = size.map_or(0, |size| own.memory.required(size));
        let additional = if own.takes_memory() {
            needed.saturating_sub(own.bytes())
        } else {
            needed.max(own.memory.opening())
        };
        let is_next = self.queue.front().is_none_or(|first| *first >= requested);
        !own.is_in_use() && is_next && (additional == 0 || self.evict_until_fits(additional, slot))
    }
}

impl PooledSession {
    /// Whether the session takes memory: it is open, or in use.
    pub(crate) fn is_open(&self) -> bool {
        self.pool.lock().slots[self.slot].as_ref().is_some_and(Slot::takes_memory)
    }

    /// Closes the session unless it is in use. The next use opens it again.
    pub(crate) fn close(&self) {
        if let Some(slot) = self.pool.lock().slots[self.slot].as_mut().filter(|slot| slot.is_evictable()) {
            slot.close();
        }
        self.pool.shared.returned.notify_all();
    }

    /// Calls `work` with the session, which is opened first if it is not open.
    pub(crate) fn with_session<R>(
        &self,
        work: impl FnOnce(&mut dyn Session) -> R,
    ) -> Result<R, EvaluationError> {
        let mut guard = self.acquire(None).ok_or(EvaluationError::Closed)?;
        Ok(work(guard.open()?))
    }

    /// Calls `evaluate` with the session, which is opened first if it is not open, once the budget has room for an
    /// evaluation of this size.
    pub(crate) fn evaluate<T>(
        &self,
        size: EvaluationSize,
        evaluate: impl FnOnce(&mut dyn Session) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let mut guard = self.acquire(Some(size)).ok_or(EvaluationError::Closed)?;
        let use_number = guard.use_number;
        let session = guard.open()?;
        let is_alone = || self.pool.lock().is_alone(use_number);
        self.memory.measure_evaluation(size, is_alone, || evaluate(session))
    }

    /// What is known of the session's memory.
    pub(crate) fn memory(&self) -> &Arc<SessionMemory> {
        &self.memory
    }

    /// Waits until the session is idle and fits in the budget, and takes it out of its slot.
    fn acquire(&self, size: Option<EvaluationSize>) -> Option<SessionGuard<'_>> {
        let mut slots = self.pool.lock();
        let requested = slots.tick();
        while !slots.is_available(self.slot, requested, size) {
            if !slots.queue.contains(&requested) {
                slots.queue.push_back(requested);
            }
            slots = self.pool.shared.returned.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        if slots.queue.contains(&requested) {
            slots.queue.retain(|waiting| *waiting != requested);
            self.pool.shared.returned.notify_all();
        }
        let slot = slots.slots[self.slot].as_mut()?;
        slot.reserved = size.map_or(0, |size| self.memory.required(size));
        let session = slot.session.take();
        let use_number = slots.begin_use();
        Some(SessionGuard { pooled: self, session, requested, use_number })
    }
}

/// A session in use. Dropping the guard returns the session to its slot.
struct SessionGuard<'a> {
    pooled: &'a PooledSession,
    session: Option<ReopenableSession>,
    requested: u64,
    use_number: u64,
}

impl SessionGuard<'_> {
    /// The session, opened if it is not open.
    fn open(&mut self) -> Result<&mut dyn Session, EvaluationError> {
        let Some(ReopenableSession { open, session }) = self.session.as_mut() else {
            return Err(EvaluationError::Closed);
        };
        if session.is_none() {
            let is_alone = || self.pooled.pool.lock().is_alone(self.use_number);
            let opened = self.pooled.memory.measure_opening(is_alone, open);
            *session = Some(opened.map_err(|error| EvaluationError::Open(Box::new(error)))?);
        }
        session.as_deref_mut().map(|session| session as &mut dyn Session).ok_or(EvaluationError::Closed)
    }
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        let pool = &self.pooled.pool;
        let mut slots = pool.lock();
        slots.in_use -= 1;
        if let Some(slot) = &mut slots.slots[self.pooled.slot] {
            slot.session = self.session.take();
            slot.reserved = 0;
            slot.last_used = self.requested;
        }
        drop(slots);
        pool.shared.returned.notify_all();
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        self.pool.lock().slots[self.slot] = None;
    }
}

#[cfg(test)]
mod tests;
