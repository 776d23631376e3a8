//! Builds a session on an execution provider.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session};

use super::build_progress::BuildProgress;
use super::capture::Capture;
use super::dylib::Runtime;
use super::execution_provider::{dispatch, is_compiled_in};
use super::io_binding::shrinking_arena;
use super::proof::Proof;
use super::provider_selection::AttemptError;
use super::{ENGINE, OnnxRuntimeSession, gpu_lock, preparation};
use crate::inference::engine_cache::{CACHE_HINT, EngineCache, Key, make_room};
use crate::inference::error::{EngineError, ProviderFailure};
use crate::inference::graph_source::{GraphSource, TEMPORARY_HINT};
use crate::inference::load_advice::{self, Advice};
use crate::inference::options::{EngineOptions, LoadStage, OnStage};
use crate::inference::provider::{GraphCapture, Provider, ProviderOptions, ShapeProfile};
use crate::units::binary_size;

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
        let Opened { session, cache, capture } = self.open(provider, Some(profiles.path()), &**on_stage)?;
        let builds_engine = self.source.profile.is_none() && is_building(provider, cache.as_ref());
        Ok((session, Proof { provider, profiles, cache, capture, builds_engine }))
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
        let mut capture = Capture::new(runtime, source, options, provider)?;
        let mut cache = if provider.builds_engines() {
            open_cache(runtime, source, options, provider, capture.profile.as_ref())?
        } else {
            None
        };
        let prepared = preparation::open(runtime, source, options, provider, on_stage);
        let _sharing = provider.uses_gpu().then(gpu_lock::share);
        let directory = cache.as_ref().map(|cache| cache.path().to_owned());
        let registration = Registration { provider, profiles, cache: directory.as_deref() };
        let builder = self.register(&registration, &capture)?;
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
        let prepared_graph = prepared.as_ref();
        let captures_shapes = capture.kind == GraphCapture::PerShape;
        let capturing = captures_shapes
            .then(|| preparation::commit_only(builder.clone(), source, prepared_graph, provider));
        let session = match capturing {
            Some(Ok(session)) => session,
            None => preparation::commit(builder, source, prepared_graph, provider)?,
            Some(Err(error)) => {
                self.give_up_capture(&error.reason());
                capture = capture.without_capture();
                let builder = self.register(&registration, &capture)?;
                preparation::commit(builder, source, prepared_graph, provider)?
            }
        };
        drop(progress);
        log::debug!("opened {} on {provider} in {} ms", source.name, started.elapsed().as_millis());
        on_stage(LoadStage::Warming);
        let session = match (capture.kind, provider) {
            (GraphCapture::Off, _) if provider.uses_gpu() => {
                OnnxRuntimeSession::on_gpu(session, RunOptions::new()?)
            }
            (GraphCapture::Off, _) if self.is_evaluated_once(provider) => {
                OnnxRuntimeSession::new(session, shrinking_arena()?)
            }
            (GraphCapture::Off, _) => OnnxRuntimeSession::new(session, RunOptions::new()?),
            (GraphCapture::OneShape, _) => OnnxRuntimeSession::with_one_graph(session, capture.gpu)
                .map_err(|reason| AttemptError::Provider(ProviderFailure::Failed(reason)))?,
            (GraphCapture::PerShape, _) => OnnxRuntimeSession::with_shape_graphs(session, capture.gpu)?,
        };
        capture.publish(source);
        Ok(Opened { session: session.protecting(prepared), cache, capture: capture.kind })
    }

    /// Prepares a session with the provider registered.
    fn register(
        &self,
        registration: &Registration<'_>,
        capture: &Capture,
    ) -> Result<SessionBuilder, AttemptError> {
        let Registration { provider, profiles, cache } = *registration;
        let builder = Session::builder(&self.runtime.environment)?;
        let mut builder = builder.with_logger(Arc::new(log_message))?;
        if let Some(profiles) = profiles {
            builder = builder.with_profiling(profiles.join("profile"))?;
        }
        // A graph that is evaluated once for each job holds no working memory between jobs. With a memory pattern, Stable
        // Diffusion's decoder took 2.2 GB in place of 1.4 GB at 512×512, and the same time.
        // With one, ONNX Runtime also reserves as much address space as all weights take, although it maps them.
        let is_cramped = self.options.host.memory_bounds().address_space.is_some();
        if self.is_evaluated_once(provider) || is_cramped {
            builder = builder.with_memory_pattern(false)?;
        }
        let profile = capture.profile.as_ref();
        let dispatch = dispatch(provider, &self.options.provider, cache, profile, capture.kind);
        if let Some(dispatch) = dispatch {
            builder = builder.with_execution_providers([dispatch])?;
        }
        for (axis, length) in &capture.fixed_axes {
            builder = builder.with_dimension_override(axis, *length as i64)?;
        }
        Ok(builder)
    }

    /// Whether the graph is evaluated once for each job on the CPU.
    fn is_evaluated_once(&self, provider: Provider) -> bool {
        provider == Provider::Cpu && self.source.profile.is_none()
    }

    /// Records that no session of the graph captures from now on.
    pub(super) fn give_up_capture(&self, reason: &str) {
        if let Some(status) = &self.source.capture {
            status.set_unavailable(&self.source.name, reason);
        }
    }
}

/// What a session is opened with.
struct Registration<'a> {
    provider: Provider,
    /// The directory for the profile.
    profiles: Option<&'a Path>,
    /// The directory for the engine that the provider builds.
    cache: Option<&'a Path>,
}

/// A session on a provider, and the cache for the engine that the provider built.
struct Opened {
    session: OnnxRuntimeSession,
    cache: Option<EngineCache>,
    capture: GraphCapture,
}

/// Whether the provider has no engine in the cache and builds one.
fn is_building(provider: Provider, cache: Option<&EngineCache>) -> bool {
    provider.builds_engines() && cache.is_none_or(|cache| !cache.is_built)
}

/// Logs a message of ONNX Runtime. Errors are reported by the function that failed, so that they are not logged again.
pub(super) fn log_message(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    match level {
        // Captured graphs are checked: see `shape_graphs`.
        LogLevel::Warning if message.contains("Use the CUDA Graph feature with caution") => {
            log::debug!("{ENGINE}: {message}");
        }
        LogLevel::Warning => log::warn!("{ENGINE}: {message}"),
        _ => log::debug!("{ENGINE}: {message}"),
    }
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
                "building its engine may take {} ([engine] build_memory), but {} are available; stop other \
                 programs, or run `denoised build-engines` while the daemon is stopped",
                binary_size(options.build_memory),
                binary_size(free)
            ))))
        }
        _ => Ok(()),
    }
}
