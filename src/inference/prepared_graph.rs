//! Graphs prepared for an execution provider, so that it has less to do at each load.
//!
//! For the CPU, the weights of a large graph become float32 once, in a file of the engine cache that ONNX Runtime maps
//! into memory. For CUDA, nodes are replaced at each load, and the weights stay where they are.

mod build;
mod checksums;
mod comparison;
mod description;
mod external_tensors;
mod manifest;
mod passes;
mod weights;
mod write;

use std::path::PathBuf;

use super::engine_cache::{CACHE_HINT, Content, Entry, EntryLock, Key, StagedEntry, make_room};
use super::graph_source::GraphSource;
use super::onnx_runtime::is_at_least;
use super::options::{EngineOptions, LoadStage};
use super::provider::Provider;
use super::session::Session;
use crate::onnx::{InlineData, ModelFiles, OWN_VALUES, RealFiles, Rewrite, decode_without_weights};
use crate::units::binary_size;
use build::BuildError;
use manifest::{GraphKind, Manifest};
use passes::Target;

pub(crate) use description::{Preparation, describe};

/// Graphs with fewer bytes of weights are opened as they are: ONNX Runtime loads them in at most three seconds, and its
/// packed weights serve small evaluations better. See docs/adr/0020-prepared-graphs.md.
const MIN_WEIGHTS: u64 = 64 << 20;

/// A graph to open instead of the exported file.
#[derive(Debug)]
pub(super) enum PreparedGraph {
    /// A file whose weights are beside it.
    File(PathBuf),
    /// A graph in memory whose weights are in files below a folder.
    Memory {
        /// The ONNX file.
        bytes: Vec<u8>,
        /// The folder to which the locations of weights are relative.
        folder: PathBuf,
    },
}

/// A prepared graph that may be used, and is not evicted from the cache until it is dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) graph: PreparedGraph,
    pub(super) lock: Option<EntryLock>,
}

/// What to prepare.
pub(super) struct Request<'a> {
    pub(super) source: &'a GraphSource,
    pub(super) options: &'a EngineOptions,
    pub(super) provider: Provider,
    /// The version of ONNX Runtime.
    pub(super) engine_version: &'a str,
}

/// Opens a graph in an engine: a prepared one, or the exported one without optimisation.
pub(super) type OpenSession<'a> =
    &'a mut dyn FnMut(Option<&PreparedGraph>) -> Result<Box<dyn Session>, String>;

/// Returns the graph to open on a provider. `None` if that is the exported file.
///
/// A graph that is not in the cache is prepared, and compared with the exported one. Whatever fails is logged, and the
/// exported file serves.
pub(super) fn open(
    request: &Request<'_>,
    on_stage: &dyn Fn(LoadStage),
    open_session: OpenSession<'_>,
) -> Option<Prepared> {
    match request.provider {
        Provider::Cpu if is_mapped(&request.source.files) => find_or_build(request, on_stage, open_session)
            .unwrap_or_else(|error| {
                request.report(error);
                None
            }),
        Provider::Cuda if request.options.rewrite && request.allows_memory() => rewritten(request),
        _ => None,
    }
}

/// Whether a graph is prepared for the CPU, so that its weights are float32 and mapped from files.
pub(super) fn is_mapped(files: &ModelFiles) -> bool {
    files.total_len() >= MIN_WEIGHTS
}

fn find_or_build(
    request: &Request<'_>,
    on_stage: &dyn Fn(LoadStage),
    open_session: OpenSession<'_>,
) -> Result<Option<Prepared>, BuildError> {
    let root = &request.options.cache;
    let name = &request.source.name;
    let entry = request.entry()?;
    let found = entry.path().symlink_metadata().is_ok().then(|| request.open_entry(&entry));
    match found {
        Some(Ok(prepared)) => return Ok(prepared),
        Some(Err(fault)) => log::warn!(
            "{}: the prepared graph of {name} is damaged ({fault}) and is prepared again",
            entry.path().display()
        ),
        None => {}
    }
    let (mut model, weights) = match build::decode(request) {
        Ok(decoded) => decoded,
        Err(reason) => {
            log::info!("{name}: its graph is not prepared, because {reason}");
            return Ok(None);
        }
    };
    on_stage(LoadStage::Preparing);
    let staged = StagedEntry::create(root, entry.clone())?;
    // Another process may have prepared it while this one waited.
    if let Ok(prepared) = request.open_entry(&entry) {
        return Ok(prepared);
    }
    let start = std::time::Instant::now();
    log::info!("preparing the graph of {name} for {}, once", request.provider);
    let manifest = build::build(request, staged.path(), &mut model, &weights, open_session)?;
    manifest.write(staged.path())?;
    staged.commit()?;
    log::info!("prepared the graph of {name} in {:.1?}", start.elapsed());
    request.open_verified(&entry, manifest).map_err(BuildError::Content)
}

/// A graph for CUDA whose nodes are replaced. `None` if none is.
fn rewritten(request: &Request<'_>) -> Option<Prepared> {
    let files = &request.source.files;
    let attempt = || {
        let mut model = decode_without_weights(&files.graph, OWN_VALUES)?;
        let changes = passes::apply(&mut model, request.target());
        if changes.fused_attention == 0 {
            return Ok(None);
        }
        let real = RealFiles::find(files).ok_or("a file is missing")?;
        build::relocate(&mut model, &|location| real.location(files, location))?;
        let bytes = model.write_buf().map_err(|error| error.to_string())?;
        Ok::<_, String>(Some(PreparedGraph::Memory { bytes, folder: real.folder }))
    };
    let graph = attempt().unwrap_or_else(|reason| {
        log::info!("{}: its graph is not rewritten, because {reason}", request.source.name);
        None
    });
    Some(Prepared { graph: graph?, lock: None })
}

impl Request<'_> {
    fn target(&self) -> Target<'_> {
        Target { provider: self.provider, engine_version: self.engine_version, rewrite: self.options.rewrite }
    }

    /// Whether the engine finds the weights of a graph in memory. Older versions know no folder for them.
    fn allows_memory(&self) -> bool {
        is_at_least(self.engine_version, (1, 20))
    }

    fn entry(&self) -> Result<Entry, BuildError> {
        let sha256 = (self.source.digest)().map_err(|error| BuildError::Content(error.to_string()))?;
        let key = Key::from([
            ("graph", sha256),
            ("ONNX Runtime", self.engine_version.to_owned()),
            ("preparation", passes::VERSION.to_string()),
            ("rewrite option", self.options.rewrite.to_string()),
        ]);
        let (cache, name) = (&self.options.cache, &self.source.name);
        Ok(Entry::find(cache, name, self.provider, Content::PreparedGraph, key)?)
    }

    /// Opens an entry after comparing it with its checksums. Fails with what is wrong with it.
    fn open_entry(&self, entry: &Entry) -> Result<Option<Prepared>, String> {
        if !entry.is_committed() {
            return Err("it is not complete".to_owned());
        }
        // Before the comparison, so that nothing is evicted after it.
        let lock = entry.lock().map_err(|error| error.to_string())?;
        if !entry.has_own_key() {
            return Err("it is of another graph".to_owned());
        }
        let manifest = Manifest::read_and_verify(entry.path(), &Entry::OWN_FILES)?;
        let prepared = self.open_verified(entry, manifest);
        drop(lock);
        prepared
    }

    /// Opens an entry whose files are as they were written.
    fn open_verified(&self, entry: &Entry, manifest: Manifest) -> Result<Option<Prepared>, String> {
        let lock = entry.lock().map_err(|error| error.to_string())?;
        let graph = match manifest.graph {
            GraphKind::Unfit { difference } => {
                log::warn!(
                    "{}: the exported graph serves, because its prepared graph gives other results: {difference}",
                    self.source.name
                );
                return Ok(None);
            }
            GraphKind::OwnWeights => PreparedGraph::File(entry.path().join(write::GRAPH)),
            GraphKind::ExportedWeights => self.with_exported_weights(&entry.path().join(write::GRAPH))?,
        };
        Ok(Some(Prepared { graph, lock: Some(lock) }))
    }

    /// A graph in an entry that refers to the weights of the export, wherever that is now.
    fn with_exported_weights(&self, graph: &std::path::Path) -> Result<PreparedGraph, String> {
        let files = &self.source.files;
        let real = RealFiles::find(files).ok_or("a file of the export is missing")?;
        let location = |location: &str| real.location(files, location);
        let rewrite = Rewrite { inline: InlineData::Keep, location: &location };
        let copy = rewrite.apply(graph).map_err(|error| error.to_string())?;
        Ok(PreparedGraph::Memory { bytes: copy.bytes, folder: real.folder })
    }

    /// Logs why the exported graph serves, and what to do about it.
    fn report(&self, error: BuildError) {
        let (name, cache) = (&self.source.name, self.options.cache.display());
        let consequence = "so every start loads the exported graph, which is slower and takes more memory";
        match error {
            BuildError::Cache(error) => {
                use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
                let hint = match error.kind() {
                    StorageFull | QuotaExceeded | FileTooLarge => {
                        "Make room, or set [engine] cache to a directory on a larger disk"
                    }
                    _ => CACHE_HINT,
                };
                log::warn!(
                    "{cache}: cannot keep the prepared graph of {name} ({error}), {consequence}. {hint}"
                );
            }
            BuildError::TooLarge(bytes) => log::warn!(
                "{cache}: the prepared graph of {name} takes {}, which do not fit in [engine] cache_size ({}) \
                 beside those in use, {consequence}. Set a larger cache_size",
                binary_size(bytes),
                binary_size(self.options.cache_size)
            ),
            BuildError::Content(reason) => {
                log::warn!("{name}: its graph cannot be prepared ({reason}), {consequence}");
            }
        }
    }
}
