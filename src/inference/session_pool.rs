//! The graphs of all models, opened when they are first needed and closed when memory runs short.
//!
//! A part costs twice its file and once the weights beside it, which is what it takes at most while it
//! is opened. Where a budget is set, the parts that were used longest ago make way before another is
//! opened, and whoever needs room that is in use waits for it, the first one first.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::inference::session::Session;
use crate::model::ModelError;
use crate::model::predictor::EvaluationError;

/// What a part is called and what it takes while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSize {
    /// The model's name, and after a slash the part's folder where it is not the network.
    pub name: String,
    /// Twice its file and once the weights beside it, in bytes.
    pub bytes: u64,
}

/// Opens a part's graph.
type Open = Box<dyn FnMut() -> Result<Box<dyn Session>, ModelError> + Send>;

/// The place where all parts stand.
#[derive(Clone, Default)]
pub struct SessionPool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    places: Mutex<Slots>,
    /// A part was put back.
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
    places: Vec<Option<Slot>>,
    clock: u64,
    /// Who waits for room, by the clock.
    queue: VecDeque<u64>,
}

struct Slot {
    name: String,
    bytes: u64,
    used: u64,
    /// Not here while it is in use.
    graph: Option<ReopenableSession>,
}

struct ReopenableSession {
    open: Open,
    session: Option<Box<dyn Session>>,
}

impl Slot {
    fn is_in_use(&self) -> bool {
        self.graph.is_none()
    }

    fn takes_memory(&self) -> bool {
        self.graph.as_ref().is_none_or(|graph| graph.session.is_some())
    }

    fn can_be_closed(&self) -> bool {
        self.graph.as_ref().is_some_and(|graph| graph.session.is_some())
    }

    fn close(&mut self) {
        log::info!("{} leaves memory until it is needed again", self.name);
        if let Some(graph) = &mut self.graph {
            graph.session = None;
        }
    }
}

/// One graph among all.
pub(crate) struct PooledSession {
    shelf: SessionPool,
    number: usize,
}

impl SessionPool {
    /// Within so many bytes, or without a bound.
    pub fn within(budget: Option<u64>) -> Self {
        let places = Mutex::new(Slots { budget, ..Slots::default() });
        Self(Arc::new(Shared { places, returned: Condvar::new() }))
    }

    /// Close others until a part that is about to be opened fits.
    pub(crate) fn make_room_for(&self, graph: &std::path::Path) {
        self.places().make_room(size(graph), usize::MAX);
    }

    /// Put a part there, opened already or not.
    pub(crate) fn put(
        &self,
        name: String,
        graph: &std::path::Path,
        session: Option<Box<dyn Session>>,
        open: Open,
    ) -> PooledSession {
        let mut places = self.places();
        let bytes = size(graph);
        let used = places.tick();
        places.places.push(Some(Slot {
            name,
            bytes,
            used,
            graph: Some(ReopenableSession { open, session }),
        }));
        let number = places.places.len() - 1;
        places.make_room(0, number);
        drop(places);
        PooledSession { shelf: self.clone(), number }
    }

    /// What stands here of a model, by its name.
    pub(crate) fn sizes(&self, model: &str) -> Vec<SessionSize> {
        let own =
            |name: &str| name == model || name.strip_prefix(model).is_some_and(|rest| rest.starts_with('/'));
        let places = self.places();
        let places = places.places.iter().flatten().filter(|place| own(&place.name));
        places.map(|place| SessionSize { name: place.name.clone(), bytes: place.bytes }).collect()
    }

    /// Whether a model's network finds room beside any one of the networks around it.
    pub(crate) fn holds_network_and_another(&self, model: &str) -> bool {
        let Some(budget) = self.places().budget else { return true };
        let (network, around): (Vec<_>, Vec<_>) =
            self.sizes(model).into_iter().partition(|part| part.name == model);
        let network: u64 = network.iter().map(|part| part.bytes).sum();
        around.iter().all(|part| network + part.bytes <= budget)
    }

    fn places(&self) -> MutexGuard<'_, Slots> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Close what was used longest ago and is not in use, but for the part with this number, until so
    /// many bytes more fit; false if they will only once something that is in use is put back.
    fn make_room(&mut self, more: u64, but: usize) -> bool {
        let Some(budget) = self.budget else { return true };
        loop {
            let open = self.places.iter().flatten().filter(|place| place.takes_memory());
            if open.map(|place| place.bytes).sum::<u64>() + more <= budget {
                return true;
            }
            let others = self.places.iter_mut().enumerate().filter(|(number, _)| *number != but);
            let others = others.filter_map(|(_, place)| place.as_mut());
            match others.filter(|place| place.can_be_closed()).min_by_key(|place| place.used) {
                Some(oldest) => oldest.close(),
                None => return !self.places.iter().flatten().any(Slot::is_in_use),
            }
        }
    }

    /// Whether a part may be taken now by one who asked at this time.
    fn is_free(&mut self, number: usize, asked: u64) -> bool {
        let Some(place) = self.places[number].as_ref() else { return true };
        let more = if place.takes_memory() { 0 } else { place.bytes };
        let is_first = self.queue.front().is_none_or(|first| *first >= asked);
        !place.is_in_use() && is_first && (more == 0 || self.make_room(more, number))
    }
}

impl PooledSession {
    /// Use the part's graph, which is opened first where it is not.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut dyn Session) -> R) -> Result<R, EvaluationError> {
        let mut taken = self.take().ok_or(EvaluationError::Closed)?;
        let Some(ReopenableSession { open, session }) = taken.graph.as_mut() else {
            return Err(EvaluationError::Closed);
        };
        let session = match session {
            Some(session) => session,
            closed => closed.insert(open().map_err(|error| EvaluationError::Open(Box::new(error)))?),
        };
        Ok(work(session.as_mut()))
    }

    /// Take the graph out of its place, as soon as nobody uses it and there is room for it.
    fn take(&self) -> Option<SessionGuard<'_>> {
        let mut places = self.shelf.places();
        let asked = places.tick();
        while !places.is_free(self.number, asked) {
            if !places.queue.contains(&asked) {
                places.queue.push_back(asked);
            }
            places = self.shelf.0.returned.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
        if places.queue.contains(&asked) {
            places.queue.retain(|waiting| *waiting != asked);
            self.shelf.0.returned.notify_all();
        }
        let graph = places.places[self.number].as_mut()?.graph.take();
        Some(SessionGuard { part: self, graph, asked })
    }
}

/// A graph that is in use, until this is dropped.
struct SessionGuard<'a> {
    part: &'a PooledSession,
    graph: Option<ReopenableSession>,
    asked: u64,
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        let shelf = &self.part.shelf;
        if let Some(place) = &mut shelf.places().places[self.part.number] {
            place.graph = self.graph.take();
            place.used = self.asked;
        }
        shelf.0.returned.notify_all();
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        self.shelf.places().places[self.number] = None;
    }
}

/// What a graph takes while it is opened: its own file twice, as an engine reads it and as it keeps it,
/// and the weights beside it once.
fn size(graph: &std::path::Path) -> u64 {
    let length = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
    let files = files_of(graph);
    length(&graph.to_owned()) + files.iter().map(length).sum::<u64>()
}

/// The files that make up a graph: its own, and those that hold its weights beside it.
pub(crate) fn files_of(graph: &std::path::Path) -> Vec<PathBuf> {
    let weights =
        |name: &str| name.ends_with(".onnx_data") || name.ends_with(".onnx.data") || name == "weights.pb";
    let entries = graph.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let mut beside: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| weights(&name.to_string_lossy())))
        .collect();
    beside.sort();
    [vec![graph.to_owned()], beside].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::inference::session::Input;
    use crate::tensor::GraphIo;

    /// A graph of nothing.
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

    /// Two parts of ten bytes each, under a budget, and how often each was opened.
    fn two(budget: Option<u64>) -> (SessionPool, [PooledSession; 2], mpsc::Receiver<usize>) {
        let directory = tempfile::tempdir().unwrap();
        let graph = directory.path().join("model.onnx");
        std::fs::write(&graph, "12345").unwrap();
        let shelf = SessionPool::within(budget);
        let (opened, openings) = mpsc::sync_channel(100);
        let part = |which: usize| {
            let opened = opened.clone();
            let open = move || {
                opened.send(which).unwrap();
                Ok(Box::new(Empty(GraphIo::default())) as Box<dyn Session>)
            };
            shelf.put(["net", "net/vae"][which].to_owned(), &graph, None, Box::new(open))
        };
        let parts = [part(0), part(1)];
        (shelf, parts, openings)
    }

    #[test]
    fn parts_that_find_room_are_used_at_the_same_time() {
        let (shelf, [net, vae], openings) = two(Some(20));
        assert!(shelf.holds_network_and_another("net"));
        net.with(|_| vae.with(|_| ()).unwrap()).unwrap();
        net.with(|_| ()).unwrap();
        drop((net, vae, shelf));
        assert_eq!(openings.try_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn who_needs_room_waits_until_the_part_in_use_is_back_and_comes_first_then() {
        let (shelf, [net, vae], openings) = two(Some(19));
        assert!(!shelf.holds_network_and_another("net"));
        let (net, vae) = (&net, &vae);
        std::thread::scope(|scope| {
            let waiting = net
                .with(|_| {
                    let waiting = scope.spawn(|| vae.with(|_| ()).unwrap());
                    while shelf.places().queue.is_empty() {
                        std::thread::yield_now();
                    }
                    waiting
                })
                .unwrap();
            // The other one asked first, so that this has to open the network again.
            net.with(|_| ()).unwrap();
            waiting.join().unwrap();
        });
        assert_eq!(openings.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn a_model_whose_name_begins_like_another_s_is_not_part_of_it() {
        let (shelf, _parts, _openings) = two(Some(20));
        let graph = std::path::Path::new("nowhere.onnx");
        let _other = shelf.put("net-2".to_owned(), graph, None, Box::new(|| unreachable!()));
        let names = |model| shelf.sizes(model).into_iter().map(|part| part.name).collect::<Vec<_>>();
        assert_eq!(
            (names("net"), names("net-2")),
            (vec!["net".into(), "net/vae".into()], vec!["net-2".into()])
        );
    }

    #[test]
    fn a_part_larger_than_the_budget_is_opened_alone() {
        let (_shelf, [net, vae], openings) = two(Some(5));
        for part in [&net, &vae, &vae, &net] {
            part.with(|_| ()).unwrap();
        }
        assert_eq!(openings.try_iter().collect::<Vec<_>>(), [0, 1, 0]);
    }
}
