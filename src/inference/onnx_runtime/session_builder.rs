//! Builds a session on an execution provider and proves by a profile that the provider runs it.

use std::path::Path;
use std::sync::Arc;

use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session};

use super::build_progress::BuildProgress;
use super::commit::commit;
use super::dylib::Runtime;
use super::execution_provider::{dispatch, is_compiled_in};
use super::io_binding::shrinking_arena;
use super::loaded_library::loaded_version;
use super::profile::provider_shares;
use super::provider_selection::{AttemptError, first_working};
use super::{ENGINE, OnnxRuntimeSession, cuda_graph};
use crate::inference::backend::Backend;
use crate::inference::engine_cache::{EngineCache, Key};
use crate::inference::error::{EngineError, ProviderFailure};
use crate::inference::graph_source::{GraphSource, LoadedSession, TEMPORARY_HINT, WarmupExtent};
use crate::inference::load_advice;
use crate::inference::options::{EngineOptions, LoadStage};
use crate::inference::provider::{Provider, ProviderOptions, ShapeProfile, TensorRt};

const CACHE_HINT: &str = "Give this user the directory (sudo install -d -o \"$USER\" DIRECTORY), or set [engine] cache to \
     one that this user can write to";

/// Opens a session on the first provider that works.
pub(in crate::inference) fn open(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    on_stage: &mut dyn FnMut(LoadStage),
) -> Result<LoadedSession, EngineError> {
    let files = source.files;
    let advice = |reason: &str| load_advice::onnx_runtime(&runtime.version, &files.header, reason);
    first_working(options, &files.graph, advice, |provider| {
        attempt(runtime, source, options, provider, on_stage)
    })
}

fn attempt(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
    on_stage: &mut dyn FnMut(LoadStage),
) -> Result<LoadedSession, AttemptError> {
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
    let temporary = std::env::temp_dir();
    let profiles =
        tempfile::tempdir().map_err(AttemptError::io("create a directory in", &temporary, TEMPORARY_HINT))?;
    let mut builder = Session::builder(&runtime.environment)?
        .with_logger(Arc::new(log_message))?
        .with_profiling(profiles.path().join("profile"))?;
    // A graph that is evaluated once for each job holds no working memory between jobs. With a memory pattern, Stable
    // Diffusion's decoder took 2.2 GB in place of 1.4 GB at 512×512, and the same time.
    let is_evaluated_once = provider == Provider::Cpu && source.profile.is_none();
    if is_evaluated_once {
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
    let progress = if provider.builds_engines() && cache.as_ref().is_none_or(|cache| !cache.is_built) {
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
    let loaded = commit(builder, source.files).and_then(|session| {
        on_stage(LoadStage::Warming);
        let session = match &capture {
            Some(capture) => OnnxRuntimeSession::with_cuda_graph(session, capture.device)
                .map_err(|reason| AttemptError::Provider(ProviderFailure::Failed(reason)))?,
            None => {
                let options = if is_evaluated_once { shrinking_arena() } else { RunOptions::new() };
                OnnxRuntimeSession::new(session, provider.reads_pinned_memory(), options?)
            }
        };
        let extent = match (&capture, provider) {
            (Some(_), _) => WarmupExtent::Captured,
            (None, Provider::Cpu) => WarmupExtent::Smallest,
            (None, _) => WarmupExtent::All,
        };
        warm_up(session, runtime, source, provider, extent)
    });
    drop(progress);
    let mut loaded = loaded?;
    if let Some(cache) = cache {
        let directory = cache.path().to_owned();
        cache.commit().or_else(|error| not_kept(options, source, provider, &directory, error))?;
    }
    if provider == Provider::TensorRt {
        loaded.backend.tensorrt = loaded_version("libnvinfer.so");
        let version = loaded.backend.tensorrt.as_deref().unwrap_or_default();
        for ignored in options.provider.tensorrt.ignored_by(version) {
            log::warn!("{}: engine.tensorrt.{ignored}", source.name);
        }
    }
    Ok(loaded)
}

/// Logs a message of ONNX Runtime. Errors are reported by the function that failed, so that they are not logged again.
fn log_message(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
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
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
) -> Result<Option<Capture>, AttemptError> {
    let Some(device) = provider.cuda_graph_device(&options.provider) else { return Ok(None) };
    check_capture(runtime, options, provider)?;
    // A graph that is not evaluated repeatedly in the same shapes is not captured.
    let Some(profile) = &source.profile else { return Ok(None) };
    let description =
        Session::builder(&runtime.environment)?.with_optimization_level(GraphOptimizationLevel::Disable)?;
    let description = commit(description, source.files)?;
    let fixed_axes = cuda_graph::dynamic_axes(&description, &profile.max);
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

/// Runs the warm-up with profiling, and checks that the provider ran at least one node.
fn warm_up(
    mut session: OnnxRuntimeSession,
    runtime: &Runtime,
    source: &GraphSource<'_>,
    provider: Provider,
    extent: WarmupExtent,
) -> Result<LoadedSession, AttemptError> {
    source.warmup.run(&mut session, extent)?;
    let profile = session.session.end_profiling()?;
    let nodes = if provider.builds_engines() { &source.files.header.node_names[..] } else { &[] };
    let profile = Path::new(&profile);
    let mut backend = Backend::new(ENGINE, runtime.version.clone(), provider.to_string());
    backend.provider_shares = provider_shares(profile, nodes).map_err(AttemptError::io(
        "read the profile",
        profile,
        TEMPORARY_HINT,
    ))?;
    if backend.provider_shares.iter().any(|share| share.provider == backend.provider) {
        return Ok(LoadedSession { session: Box::new(session), backend });
    }
    let reason = format!("it was registered, but ran none of the nodes of {}", source.name);
    Err(AttemptError::Provider(ProviderFailure::Failed(reason)))
}

/// Reports an engine that is built at every start, because it cannot be kept.
fn not_kept(
    options: &EngineOptions,
    source: &GraphSource<'_>,
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
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
    profile: Option<&ShapeProfile>,
) -> Result<Option<EngineCache>, AttemptError> {
    let ProviderOptions { tensorrt, openvino, .. } = &options.provider;
    let (option, library) = match provider {
        Provider::TensorRt => (format!("{tensorrt:?}"), "libnvinfer.so"),
        _ => (format!("{openvino:?}"), "libopenvino.so"),
    };
    let key = Key::from([
        ("graph", source.sha256.to_owned()),
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
