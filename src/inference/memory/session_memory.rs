//! The memory of one session: estimated before it was opened, measured since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::estimate::Estimate;
use super::growth::{Growth, measured};
use super::measurements::{MeasurementStore, SessionMeasurements};
use super::working_memory::EvaluationSize;
use crate::inference::backend::Backend;
use crate::inference::graph_source::ProvenBackend;
use crate::inference::options::{EngineOptions, Host};
use crate::onnx::ModelFiles;

/// The most memory of attention, as a multiple of the smallest: eight heads, each with scores and weights. A job is refused
/// by the smallest, because an engine may fuse attention; its batch is chosen by the most until it was measured.
const MAX_ATTENTION: f64 = 16.0;
/// How often a process measures the opening of a session: the first time, the graph may be prepared, which takes more.
const MEASURED_OPENINGS: u32 = 2;

/// The memory that a session takes and its evaluations need. Shared by the session pool, which keeps the sum within the
/// budget, and by the checks of jobs.
#[derive(Debug)]
pub struct SessionMemory {
    /// The memory that all sessions may take, in bytes.
    budget: Option<u64>,
    /// Whether batches are chosen by their throughput.
    adapts_batch: bool,
    source: Option<Source>,
    state: Mutex<State>,
}

/// A graph, and where its measurements come from and go to.
#[derive(Debug)]
struct Source {
    graph: MeasuredGraph,
    host: Arc<dyn Host>,
    store: Arc<MeasurementStore>,
}

#[derive(Debug, Default)]
struct State {
    estimate: Estimate,
    measurements: SessionMeasurements,
    /// The working memory that the open session holds: an arena keeps what an evaluation took.
    held: u64,
    /// How often this process has measured how much memory opening takes. It may differ from an earlier start's.
    measured_openings: u32,
    /// Whether the estimate is that of the backend that proved to run the graph.
    is_proven: bool,
}

/// A graph of which the memory is measured.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredGraph {
    /// Its files.
    pub(crate) files: Arc<ModelFiles>,
    /// How many values of a sample have one token of the largest attention; `None` if that is not known.
    pub(crate) values_per_token: Option<u64>,
    /// The backend that its first evaluation proves.
    pub(crate) proven: ProvenBackend,
}

impl SessionMemory {
    /// The memory of a graph that is planned to run on this backend. Measurements of earlier starts apply.
    pub(crate) fn new(graph: MeasuredGraph, planned: &Backend, options: &EngineOptions) -> Arc<Self> {
        let source =
            Source { graph, host: Arc::clone(&options.host), store: MeasurementStore::open(&options.cache) };
        let state = source.state_on(planned);
        Arc::new(Self {
            budget: options.memory,
            adapts_batch: options.adapts_batch,
            source: Some(source),
            state: Mutex::new(state),
        })
    }

    /// A session of a known size that is not measured.
    #[cfg(test)]
    pub(crate) fn fixed(bytes: u64) -> Arc<Self> {
        Self::known(bytes, None, &[])
    }

    /// A session with a budget whose evaluations were measured.
    #[cfg(test)]
    pub(crate) fn known(weights: u64, budget: Option<u64>, measured: &[(EvaluationSize, u64)]) -> Arc<Self> {
        let mut state = State { estimate: Estimate { weights, ..Estimate::default() }, ..State::default() };
        for (size, bytes) in measured {
            state.measurements.working.record(*size, *bytes, 0);
        }
        Arc::new(Self { budget, adapts_batch: false, source: None, state: Mutex::new(state) })
    }

    /// Whether any evaluation was measured, or never will be.
    pub(crate) fn is_calibrated(&self) -> bool {
        let state = self.lock();
        !state.estimate.is_measured || !state.measurements.working.is_empty()
    }

    /// The memory of the weights in bytes, as estimated from the files.
    pub(crate) fn weights(&self) -> u64 {
        self.lock().estimate.weights
    }

    /// The memory of the open session in bytes, without the working memory of evaluations.
    pub fn open(&self) -> u64 {
        self.lock().open()
    }

    /// The memory that the open session holds now, in bytes.
    pub(crate) fn held(&self) -> u64 {
        let state = self.lock();
        state.open() + state.held
    }

    /// The memory that opening the session takes at most, in bytes.
    pub(crate) fn opening(&self) -> u64 {
        let state = self.lock();
        state.open().max(state.measurements.opening)
    }

    /// The memory of the open session with an evaluation of this size, in bytes.
    pub fn required(&self, size: EvaluationSize) -> u64 {
        self.predict(size, 1.0)
    }

    /// [`Self::required`] with an engine that stores the matrices of attention.
    pub(crate) fn required_at_most(&self, size: EvaluationSize) -> u64 {
        self.predict(size, MAX_ATTENTION)
    }

    /// Predicts [`Self::required`] with attention that takes `attention` times its smallest size.
    fn predict(&self, size: EvaluationSize, attention: f64) -> u64 {
        let state = self.lock();
        let attention = attention * state.estimate.attention;
        state.open().saturating_add(state.measurements.working.predict(size, attention))
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
            self.required_at_most(size) <= budget
        };
        (min..=wanted.max(min)).rev().find(fits).unwrap_or(min)
    }

    /// Runs `open`, and measures how much memory it takes if nothing else runs, by `is_alone`.
    pub(in crate::inference) fn measure_opening<T, E>(
        &self,
        is_alone: impl Fn() -> bool,
        open: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let is_known = self.lock().measured_openings == MEASURED_OPENINGS;
        let Some(source) = self.measuring().filter(|_| !is_known && is_alone()) else { return open() };
        let (opened, growth) = measured(&*source.host, open);
        if let Some(Growth { held, peak }) = growth.filter(|_| opened.is_ok() && is_alone()) {
            let mut state = self.lock();
            state.measured_openings += 1;
            (state.measurements.open, state.measurements.opening) = (held, peak);
            source.store.set(&state.estimate.key, state.measurements.clone());
        }
        opened
    }

    /// Runs an evaluation, times it, and measures how much memory it takes if nothing else runs, by `is_alone`.
    pub(in crate::inference) fn measure_evaluation<T, E>(
        &self,
        size: EvaluationSize,
        is_alone: impl Fn() -> bool,
        evaluate: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(source) = &self.source else { return evaluate() };
        let start = Instant::now();
        let known = self.lock().measurements.working.held(size);
        let (result, growth) = match (known, self.measuring()) {
            (None, Some(_)) if is_alone() => measured(&*source.host, evaluate),
            _ => (evaluate(), None),
        };
        let (seconds, is_alone) = (start.elapsed().as_secs_f64(), is_alone());
        let mut state = self.lock();
        // If another provider was tried first, the measurement is not of one session.
        if source.follow_provider(&mut state) || result.is_err() {
            return result;
        }
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
            source.store.set(&state.estimate.key, state.measurements.clone());
        }
        result
    }

    /// Where measurements of memory go. `None` if memory is not measured on the backend.
    fn measuring(&self) -> Option<&Source> {
        self.source.as_ref().filter(|_| self.lock().estimate.is_measured)
    }

    /// Notes that the session was closed.
    pub(crate) fn set_closed(&self) {
        self.lock().held = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The memory of the open session in bytes, without the working memory of evaluations.
    fn open(&self) -> u64 {
        self.measurements.open.max(self.estimate.weights)
    }
}

impl Source {
    /// What is known of a session on this backend that is not open.
    fn state_on(&self, backend: &Backend) -> State {
        let estimate = Estimate::new(&self.graph, backend);
        State { measurements: self.store.get(&estimate.key), estimate, ..State::default() }
    }

    /// Replaces the state if the graph proved to run on another backend than planned. Returns whether it did.
    fn follow_provider(&self, state: &mut State) -> bool {
        if state.is_proven {
            return false;
        }
        let Some(backend) = self.graph.proven.get() else { return false };
        let on_proven = self.state_on(backend);
        let is_other = on_proven.estimate.key != state.estimate.key;
        if is_other {
            *state = on_proven;
        }
        state.is_proven = true;
        is_other
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
        let graph = || {
            let files =
                ModelFiles { graph_len: 500, graph: "unet/model.onnx".into(), ..ModelFiles::default() };
            let proven = ProvenBackend::default();
            MeasuredGraph { files: Arc::new(files), values_per_token: Some(1), proven }
        };
        let cpu = Backend::new("embedded", "1".to_owned(), "cpu".to_owned());
        let memory = SessionMemory::new(graph(), &cpu, &options);
        // The attention of ten values is 4 · 10²; a batch that was not measured counts with sixteen times that.
        assert_eq!(memory.required(size(10, 2)), 1000 + 2 * 400);
        assert_eq!(memory.largest_batch(10, 1, 8), 1);
        memory.measure_opening(|| true, || Err::<(), _>(host.anonymous.fetch_add(7, Relaxed))).unwrap_err();
        memory.measure_opening(|| true, || Ok::<_, ()>(host.anonymous.fetch_add(1500, Relaxed))).unwrap();
        assert_eq!((memory.open(), memory.opening(), memory.held()), (1500, 1500, 1500));
        let evaluate = |memory: &SessionMemory, batch: u64, bytes: u64| {
            let work = || Ok::<_, ()>(host.anonymous.fetch_add(bytes, Relaxed));
            memory.measure_evaluation(size(10, batch), || true, work).unwrap();
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
        let restarted = SessionMemory::new(graph(), &cpu, &options);
        assert_eq!((restarted.required(size(10, 3)), restarted.held()), (2200, 1500));
        assert!(restarted.is_calibrated());
        // A GPU's memory is not part of the resident memory.
        let cuda = Backend::new("onnxruntime", "1".to_owned(), "cuda".to_owned());
        let (graph, options) = (graph(), EngineOptions { adapts_batch: true, ..options });
        let proven = Arc::clone(&graph.proven);
        let on_gpu = SessionMemory::new(graph, &cuda, &options);
        evaluate(&on_gpu, 2, 600);
        assert_eq!((on_gpu.required(size(10, 2)), on_gpu.largest_batch(10, 1, 8)), (1000, 2));
        // Speed is measured there too.
        evaluate(&on_gpu, 2, 600);
        evaluate(&on_gpu, 2, 600);
        assert_eq!(on_gpu.largest_batch(10, 1, 8), 4);
        // The provider does not work, and another one does.
        proven.set(cpu).unwrap();
        evaluate(&on_gpu, 2, 600);
        assert_eq!((on_gpu.required(size(10, 3)), on_gpu.held()), (2200, 1500));
    }
}
