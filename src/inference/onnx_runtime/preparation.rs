//! Opens prepared graphs, and the sessions that compare them with the exported ones.

use std::sync::Arc;

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session as OrtSession};

use super::commit::{self, commit_prepared};
use super::dylib::Runtime;
use super::provider_selection::AttemptError;
use super::session_builder::log_message;
use super::{ENGINE, OnnxRuntimeSession};
use crate::inference::graph_source::GraphSource;
use crate::inference::options::{EngineOptions, LoadStage};
use crate::inference::prepared_graph::{self, Prepared, PreparedGraph, Request};
use crate::inference::provider::Provider;
use crate::inference::session::Session;

/// Returns the prepared graph for a provider. `None` if the exported file serves.
pub(super) fn open(
    runtime: &Runtime,
    source: &GraphSource,
    options: &EngineOptions,
    provider: Provider,
    on_stage: &dyn Fn(LoadStage),
) -> Option<Prepared> {
    let request = Request { source, options, provider, engine_version: &runtime.version };
    prepared_graph::open(&request, on_stage, &mut |graph| {
        open_for_comparison(runtime, source, graph)
            .and_then(|session| Ok(OnnxRuntimeSession::new(session, RunOptions::new()?)))
            .map(|session| Box::new(session) as Box<dyn Session>)
            .map_err(|error| error.reason())
    })
}

/// Opens the prepared graph as it will serve, or the exported graph without optimisation and without copies of weights.
fn open_for_comparison(
    runtime: &Runtime,
    source: &GraphSource,
    graph: Option<&PreparedGraph>,
) -> Result<OrtSession, AttemptError> {
    // For one evaluation a memory pattern is of no use, and it reserves address space for all weights.
    let builder = OrtSession::builder(&runtime.environment)?
        .with_logger(Arc::new(log_message))?
        .with_memory_pattern(false)?;
    match graph {
        Some(graph) => Ok(commit_prepared(builder, graph, Provider::Cpu)?),
        None => {
            let builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
            commit::commit(builder.with_prepacking(false)?, &source.files)
        }
    }
}

/// Opens a session on the prepared graph, or on the exported one if there is none or it cannot be opened.
pub(super) fn commit(
    builder: SessionBuilder,
    source: &GraphSource,
    prepared: Option<&Prepared>,
    provider: Provider,
) -> Result<OrtSession, AttemptError> {
    let Some(prepared) = prepared else { return commit::commit(builder, &source.files) };
    commit_prepared(builder.clone(), &prepared.graph, provider).or_else(|error| {
        let reason = AttemptError::from(error).reason();
        log::warn!(
            "{ENGINE}: the exported graph of {} serves, because its prepared graph fails: {reason}",
            source.name
        );
        commit::commit(builder, &source.files)
    })
}

/// Opens a session on the prepared graph, or on the exported one if there is none. Nothing else is tried if that fails.
pub(super) fn commit_only(
    builder: SessionBuilder,
    source: &GraphSource,
    prepared: Option<&Prepared>,
    provider: Provider,
) -> Result<OrtSession, AttemptError> {
    match prepared {
        Some(prepared) => Ok(commit_prepared(builder, &prepared.graph, provider)?),
        None => commit::commit(builder, &source.files),
    }
}
