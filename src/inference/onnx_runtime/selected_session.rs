//! A session that selects its provider by its first evaluation.

use super::dylib::Runtime;
use super::proof::Proof;
use super::provider_selection::{AttemptError, Selection};
use super::session_builder::SessionOpener;
use super::shape_graphs::ShapeGraphs;
use super::{ENGINE, OnnxRuntimeSession};
use crate::inference::backend::Backend;
use crate::inference::error::{EngineError, EvaluationError};
use crate::inference::graph_source::{GraphSource, ProvenBackend};
use crate::inference::options::{EngineOptions, OnStage};
use crate::inference::provider::{GraphCapture, Provider};
use crate::inference::session::{Input, Session};
use crate::tensor::GraphIo;

/// Opens a graph on the first provider that can be registered, or on the one that is proven.
pub(in crate::inference) fn open(
    runtime: Runtime,
    source: &GraphSource,
    options: &EngineOptions,
    proven: &ProvenBackend,
    on_stage: &OnStage,
) -> Result<Box<dyn Session>, EngineError> {
    let opener = SessionOpener { runtime, source: source.clone(), options: options.clone() };
    let (graph, state) = match proven.get() {
        Some(backend) => {
            let is_proven = |provider: &Provider| provider.to_string() == backend.provider;
            let provider = options.providers.iter().copied().find(is_proven).unwrap_or(Provider::Cpu);
            let session = reopen(&opener, provider)?;
            (
                session.graph.clone(),
                State::Proven(Box::new(ProvenSession { session: Some(session), opener, provider })),
            )
        }
        None => {
            let selection = Selection::new(options.providers.clone(), options, &source.files.graph);
            let unproven =
                Selecting { selection, opener, on_stage: on_stage.clone(), proven: proven.clone() };
            let candidate = unproven.open_next()?;
            (candidate.session.graph.clone(), State::Unproven(Box::new(candidate)))
        }
    };
    Ok(Box::new(SelectedSession { graph, state }))
}

/// A session whose provider is the first one that runs its first evaluation.
struct SelectedSession {
    graph: GraphIo,
    state: State,
}

enum State {
    Unproven(Box<Candidate>),
    Proven(Box<ProvenSession>),
    /// No provider runs the graph, for this reason.
    Refused(String),
}

/// A session on a provider that runs the graph.
struct ProvenSession {
    /// `None` if it could not be opened again.
    session: Option<OnnxRuntimeSession>,
    opener: SessionOpener,
    provider: Provider,
}

/// Opens a session on a provider that is proven to run the graph.
fn reopen(opener: &SessionOpener, provider: Provider) -> Result<OnnxRuntimeSession, EngineError> {
    let mut selection = Selection::new([provider], &opener.options, &opener.source.files.graph);
    selection.open_next(|reason| opener.advice(reason), |provider| opener.reopen(provider))
}

impl ProvenSession {
    /// Evaluates the graph. The session is opened again if its CUDA graphs can be of no more use.
    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let graphs = self.session.as_ref().and_then(OnnxRuntimeSession::shape_graphs);
        if graphs.is_some_and(ShapeGraphs::is_due_for_opening) {
            log::info!("{}: opening it again, to capture other CUDA graphs", self.opener.source.name);
            self.session = None;
        }
        let session = self.open()?;
        let result = session.run_all(inputs, names, outputs);
        let failure = session.shape_graphs().and_then(ShapeGraphs::failure).map(str::to_owned);
        let Some(reason) = failure else { return result };
        self.opener.give_up_capture(&reason);
        self.session = None;
        self.open()?.run_all(inputs, names, outputs)
    }

    fn open(&mut self) -> Result<&mut OnnxRuntimeSession, EvaluationError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                reopen(&self.opener, self.provider).map_err(|error| EvaluationError::Open(Box::new(error)))?
            }
        };
        Ok(self.session.insert(session))
    }
}

/// A session on a provider that can be registered.
struct Candidate {
    session: OnnxRuntimeSession,
    proof: Proof,
    selecting: Selecting,
}

/// The providers that are left, and what opens a session on them.
struct Selecting {
    selection: Selection,
    opener: SessionOpener,
    on_stage: OnStage,
    proven: ProvenBackend,
}

impl Selecting {
    fn open_next(mut self) -> Result<Candidate, EngineError> {
        let Self { selection, opener, on_stage, .. } = &mut self;
        let (session, proof) = selection
            .open_next(|reason| opener.advice(reason), |provider| opener.attempt(provider, on_stage))?;
        Ok(Candidate { session, proof, selecting: self })
    }

    /// Opens a session on the provider after one that failed, if the policy allows that.
    fn open_after(mut self, provider: Provider, failure: AttemptError) -> Result<Candidate, EngineError> {
        let Self { selection, opener, .. } = &mut self;
        selection.reject(provider, failure, |reason| opener.advice(reason))?;
        self.open_next()
    }

    /// Opens a session on a provider that was tried, and may work with what has changed.
    fn open_again(mut self, provider: Provider) -> Result<Candidate, EngineError> {
        self.selection.try_again(provider);
        self.open_next()
    }

    /// Publishes the backend, and returns the session that serves from now on.
    fn into_proven(self, session: OnnxRuntimeSession, provider: Provider, backend: Backend) -> ProvenSession {
        let backend = Backend { rejected_providers: self.selection.into_rejected(), ..backend };
        // Sessions of one graph are opened one after the other.
        let _ = self.proven.set(backend);
        ProvenSession { session: Some(session), opener: self.opener, provider }
    }
}

impl Session for SelectedSession {
    fn graph(&self) -> &GraphIo {
        &self.graph
    }

    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        match std::mem::replace(&mut self.state, State::Refused(String::new())) {
            State::Proven(mut session) => {
                let result = session.run_all(inputs, names, outputs);
                self.state = State::Proven(session);
                result
            }
            State::Unproven(candidate) => self.select(*candidate, inputs, names, outputs),
            State::Refused(reason) => {
                let error = EvaluationError::engine(ENGINE, &reason);
                self.state = State::Refused(reason);
                Err(error)
            }
        }
    }
}

impl SelectedSession {
    /// Makes the first evaluation, on the next provider if one fails or runs no node. On the CPU, which has no successor, a
    /// failed evaluation is no fault of the provider.
    fn select(
        &mut self,
        mut candidate: Candidate,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        loop {
            let Candidate { mut session, proof, selecting } = candidate;
            let provider = proof.provider;
            let failure = match proof.evaluate(&mut session, &selecting.opener, inputs, names, outputs) {
                Ok(shapes) => match proof.complete(&mut session, &selecting.opener) {
                    Ok(backend) => {
                        self.state =
                            State::Proven(Box::new(selecting.into_proven(session, provider, backend)));
                        return Ok(shapes);
                    }
                    Err(failure) => failure,
                },
                Err(error) if provider == Provider::Cpu => {
                    self.state = State::Unproven(Box::new(Candidate { session, proof, selecting }));
                    return Err(error);
                }
                Err(error) if proof.capture == GraphCapture::PerShape => {
                    // Without CUDA graphs the same provider may evaluate the graph.
                    selecting.opener.give_up_capture(&error.to_string());
                    drop((proof, session));
                    candidate = self.next_candidate(selecting.open_again(provider))?;
                    continue;
                }
                Err(error) => {
                    // An engine that cannot be evaluated is not kept.
                    drop(proof);
                    AttemptError::Evaluation(error)
                }
            };
            // Its memory is free before another session is opened.
            drop(session);
            candidate = self.next_candidate(selecting.open_after(provider, failure))?;
        }
    }

    /// Describes the session that is evaluated next, or records why there is none.
    fn next_candidate(
        &mut self,
        opened: Result<Candidate, EngineError>,
    ) -> Result<Candidate, EvaluationError> {
        let candidate = opened.map_err(|error| {
            self.state = State::Refused(error.to_string());
            EvaluationError::Open(Box::new(error))
        })?;
        self.graph = candidate.session.graph.clone();
        Ok(candidate)
    }
}
