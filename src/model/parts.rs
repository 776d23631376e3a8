//! The graphs of all models, opened when they are first needed and closed when memory runs short.
//!
//! A part costs twice its file and once the weights beside it, which is what it takes at most while it
//! is opened. Where a budget is set, the parts that were used longest ago make way before another is
//! opened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::ModelError;
use super::predictor::EvaluationError;
use super::session::Session;

/// What a part is called and what it takes while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSize {
    /// The model's name and the part's folder.
    pub name: String,
    /// Twice its file and once the weights beside it, in bytes.
    pub bytes: u64,
}

/// Opens a part's graph.
type Open = Box<dyn FnMut() -> Result<Box<dyn Session>, ModelError> + Send>;

/// The place where all parts stand.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Places>>);

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Places {
    budget: Option<u64>,
    places: Vec<Option<Place>>,
    clock: u64,
}

struct Place {
    name: String,
    bytes: u64,
    used: u64,
    open: Open,
    session: Option<Box<dyn Session>>,
}

/// One graph among all.
pub(super) struct Part {
    shelf: Shelf,
    number: usize,
}

impl Shelf {
    /// Within so many bytes, or without a bound.
    pub fn within(budget: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(Places { budget, ..Places::default() })))
    }

    /// Close others until a part that is about to be opened fits.
    pub(super) fn make_room_for(&self, graph: &std::path::Path) {
        self.places().make_room(size(graph), usize::MAX);
    }

    /// Put a part there, opened already or not.
    pub(super) fn put(
        &self,
        name: String,
        graph: &std::path::Path,
        session: Option<Box<dyn Session>>,
        open: Open,
    ) -> Part {
        let mut places = self.places();
        let bytes = size(graph);
        places.clock += 1;
        let used = places.clock;
        places.places.push(Some(Place { name, bytes, used, open, session }));
        let number = places.places.len() - 1;
        places.make_room(0, number);
        drop(places);
        Part { shelf: self.clone(), number }
    }

    /// What stands here of a model, by its name.
    pub(super) fn sizes(&self, model: &str) -> Vec<PartSize> {
        let own =
            |name: &str| name == model || name.strip_prefix(model).is_some_and(|rest| rest.starts_with('-'));
        let places = self.places();
        let places = places.places.iter().flatten().filter(|place| own(&place.name));
        places.map(|place| PartSize { name: place.name.clone(), bytes: place.bytes }).collect()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Places {
    /// Close what was used longest ago, but for the part with this number, until so many bytes more fit.
    fn make_room(&mut self, more: u64, but: usize) {
        let Some(budget) = self.budget else { return };
        loop {
            let open = |place: &&mut Place| place.session.is_some();
            let taken: u64 = self.places.iter_mut().flatten().filter(open).map(|place| place.bytes).sum();
            if taken + more <= budget {
                return;
            }
            let places = self.places.iter_mut().enumerate().filter(|(number, _)| *number != but);
            let oldest =
                places.filter_map(|(_, place)| place.as_mut()).filter(open).min_by_key(|place| place.used);
            let Some(oldest) = oldest else { return };
            log::info!("{} leaves memory until it is needed again", oldest.name);
            oldest.session = None;
        }
    }
}

impl Part {
    /// Use the part's graph, which is opened first where it is not.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut dyn Session) -> R) -> Result<R, EvaluationError> {
        let mut places = self.shelf.places();
        places.clock += 1;
        let clock = places.clock;
        let bytes = match places.places[self.number].as_ref() {
            Some(place) if place.session.is_none() => place.bytes,
            _ => 0,
        };
        if bytes > 0 {
            places.make_room(bytes, self.number);
        }
        let Some(place) = places.places[self.number].as_mut() else {
            return Err(EvaluationError::Closed);
        };
        place.used = clock;
        let session = match &mut place.session {
            Some(session) => session,
            closed => closed.insert((place.open)().map_err(|error| EvaluationError::Open(Box::new(error)))?),
        };
        Ok(work(session.as_mut()))
    }
}

impl Drop for Part {
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
pub(super) fn files_of(graph: &std::path::Path) -> Vec<PathBuf> {
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
