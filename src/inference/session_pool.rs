//! An LRU pool of inference sessions under a memory budget.
//!
//! A session is opened when it is first used. If the budget does not allow another open session, idle sessions are evicted,
//! the least recently used first. Callers that need memory of a session in use wait, and are served in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::{EngineError, EvaluationError};
use super::session::Session;

/// The name of a pooled session and the memory that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSize {
    /// The name of the model, followed by a slash and the component's name for a session other than the denoiser's.
    pub name: String,
    /// The session's share of the memory limit, in bytes.
    pub bytes: u64,
}

/// Opens a session.
type Open = Box<dyn FnMut() -> Result<Box<dyn Session>, EngineError> + Send>;

/// The pool, shared by all models.
#[derive(Clone, Default)]
pub struct SessionPool(Arc<SharedSlots>);

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
}

struct Slot {
    name: String,
    bytes: u64,
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

    fn is_evictable(&self) -> bool {
        self.session.as_ref().is_some_and(|reopenable| reopenable.session.is_some())
    }

    fn evict(&mut self) {
        log::info!("evicted session {} (memory limit)", self.name);
        if let Some(reopenable) = &mut self.session {
            reopenable.session = None;
        }
    }
}

/// A session in the pool. Dropping it removes the session.
pub(crate) struct PooledSession {
    pool: SessionPool,
    slot: usize,
}

impl SessionPool {
    /// A pool with a budget in bytes, or without a limit.
    pub fn with_budget(budget: Option<u64>) -> Self {
        let slots = Mutex::new(Slots { budget, ..Slots::default() });
        Self(Arc::new(SharedSlots { slots, returned: Condvar::new() }))
    }

    /// Adds a session that is not open.
    pub(crate) fn insert(&self, name: String, bytes: u64, open: Open) -> PooledSession {
        let mut slots = self.lock();
        let last_used = slots.tick();
        let session = Some(ReopenableSession { open, session: None });
        slots.slots.push(Some(Slot { name, bytes, last_used, session }));
        let slot = slots.slots.len() - 1;
        drop(slots);
        PooledSession { pool: self.clone(), slot }
    }

    /// The sessions of a model.
    pub(crate) fn sizes(&self, model: &str) -> Vec<SessionSize> {
        let is_of_model =
            |name: &str| name == model || name.strip_prefix(model).is_some_and(|rest| rest.starts_with('/'));
        let slots = self.lock();
        let own = slots.slots.iter().flatten().filter(|slot| is_of_model(&slot.name));
        own.map(|slot| SessionSize { name: slot.name.clone(), bytes: slot.bytes }).collect()
    }

    /// Whether the budget allows the denoiser of a model and any one of its other sessions at the same time.
    pub(crate) fn fits_denoiser_and_another(&self, model: &str) -> bool {
        let Some(budget) = self.lock().budget else { return true };
        let (denoiser, others): (Vec<_>, Vec<_>) =
            self.sizes(model).into_iter().partition(|size| size.name == model);
        let denoiser: u64 = denoiser.iter().map(|size| size.bytes).sum();
        others.iter().all(|other| denoiser + other.bytes <= budget)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Evicts least-recently-used idle sessions, never `exclude`, until `additional` bytes fit in the budget. Returns
    /// `false` if that requires a session that is in use.
    fn evict_until_fits(&mut self, additional: u64, exclude: usize) -> bool {
        let Some(budget) = self.budget else { return true };
        loop {
            let open = self.slots.iter().flatten().filter(|slot| slot.takes_memory());
            if open.map(|slot| slot.bytes).sum::<u64>() + additional <= budget {
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

    /// Whether the request made at the time `requested` may take the session now.
    fn is_available(&mut self, slot: usize, requested: u64) -> bool {
        let Some(own) = self.slots[slot].as_ref() else { return true };
        let additional = if own.takes_memory() { 0 } else { own.bytes };
        let is_next = self.queue.front().is_none_or(|first| *first >= requested);
        !own.is_in_use() && is_next && (additional == 0 || self.evict_until_fits(additional, slot))
    }
}

impl PooledSession {
    /// Whether the session takes memory: it is open, or in use.
    pub(crate) fn is_open(&self) -> bool {
        self.pool.lock().slots[self.slot].as_ref().is_some_and(Slot::takes_memory)
    }

    /// Calls `work` with the session, which is opened first if it is not open.
    pub(crate) fn with_session<R>(
        &self,
        work: impl FnOnce(&mut dyn Session) -> R,
    ) -> Result<R, EvaluationError> {
        let mut guard = self.acquire().ok_or(EvaluationError::Closed)?;
        let Some(ReopenableSession { open, session }) = guard.session.as_mut() else {
            return Err(EvaluationError::Closed);
        };
        let session = match session {
            Some(session) => session,
            closed => closed.insert(open().map_err(|error| EvaluationError::Open(Box::new(error)))?),
        };
        Ok(work(session.as_mut()))
    }

    /// Waits until the session is idle and fits in the budget, and takes it out of its slot.
    fn acquire(&self) -> Option<SessionGuard<'_>> {
        let mut slots = self.pool.lock();
        let requested = slots.tick();
        while !slots.is_available(self.slot, requested) {
            if !slots.queue.contains(&requested) {
                slots.queue.push_back(requested);
            }
            slots = self.pool.0.returned.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        if slots.queue.contains(&requested) {
            slots.queue.retain(|waiting| *waiting != requested);
            self.pool.0.returned.notify_all();
        }
        let session = slots.slots[self.slot].as_mut()?.session.take();
        Some(SessionGuard { pooled: self, session, requested })
    }
}

/// A session in use. Dropping the guard returns the session to its slot.
struct SessionGuard<'a> {
    pooled: &'a PooledSession,
    session: Option<ReopenableSession>,
    requested: u64,
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        let pool = &self.pooled.pool;
        if let Some(slot) = &mut pool.lock().slots[self.pooled.slot] {
            slot.session = self.session.take();
            slot.last_used = self.requested;
        }
        pool.0.returned.notify_all();
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        self.pool.lock().slots[self.slot] = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::inference::session::Input;
    use crate::tensor::GraphIo;

    /// A session without inputs and outputs.
    struct Empty(GraphIo);

    impl Session for Empty {
        fn graph(&self) -> &GraphIo {
            &self.0
        }

        fn run_all(
            &mut self,
            _: &[Input<'_>],
            _: &[&str],
            _: &mut [Vec<f32>],
        ) -> Result<Vec<Vec<usize>>, EvaluationError> {
            Ok(Vec::new())
        }
    }

    /// Two sessions of ten bytes each in a pool with a budget, and a log of which session was opened.
    fn two(budget: Option<u64>) -> (SessionPool, [PooledSession; 2], mpsc::Receiver<usize>) {
        let pool = SessionPool::with_budget(budget);
        let (opened, log) = mpsc::sync_channel(100);
        let session = |index: usize| {
            let opened = opened.clone();
            let open = move || {
                opened.send(index).unwrap();
                Ok(Box::new(Empty(GraphIo::default())) as Box<dyn Session>)
            };
            pool.insert(["net", "net/vae"][index].to_owned(), 10, Box::new(open))
        };
        let sessions = [session(0), session(1)];
        (pool, sessions, log)
    }

    #[test]
    fn sessions_that_fit_are_used_at_the_same_time() {
        let (pool, [denoiser, vae], log) = two(Some(20));
        assert!(pool.fits_denoiser_and_another("net"));
        denoiser.with_session(|_| vae.with_session(|_| ()).unwrap()).unwrap();
        denoiser.with_session(|_| ()).unwrap();
        drop((denoiser, vae, pool));
        assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_request_without_room_waits_and_is_served_before_later_ones() {
        let (pool, [denoiser, vae], log) = two(Some(19));
        assert!(!pool.fits_denoiser_and_another("net"));
        let (denoiser, vae) = (&denoiser, &vae);
        std::thread::scope(|scope| {
            let waiting = denoiser
                .with_session(|_| {
                    let waiting = scope.spawn(|| vae.with_session(|_| ()).unwrap());
                    while pool.lock().queue.is_empty() {
                        std::thread::yield_now();
                    }
                    waiting
                })
                .unwrap();
            // The other request came first, so that this one has to open its session again.
            denoiser.with_session(|_| ()).unwrap();
            waiting.join().unwrap();
        });
        assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn a_model_whose_name_is_a_prefix_of_another_has_its_own_sessions() {
        let (pool, _sessions, _log) = two(Some(20));
        let _other = pool.insert("net-2".to_owned(), 0, Box::new(|| unreachable!()));
        let names = |model| pool.sizes(model).into_iter().map(|size| size.name).collect::<Vec<_>>();
        assert_eq!(
            (names("net"), names("net-2")),
            (vec!["net".into(), "net/vae".into()], vec!["net-2".into()])
        );
    }

    #[test]
    fn a_session_larger_than_the_budget_is_opened_alone() {
        let (_pool, [denoiser, vae], log) = two(Some(5));
        for session in [&denoiser, &vae, &vae, &denoiser] {
            session.with_session(|_| ()).unwrap();
        }
        assert_eq!(log.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
    }
}
