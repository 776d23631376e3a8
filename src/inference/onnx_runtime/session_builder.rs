//! The first provider that really works, with the proof that it does.

use std::path::Path;
use std::time::{Duration, Instant};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::{ENGINE, OnnxRuntime, WAY_OUT, cuda_graph as captured, profile as proof};
use crate::bundle::onnx_file as file;
use crate::bundle::signature::SignatureError;
use crate::inference::engine_cache::{EngineCache, Key};
use crate::inference::load::{GraphSource, LoadedSession, WarmupError};
use crate::inference::onnx_runtime::dylib::Runtime;
use crate::inference::provider::{Policy, Provider, ProviderOptions, Shapes, TensorRt};
use crate::model::predictor::{Backend, RejectedProvider};
use crate::model::{EngineOptions, ModelError, Stage};

/// How often a build that goes on says so.
const STILL: Duration = Duration::from_secs(10);

/// Why a provider does not serve.
enum Failure {
    /// The graph can't be fed, whatever runs it.
    Signature(SignatureError),
    /// The provider does not work, in the library's words.
    Provider(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    /// Of the library's words, those that follow its own source's place and error code.
    fn from(error: E) -> Self {
        let text = error.to_string();
        let words = text.rsplit("[ONNXRuntimeError] : ").next().unwrap_or(&text);
        let words = words.split_once(" : ").map_or(words, |(code, rest)| match code.parse::<u32>() {
            Ok(_) => rest.split_once(" : ").map_or(rest, |(_, rest)| rest),
            Err(_) => words,
        });
        Self::Provider(words.trim().to_owned())
    }
}

/// A session on the first provider in the list that works.
pub(crate) fn open(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    on: &mut dyn FnMut(Stage),
) -> Result<LoadedSession, ModelError> {
    let mut instead_of: Vec<RejectedProvider> = Vec::new();
    for &provider in &options.providers {
        let reason = match attempt(runtime, source, options, provider, on) {
            Ok(mut opened) => {
                opened.origin.instead_of = instead_of;
                return Ok(opened);
            }
            Err(Failure::Signature(error)) => {
                return Err(ModelError::Signature { graph: source.graph.to_owned(), error });
            }
            Err(Failure::Provider(reason)) => reason,
        };
        match (provider, options.policy) {
            (Provider::Cpu, _) => {
                let graph = source.graph.to_owned();
                return Err(ModelError::Load { engine: ENGINE, graph, reason, way_out: WAY_OUT });
            }
            (_, Policy::Required) => return Err(ModelError::Provider { provider, reason }),
            (_, Policy::Preferred) => {
                log::warn!("the execution provider {provider} does not work here: {reason}");
                instead_of.push(RejectedProvider { provider: provider.to_string(), reason });
            }
        }
    }
    let last = options.providers.last().copied().unwrap_or(Provider::Cpu);
    let reason = instead_of.pop().map_or_else(|| "no provider is configured".to_owned(), |last| last.reason);
    Err(ModelError::Provider { provider: last, reason })
}

fn attempt(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
    on: &mut dyn FnMut(Stage),
) -> Result<LoadedSession, Failure> {
    if !provider.is_compiled_in() {
        let version = &runtime.version;
        return Err(Failure::Provider(format!("the library of ONNX Runtime {version} was built without it")));
    }
    let Form { shapes, captured } = form(runtime, source, options, provider)?;
    let mut cache = provider
        .builds_engines()
        .then(|| cache(runtime, source, options, provider, shapes.as_ref()))
        .flatten();
    let profile = tempfile::tempdir()?;
    let mut builder = Session::builder(&runtime.environment)?
        .with_profiling(profile.path().join("profile"))
        .map_err(|error| error.to_string())?;
    let directory = cache.as_ref().map(EngineCache::path);
    let dispatch = provider.dispatch(&options.provider, directory, shapes.as_ref(), captured.is_some());
    if let Some(dispatch) = dispatch {
        builder = builder.with_execution_providers([dispatch]).map_err(|error| error.to_string())?;
    }
    for (axis, length) in captured.iter().flat_map(|captured| &captured.fixed) {
        builder = builder.with_dimension_override(axis, *length as i64).map_err(|error| error.to_string())?;
    }
    // From here on the provider's libraries are there.
    let still = if provider.builds_engines() && cache.as_ref().is_none_or(|cache| !cache.is_built) {
        enough_memory(options)?;
        on(Stage::BuildingEngine);
        Some(Still::building(&source.name, provider))
    } else {
        None
    };
    if let Some(cache) = &mut cache {
        // From here on what goes wrong may be the kept engine's fault.
        cache.doubt();
    }
    let proven = builder.commit_from_file(source.graph).map_err(Failure::from).and_then(|session| {
        on(Stage::Warming);
        let origin = Backend::new(ENGINE, runtime.version.clone(), provider.to_string());
        let opened = match captured {
            Some(Capture { device, .. }) => {
                OnnxRuntime::captured(session, device).map_err(Failure::Provider)?
            }
            None => OnnxRuntime::new(session, provider.reads_pinned_memory()),
        };
        proven(opened, origin, source, provider)
    });
    drop(still);
    if let (Ok(_), Some(cache)) = (&proven, cache) {
        cache.keep();
    }
    proven
}

/// The form in which a provider gets the graph.
struct Form {
    /// The shapes of its inputs, where an engine is built or a run captured for them.
    shapes: Option<Shapes>,
    captured: Option<Capture>,
}

/// How a run is captured.
struct Capture {
    /// On which GPU.
    device: i32,
    /// The lengths of the axes that the graph leaves free, by their names.
    fixed: Vec<(String, usize)>,
}

fn form(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
) -> Result<Form, Failure> {
    let device = provider.captures(&options.provider);
    if device.is_some() {
        check_capture(runtime, options, provider)?;
    } else if provider != Provider::TensorRt {
        return Ok(Form { shapes: None, captured: None });
    }
    let session = described(runtime, source)?;
    let shapes = source.purpose.shapes(&super::described(&session), &options.provider.tensorrt);
    // What is not evaluated again and again in the same shapes is not captured.
    Ok(match (device, shapes.map_err(Failure::Signature)?) {
        (Some(device), Some(shapes)) => {
            let fixed = captured::fixed(&session, shapes.largest());
            Form { captured: Some(Capture { device, fixed }), shapes: Some(shapes.of_largest()) }
        }
        (_, shapes) => Form { shapes, captured: None },
    })
}

/// Whether what is asked for goes with a CUDA graph.
fn check_capture(runtime: &Runtime, options: &EngineOptions, provider: Provider) -> Result<(), Failure> {
    if !runtime.is_at_least(1, 23) {
        // With an older library `ort` has no way to copy between the processor and a GPU.
        return Err(Failure::Provider(format!(
            "cuda_graph needs ONNX Runtime 1.23 or newer, and this is {}; take a newer one, or leave cuda_graph out",
            runtime.version
        )));
    }
    let TensorRt { min_batch, opt_batch, .. } = options.provider.tensorrt;
    if provider == Provider::TensorRt && min_batch.or(opt_batch).is_some() {
        let words =
            "cuda_graph fills every batch up to the largest; leave out min_batch and opt_batch, or it";
        return Err(Failure::Provider(words.to_owned()));
    }
    Ok(())
}

/// Evaluate the network, and have the profile tell what really ran.
fn proven(
    mut opened: OnnxRuntime,
    mut origin: Backend,
    source: &GraphSource<'_>,
    provider: Provider,
) -> Result<LoadedSession, Failure> {
    source.purpose.warm(&mut opened, provider != Provider::Cpu).map_err(|refusal| match refusal {
        WarmupError::Signature(error) => Failure::Signature(error),
        WarmupError::Evaluation(error) => Failure::from(error),
    })?;
    let profile = opened.session.end_profiling()?;
    let graph = if provider.builds_engines() { file::node_names(source.graph)? } else { Vec::new() };
    origin.ran = proof::shares(Path::new(&profile), &graph)?;
    if origin.ran.iter().any(|share| share.provider == origin.provider) {
        return Ok(LoadedSession { session: Box::new(opened), origin });
    }
    Err(Failure::Provider(format!("it was registered, but ran none of the nodes of {}", source.name)))
}

/// The graph without any provider, which tells how it is fed.
fn described(runtime: &Runtime, source: &GraphSource<'_>) -> Result<Session, Failure> {
    Ok(Session::builder(&runtime.environment)?
        .with_optimization_level(GraphOptimizationLevel::Disable)
        .map_err(|error| error.to_string())?
        .commit_from_file(source.graph)?)
}

/// Where the provider's engine is kept; without such a place it is built at every start, aloud.
fn cache(
    runtime: &Runtime,
    source: &GraphSource<'_>,
    options: &EngineOptions,
    provider: Provider,
    shapes: Option<&Shapes>,
) -> Option<EngineCache> {
    let host = &options.host;
    let ProviderOptions { tensorrt, openvino, .. } = &options.provider;
    let (chosen, library) = match provider {
        Provider::TensorRt => (serde_json::to_string(tensorrt), "libnvinfer.so"),
        _ => (serde_json::to_string(openvino), "libopenvino.so"),
    };
    let key = Key::from([
        ("graph", source.sha256.to_owned()),
        ("shapes", format!("{shapes:?}, batches of up to {}", options.batch)),
        ("option", chosen.unwrap_or_default()),
        ("ONNX Runtime", runtime.version.clone()),
        ("library", host.library_version(library).unwrap_or_default()),
        ("device", host.device()),
    ]);
    match EngineCache::open(&options.cache, &source.name, provider, key) {
        Ok(cache) => Some(cache),
        Err(error) => {
            log::warn!(
                "the engine that {provider} builds for {} can't be kept in {} ({error}), so every start builds \
                 it again; name a directory that may be written in [engine] cache",
                source.name,
                options.cache.display()
            );
            None
        }
    }
}

fn enough_memory(options: &EngineOptions) -> Result<(), Failure> {
    match options.host.available_memory() {
        Some(free) if free < options.build_memory => Err(Failure::Provider(format!(
            "building its engine may take {} MiB ([engine] build_memory) and {} MiB are free; close what else \
             runs, or build with `denoised build-engines` while the daemon is stopped",
            options.build_memory >> 20,
            free >> 20
        ))),
        _ => Ok(()),
    }
}

/// Says from time to time that a build goes on, until dropped.
struct Still {
    done: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Still {
    fn building(model: &str, provider: Provider) -> Self {
        log::warn!("{provider} builds its engine of {model}; on a board this takes minutes, and once only");
        let (done, ended) = std::sync::mpsc::sync_channel::<()>(1);
        let (model, began) = (model.to_owned(), Instant::now());
        let thread = std::thread::Builder::new().name("still".to_owned()).spawn(move || {
            while ended.recv_timeout(STILL) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                log::warn!("{provider} still builds its engine of {model}: {:.0?} so far", began.elapsed());
            }
        });
        Self { done: Some(done), thread: thread.ok() }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It says nothing more and waits for nothing.
            let _ = thread.join();
        }
    }
}
