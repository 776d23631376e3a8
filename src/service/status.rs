//! What the daemon publishes about itself.

use std::time::Instant;

use serde::Serialize;

use crate::inference::{ProviderShare, RejectedProvider, Stage};
use crate::job::ModelCard;
use crate::mqtt::{Message, Topics};
use crate::platform::Platform;

/// What the daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The daemon has begun.
    Starting,
    /// A provider builds an engine of its own, which may take minutes.
    BuildingEngine,
    /// A model is loaded and evaluated for the first time.
    Warming,
    /// Jobs are taken.
    Ready,
    /// The daemon is stopping.
    Draining,
}

impl From<Stage> for Phase {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::BuildingEngine => Self::BuildingEngine,
            Stage::Warming => Self::Warming,
        }
    }
}

/// While a phase lasts, how long it has is published in steps of so many seconds.
const STEP_S: u64 = 5;

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ModelState {
    name: String,
    sha256: String,
    engine: &'static str,
    engine_version: String,
    provider: String,
    ran: Vec<ProviderShare>,
    instead_of: Vec<RejectedProvider>,
    ms_per_nfe: Option<f64>,
}

impl ModelState {
    fn of(card: &ModelCard) -> Self {
        let origin = card.origin.clone();
        Self {
            name: card.bundle.name.clone(),
            sha256: card.bundle.sha256.clone(),
            engine: origin.engine,
            engine_version: origin.version,
            provider: origin.provider,
            ran: origin.provider_shares,
            instead_of: origin.rejected_providers,
            ms_per_nfe: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct State {
    phase: Phase,
    /// For how long the phase has lasted; not where it is ready.
    elapsed_s: Option<u64>,
    node: String,
    version: &'static str,
    /// The default model's, for those who have but one.
    engine: Option<&'static str>,
    provider: Option<String>,
    ms_per_nfe: Option<f64>,
    queue: usize,
    /// Where the board has a thermal sensor.
    heat: Option<ThermalState>,
    models: Vec<ModelState>,
}

/// How warm the board is.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct ThermalState {
    /// The warmest zone's temperature in whole degrees Celsius.
    celsius: i64,
    /// What slows the board down at present.
    throttles: Vec<String>,
}

/// A temperature is published again where it differs by so many degrees.
const WARMER: i64 = 2;

/// The daemon's state and what of it was published last.
#[derive(Debug)]
pub(super) struct StatusPublisher {
    began: Instant,
    state: State,
    published: Option<State>,
}

impl StatusPublisher {
    pub(super) fn new(node: &str) -> Self {
        let state = State {
            phase: Phase::Starting,
            elapsed_s: Some(0),
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            engine: None,
            provider: None,
            ms_per_nfe: None,
            queue: 0,
            heat: None,
            models: Vec::new(),
        };
        Self { began: Instant::now(), state, published: None }
    }

    pub(super) fn ready(&mut self, models: &[ModelCard]) {
        self.phase(Phase::Ready);
        self.state.models = models.iter().map(ModelState::of).collect();
        self.show_default();
    }

    /// A model is served by another provider.
    pub(super) fn changed(&mut self, card: &ModelCard) {
        for state in self.state.models.iter_mut().filter(|state| state.name == card.bundle.name) {
            *state = ModelState::of(card);
        }
        self.show_default();
    }

    /// The default model's engine and provider stand beside the phase.
    fn show_default(&mut self) {
        let first = self.state.models.first();
        self.state.engine = first.map(|first| first.engine);
        self.state.provider = first.map(|first| first.provider.clone());
    }

    pub(super) fn phase(&mut self, phase: Phase) {
        if self.state.phase != phase {
            self.began = Instant::now();
        }
        self.state.phase = phase;
        self.elapse();
    }

    /// Time goes on: a phase that lasts says for how long.
    pub(super) fn elapse(&mut self) {
        let elapsed = self.began.elapsed().as_secs() / STEP_S * STEP_S;
        self.state.elapsed_s = (self.state.phase != Phase::Ready).then_some(elapsed);
    }

    pub(super) fn queue(&mut self, jobs: usize) {
        self.state.queue = jobs;
    }

    pub(super) fn heat(&mut self, machine: &Platform) {
        let heat = machine.heat();
        let Some(celsius) = heat.hottest().map(|celsius| celsius.round() as i64) else { return };
        let told = self.state.heat.as_ref();
        let same = told
            .is_some_and(|told| (told.celsius - celsius).abs() < WARMER && told.throttles == heat.throttles);
        if !same {
            self.state.heat = Some(ThermalState { celsius, throttles: heat.throttles });
        }
    }

    /// All of it in one line.
    pub(super) fn line(&self) -> String {
        let State { phase, elapsed_s, queue, models, .. } = &self.state;
        let phase = match phase {
            Phase::Starting => "starting",
            Phase::BuildingEngine => "building an engine",
            Phase::Warming => "warming",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        };
        let models: Vec<_> =
            models.iter().map(|model| format!("{} on {}", model.name, model.provider)).collect();
        let parts = [
            Some(phase.to_owned()),
            elapsed_s.filter(|seconds| *seconds > 0).map(|seconds| format!("for {seconds} s")),
            (!models.is_empty()).then(|| models.join(", ")),
            (*queue > 0).then(|| format!("{queue} jobs in hand")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// How long an evaluation of a model takes at present.
    pub(super) fn pace(&mut self, model: &str, ms_per_nfe: f64) {
        let rounded = Some((ms_per_nfe * 100.0).round() / 100.0);
        for (i, state) in self.state.models.iter_mut().enumerate() {
            if state.name == model {
                state.ms_per_nfe = rounded;
                if i == 0 {
                    self.state.ms_per_nfe = rounded;
                }
            }
        }
    }

    /// Whether the published state no longer holds.
    pub(super) fn is_stale(&self) -> bool {
        self.published.as_ref() != Some(&self.state)
    }

    /// The state, to be kept by the broker.
    pub(super) fn message(&mut self, topics: &Topics) -> Message {
        self.published = Some(self.state.clone());
        let json = serde_json::to_vec(&self.state).unwrap_or_default();
        Message {
            retain: true,
            content_type: Some("application/json".into()),
            ..Message::new(topics.state(), json)
        }
    }

    pub(super) fn online(&self, topics: &Topics) -> Message {
        retained(topics, "online")
    }

    pub(super) fn offline(&self, topics: &Topics) -> Message {
        retained(topics, "offline")
    }
}

fn retained(topics: &Topics, status: &'static str) -> Message {
    Message { retain: true, ..Message::new(topics.status(), status) }
}
