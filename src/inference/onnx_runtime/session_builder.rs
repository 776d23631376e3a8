//! Builds a session on an execution provider.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ort::logging::LogLevel;
use ort::session::{RunOptions, Session};

use super::build_progress::BuildProgress;
use super::dylib::Runtime;
use super::execution_provider::{dispatch, is_compiled_in};
use super::io_binding::shrinking_arena;
use super::proof::Proof;
use super::provider_selection::AttemptError;
use super::{ENGINE, OnnxRuntimeSession, preparation};
use crate::inference::engine_cache::{CACHE_HINT, EngineCache, Key, make_room};
use crate::inference::error::{EngineError, ProviderFailure};
use crate::inference::graph_source::{GraphSource, TEMPORARY_HINT};
use crate::inference::load_advice::{self, Advice};
use crate::inference::options::{EngineOptions, LoadStage, OnStage};
use crate::inference::provider::{Provider, ProviderOptions, ShapeProfile, TensorRt};

/// Opens sessions of a graph.
pub(super) struct SessionOpener {
    pub(super) runtime: Runtime,
    pub(super) source: GraphSource,
    pub(super) options: EngineOptions,
}

impl SessionOpener {
    /// What to do about an error while the graph is opened.
    pub(super) fn advice(&self, reason: &str) -> Advice {
        load_advice::onnx_runtime(&self.runtime.version, &self.source.files.header, reason)
    }

    /// Opens a session on a provider. Its first evaluation is profiled, and completes the proof.
    pub(super) fn attempt(
        &self,
        provider: Provider,
        on_stage: &OnStage,
    ) -> Result<(OnnxRuntimeSession, Proof), AttemptError> {
        let temporary = std::env::temp_dir();
        let profiles = tempfile::tempdir().map_err(AttemptError::io(
            "create a directory in",
            &temporary,
            TEMPORARY_HINT,
        ))?;
        let Opened { session, cache, is_captured } =
            self.open(provider, Some(profiles.path()), &**on_stage)?;
        let builds_engine = self.source.profile.is_none() && is_building(provider, cache.as_ref());
        Ok((session, Proof { provider, profiles, cache, is_captured, builds_engine }))
    }

    /// Opens a session on a provider that is proven to run the graph.
    pub(super) fn reopen(&self, provider: Provider) -> Result<OnnxRuntimeSession, AttemptError> {
        let Opened { session, cache, .. } = self.open(provider, None, &|_| {})?;
        if let Some(cache) = cache {
            keep(cache, &self.options, &self.source, provider)?;
        }
        Ok(session)
    }

    /// Opens a session, with a profile in the directory `profiles`.
    fn open(
        &self,
        provider: Provider,
        profiles: Option<&Path>,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Opened, AttemptError> {
        let Self { runtime, source, options } = self;
        if !is_compiled_in(provider) {
            let version = runtime.version.clone();
            return Err(AttemptError::Provider(ProviderFailure::NotCompiledIn { version }));
        }
        let capture = capture(runtime, source, options, provider)?;
        let profile = match (&capture, provider) {
            (Some(capture), _) => Some(capture.profile.clone()),
            (None, Provider::TensorRt) => source.profile.clone(),
            (None, _) => None,
        };
        let mut cache = if provider.builds_engines() {
            open_cache(runtime, source, options, provider, profile.as_ref())?
        } else {
            None
        };
        let prepared = preparation::open(runtime, source, options, provider, on_stage);
        let mut builder = Session::builder(&runtime.environment)?.with_logger(Arc::new(log_message))?;
        if let Some(profiles) = profiles {
            builder = builder.with_profiling(profiles.join("profile"))?;
        }
        // A graph that is evaluated once for each job holds no working memory between jobs. With a memory pattern, Stable
        // Diffusion's decoder took 2.2 GB in place of 1.4 GB at 512×512, and the same time.
        let is_evaluated_once = provider == Provider::Cpu && source.profile.is_none();
        // With one, ONNX Runtime also reserves as much address space as all weights take, although it maps them.
        let is_cramped = options.host.memory_bounds().address_space.is_some();
        if is_evaluated_once || is_cramped {
            builder = builder.with_memory_pattern(false)?;
        }
        let directory = cache.as_ref().map(EngineCache::path);
        let dispatch = dispatch(provider, &options.provider, directory, profile.as_ref(), capture.is_some());
        if let Some(dispatch) = dispatch {
            builder = builder.with_execution_providers([dispatch])?;
        }
        for (axis, length) in capture.iter().flat_map(|capture| &capture.fixed_axes) {
            builder = builder.with_dimension_override(axis, *length as i64)?;
        }
        // The provider is registered, so that its libraries exist.
        let progress = if is_building(provider, cache.as_ref()) {
            check_memory(options)?;
            on_stage(LoadStage::BuildingEngine);
            Some(BuildProgress::new(&source.name, provider))
        } else {
            None
        };
        if let Some(cache) = &mut cache {
            // A failure from here on may be the fault of the cached engine.
            cache.mark_unverified();
        }
        let started = Instant::now();
        let session = preparation::commit(builder, source, prepared.as_ref(), provider)?;
        drop(progress);
        log::debug!("opened {} on {provider} in {} ms", source.name, started.elapsed().as_millis());
        on_stage(LoadStage::Warming);
        let session = match &capture {
            Some(capture) => OnnxRuntimeSession::with_cuda_graph(session, capture.device)
                .map_err(|reason| AttemptError::Provider(ProviderFailure::Failed(reason)))?,
            None => {
                let options = if is_evaluated_once { shrinking_arena() } else { RunOptions::new() };
                OnnxRuntimeSession::new(session, provider.reads_pinned_memory(), options?)
            }
        };
        Ok(Opened { session: session.protecting(prepared), cache, is_captured: capture.is_some() })
    }
}

/// A session on a provider, and the cache for the engine that the provider built.
struct Opened {
    session: OnnxRuntimeSession,
    cache: Option<EngineCache>,
    is_captured: bool,
}

/// Whether the provider has no engine in the cache and builds one.
fn is_building(provider: Provider, cache: Option<&EngineCache>) -> bool {
    provider.builds_engines() && cache.is_none_or(|cache| !cache.is_built)
}

/// Logs a message of ONNX Runtime. Errors are reported by the function that failed, so that they are not logged again.
pub(super) fn log_message(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    match level {
        LogLevel::Warning => log::warn!("{ENGINE}: {message}"),
        _ => log::debug!("{ENGINE}: {message}"),
    }
}

/// How evaluations are captured as a CUDA graph.
struct Capture {
    /// The index of the GPU.
    device: i32,
    /// The name and length of each dynamic axis. A captured graph serves one shape only.
    fixed_axes: Vec<(String, usize)>,
    profile: ShapeProfile,
}

fn capture(
    runtime: &Runtime,
    source: &GraphSource,
    options: &EngineOptions,
    provider: Provider,
) -> Result<Option<Capture>, AttemptError> {
    let Some(device) = provider.cuda_graph_device(&options.provider) else { return Ok(None) };
    check_capture(runtime, options, provider)?;
    // A graph that is not evaluated repeatedly in the same shapes is not captured.
    let Some(profile) = &source.profile else { return Ok(None) };
    let fixed_axes = source.files.header.dynamic_axes(&profile.max.0);
    Ok(Some(Capture { device, fixed_axes, profile: profile.fixed_to_max() }))
}

/// Checks that the version and the other options allow a CUDA graph.
fn check_capture(runtime: &Runtime, options: &EngineOptions, provider: Provider) -> Result<(), AttemptError> {
    let failed = |reason: String| Err(AttemptError::Provider(ProviderFailure::Failed(reason)));
    if !runtime.is_at_least(1, 23) {
        // `ort` copies between host and GPU by functions that older versions lack.
        return failed(format!(
            "cuda_graph needs ONNX Runtime 1.23 or newer, but this is {}; install a newer one, or remove cuda_graph",
            runtime.version
        ));
    }
    let TensorRt { min_batch, opt_batch, .. } = options.provider.tensorrt;
    if provider == Provider::TensorRt && min_batch.or(opt_batch).is_some() {
        return failed(
            "cuda_graph pads every batch to the largest, so that min_batch and opt_batch have no effect; remove \
             them, or cuda_graph"
                .to_owned(),
        );
    }
    Ok(())
}

/// Keeps an engine that works, and removes other entries of the cache if it is too large.
pub(super) fn keep(
    cache: EngineCache,
    options: &EngineOptions,
    source: &GraphSource,
    provider: Provider,
) -> Result<(), AttemptError> {
    let directory = cache.path().to_owned();
    cache
        .commit()
        .and_then(|()| make_room(&options.cache, options.cache_size, 0, &directory).map(|_| ()))
        .or_else(|error| not_kept(options, source, provider, &directory, error))
}

/// Reports an engine that is built at every start, because it cannot be kept.
fn not_kept(
    options: &EngineOptions,
    source: &GraphSource,
    provider: Provider,
    directory: &Path,
    error: std::io::Error,
) -> Result<(), AttemptError> {
    if options.requires_cache {
        return Err(AttemptError::io("keep the engine in", directory, CACHE_HINT)(error));
    }
    log::warn!(
        "{}: cannot keep the engine that {provider} builds for {} ({error}), so every start builds it again; \
         {CACHE_HINT}",
        directory.display(),
        source.name
    );
    Ok(())
}

/// Opens the cache for the provider's engine.
fn open_cache(
    runtime: &Runtime,
    source: &GraphSource,
    options: &EngineOptions,
    provider: Provider,
    profile: Option<&ShapeProfile>,
) -> Result<Option<EngineCache>, AttemptError> {
    let ProviderOptions { tensorrt, openvino, .. } = &options.provider;
    let (option, library) = match provider {
        Provider::TensorRt => (format!("{tensorrt:?}"), "libnvinfer.so"),
        _ => (format!("{openvino:?}"), "libopenvino.so"),
    };
    let sha256 = (source.digest)().map_err(|error| AttemptError::Engine(EngineError::Digest(error)))?;
    let key = Key::from([
        ("graph", sha256),
        ("shapes", format!("{profile:?}, batches of up to {}", options.batch)),
        ("option", option),
        ("ONNX Runtime", runtime.version.clone()),
        ("library", options.host.library_version(library, options.library.as_deref()).unwrap_or_default()),
        ("device", options.host.device()),
    ]);
    match EngineCache::open(&options.cache, &source.name, provider, key) {
        Ok(cache) => Ok(Some(cache)),
        Err(error) => not_kept(options, source, provider, &options.cache, error).map(|()| None),
    }
}

fn check_memory(options: &EngineOptions) -> Result<(), AttemptError> {
    match options.host.available_memory() {
        Some(free) if free < options.build_memory => {
            Err(AttemptError::Provider(ProviderFailure::Failed(format!(
                "building its engine may take {} MiB ([engine] build_memory), but {} MiB are available; stop other \
                 programs, or run `denoised build-engines` while the daemon is stopped",
                options.build_memory >> 20,
                free >> 20
            ))))
        }
        _ => Ok(()),
    }
}
