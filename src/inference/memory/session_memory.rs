//! The memory of one session: estimated before it was opened, measured since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::growth::{Growth, measured};
use super::measurements::{MeasurementStore, SessionMeasurements};
use super::working_memory::EvaluationSize;
use crate::inference::backend::Backend;
use crate::inference::options::{EngineOptions, Host};

/// The most memory of attention, as a multiple of the smallest: eight heads, each with scores and weights. A job is refused
/// by the smallest, because an engine may fuse attention; its batch is chosen by the most until it was measured.
const MAX_ATTENTION: f64 = 16.0;

/// The memory that a session takes and its evaluations need. Shared by the session pool, which keeps the sum within the
/// budget, and by the checks of jobs.
#[derive(Debug)]
pub struct SessionMemory {
    /// The memory of the weights in bytes, as estimated from the files.
    weights: u64,
    /// The smallest size of one sample's attention matrices in bytes, as a factor of the square of its values.
    attention: f64,
    /// The memory that all sessions may take, in bytes.
    budget: Option<u64>,
    /// Whether batches are chosen by their throughput.
    adapts_batch: bool,
    source: Option<Source>,
    state: Mutex<State>,
}

/// Where measurements come from and go to.
#[derive(Debug)]
struct Source {
    host: Arc<dyn Host>,
    store: Arc<MeasurementStore>,
    key: String,
}

#[derive(Debug, Default)]
struct State {
    measurements: SessionMeasurements,
    /// The working memory that the open session holds: an arena keeps what an evaluation took.
    held: u64,
    /// Whether this process has measured how much memory opening takes. It may differ from an earlier start's.
    has_measured_opening: bool,
}

/// A graph of which the memory is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeasuredGraph<'a> {
    /// The SHA-256 of the graph.
    pub(crate) sha256: &'a str,
    /// The memory of the weights in bytes, as estimated from the files.
    pub(crate) weights: u64,
    /// How many values of a sample have one token of the largest attention; `None` if that is not known.
    pub(crate) values_per_token: Option<u64>,
}

impl SessionMemory {
    /// The memory of a graph that this backend runs. Measurements of earlier starts apply.
    pub(crate) fn new(graph: MeasuredGraph<'_>, backend: &Backend, options: &EngineOptions) -> Arc<Self> {
        // A GPU's memory is not part of the resident memory.
        let is_measured = backend.provider == "cpu";
        let source = is_measured.then(|| Source {
            host: Arc::clone(&options.host),
            store: MeasurementStore::open(&options.cache),
            key: format!("{} {} {} {}", graph.sha256, backend.engine, backend.version, backend.provider),
        });
        let measurements = source.as_ref().map(|source| source.store.get(&source.key)).unwrap_or_default();
        let attention = |per_token: u64| size_of::<f32>() as f64 / (per_token as f64).powi(2);
        Arc::new(Self {
            weights: graph.weights,
            attention: graph.values_per_token.filter(|_| source.is_some()).map_or(0.0, attention),
            budget: options.memory,
            adapts_batch: options.adapts_batch,
            source,
            state: Mutex::new(State { measurements, ..State::default() }),
        })
    }

    /// A session of a known size that is not measured.
    #[cfg(test)]
    pub(crate) fn fixed(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            weights: bytes,
            attention: 0.0,
            budget: None,
            adapts_batch: false,
            source: None,
            state: Mutex::default(),
        })
    }

    /// A session with a budget whose evaluations were measured.
    #[cfg(test)]
    pub(crate) fn known(weights: u64, budget: Option<u64>, measured: &[(EvaluationSize, u64)]) -> Arc<Self> {
        let mut state = State::default();
        for (size, bytes) in measured {
            state.measurements.working.record(*size, *bytes, 0);
        }
        Arc::new(Self {
            weights,
            attention: 0.0,
            budget,
            adapts_batch: false,
            source: None,
            state: Mutex::new(state),
        })
    }

    /// Whether any evaluation was measured, or never will be.
    pub(crate) fn is_calibrated(&self) -> bool {
        self.source.is_none() || !self.lock().measurements.working.is_empty()
    }

    /// The memory of the weights in bytes, as estimated from the files.
    pub(crate) fn weights(&self) -> u64 {
        self.weights
    }

    /// The memory of the open session in bytes, without the working memory of evaluations.
    pub fn open(&self) -> u64 {
        self.lock().measurements.open.max(self.weights)
    }

    /// The memory that the open session holds now, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.open() + self.lock().held
    }

    /// The memory that opening the session takes at most, in bytes.
    pub(crate) fn opening(&self) -> u64 {
        self.open().max(self.lock().measurements.opening)
    }

    /// The memory of the open session with an evaluation of this size, in bytes.
    pub fn required(&self, size: EvaluationSize) -> u64 {
        self.predict(size, self.attention)
    }

    fn predict(&self, size: EvaluationSize, attention: f64) -> u64 {
        self.open().saturating_add(self.lock().measurements.working.predict(size, attention))
    }

    /// The memory that all sessions may take, in bytes.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// The largest batch from `min` to `max` of samples with this many values: within the budget, and with automatic
    /// batches not larger than what is worth it. It is `min` even if that does not fit.
    pub(crate) fn largest_batch(&self, values: u64, min: usize, max: usize) -> usize {
        let wanted = if self.adapts_batch {
            self.lock().measurements.throughput.best_batch(values, max as u64) as usize
        } else {
            max
        };
        let Some(budget) = self.budget else { return wanted.max(min) };
        let fits = |batch: &usize| {
            let size = EvaluationSize { values, batch: *batch as u64 };
            self.predict(size, MAX_ATTENTION * self.attention) <= budget
        };
        (min..=wanted.max(min)).rev().find(fits).unwrap_or(min)
    }

    /// Runs `open`, and measures how much memory it takes if nothing else runs, by `is_alone`.
    pub(in crate::inference) fn measure_opening<R>(
        &self,
        is_alone: impl Fn() -> bool,
        open: impl FnOnce() -> R,
    ) -> R {
        let is_known = self.lock().has_measured_opening;
        let Some(source) = self.source.as_ref().filter(|_| !is_known && is_alone()) else { return open() };
        let (opened, growth) = measured(&*source.host, open);
        if let Some(growth) = growth.filter(|_| is_alone()) {
            self.record_opening(growth);
        }
        opened
    }

    /// Adds the memory that opening the session took, with its warm-up.
    pub(in crate::inference) fn record_opening(&self, growth: Growth) {
        let Some(source) = &self.source else { return };
        let mut state = self.lock();
        state.has_measured_opening = true;
        (state.measurements.open, state.measurements.opening) = (growth.held, growth.peak);
        source.store.set(&source.key, state.measurements.clone());
    }

    /// Runs an evaluation, times it, and measures how much memory it takes if nothing else runs, by `is_alone`.
    pub(crate) fn measure_evaluation<R>(
        &self,
        size: EvaluationSize,
        is_alone: impl Fn() -> bool,
        evaluate: impl FnOnce() -> R,
    ) -> R {
        let Some(source) = &self.source else { return evaluate() };
        let start = Instant::now();
        let known = self.lock().measurements.working.held(size);
        let (result, growth) = match known {
            None if is_alone() => measured(&*source.host, evaluate),
            _ => (evaluate(), None),
        };
        let (seconds, is_alone) = (start.elapsed().as_secs_f64(), is_alone());
        let mut state = self.lock();
        let mut is_news = false;
        state.held = state.held.max(known.unwrap_or(0));
        if let Some(growth) = growth.filter(|_| is_alone) {
            // What earlier evaluations left in the arena serves this one too.
            let needed = state.held + growth.peak;
            state.held += growth.held;
            let held = state.held;
            is_news |= state.measurements.working.record(size, needed, held);
        }
        if self.adapts_batch && is_alone {
            is_news |= state.measurements.throughput.record(size, seconds);
        }
        if is_news {
            source.store.set(&source.key, state.measurements.clone());
        }
        result
    }

    /// Notes that the session was closed.
    pub(crate) fn set_closed(&self) {
        self.lock().held = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::inference::memory::growth::tests::Given;

    fn size(values: u64, batch: u64) -> EvaluationSize {
        EvaluationSize { values, batch }
    }

    #[test]
    fn a_batch_is_as_large_as_the_budget_allows() {
        let batch = |budget: Option<u64>| {
            let memory = SessionMemory::known(1000, budget, &[(size(100, 1), 500)]);
            memory.largest_batch(100, 1, 8)
        };
        assert_eq!([None, Some(5000), Some(2600), Some(10)].map(batch), [8, 8, 3, 1]);
    }

    #[test]
    fn evaluations_are_measured_once_and_known_to_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let host = Arc::new(Given::default());
        let options = EngineOptions {
            host: Arc::clone(&host) as Arc<dyn Host>,
            cache: directory.path().to_owned(),
            memory: Some(10_000),
            ..EngineOptions::default()
        };
        let graph = MeasuredGraph { sha256: "ab", weights: 1000, values_per_token: Some(1) };
        let cpu = Backend::new("embedded", "1".to_owned(), "cpu".to_owned());
        let memory = SessionMemory::new(graph, &cpu, &options);
        // The attention of ten values is 4 · 10²; a batch that was not measured counts with sixteen times that.
        assert_eq!(memory.required(size(10, 2)), 1000 + 2 * 400);
        assert_eq!(memory.largest_batch(10, 1, 8), 1);
        memory.measure_opening(|| true, || host.anonymous.fetch_add(1500, Relaxed));
        assert_eq!((memory.open(), memory.opening(), memory.held()), (1500, 1500, 1500));
        let evaluate = |memory: &SessionMemory, batch: u64, bytes: u64| {
            memory.measure_evaluation(size(10, batch), || true, || host.anonymous.fetch_add(bytes, Relaxed));
        };
        evaluate(&memory, 2, 600);
        // A size is measured once.
        evaluate(&memory, 2, 9000);
        assert_eq!((memory.required(size(10, 2)), memory.held()), (2100, 2100));
        // The arena holds 600 bytes, so that this evaluation needs 100 more.
        evaluate(&memory, 3, 100);
        assert_eq!((memory.required(size(10, 3)), memory.held()), (2200, 2200));
        memory.set_closed();
        assert_eq!(memory.held(), 1500);
        let restarted = SessionMemory::new(graph, &cpu, &options);
        assert_eq!((restarted.required(size(10, 3)), restarted.held()), (2200, 1500));
        assert!(restarted.is_calibrated());
        // A GPU's memory is not part of the resident memory.
        let cuda = Backend::new("onnxruntime", "1".to_owned(), "cuda".to_owned());
        let on_gpu = SessionMemory::new(graph, &cuda, &options);
        evaluate(&on_gpu, 2, 600);
        assert_eq!((on_gpu.required(size(10, 2)), on_gpu.largest_batch(10, 1, 8)), (1000, 8));
    }
}
