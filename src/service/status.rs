//! The daemon's published state.

use std::time::Instant;

use serde::Serialize;

use super::model_set::ModelReport;
use crate::inference::{LoadStage, ProviderShare, RejectedProvider};
use crate::job::ModelCard;
use crate::mqtt::{Message, Topics};
use crate::platform::Platform;
use crate::units::counted;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Starting,
    /// A provider builds an engine, which may take minutes.
    BuildingEngine,
    /// A model is loaded and evaluated once.
    Warming,
    /// The models are loaded. Requests are accepted while the broker is connected.
    Ready,
    /// The daemon finishes its jobs and stops.
    Draining,
}

impl Phase {
    /// Every phase.
    pub(super) const ALL: [Self; 5] =
        [Self::Starting, Self::BuildingEngine, Self::Warming, Self::Ready, Self::Draining];

    /// The name in the published state.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::BuildingEngine => "building_engine",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl From<LoadStage> for Phase {
    fn from(stage: LoadStage) -> Self {
        match stage {
            LoadStage::BuildingEngine => Self::BuildingEngine,
            LoadStage::Preparing | LoadStage::Warming => Self::Warming,
        }
    }
}

/// The elapsed time of a phase is rounded down to a multiple of this many seconds.
const ELAPSED_RESOLUTION_S: u64 = 5;

/// Where the network of a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Residence {
    /// In memory.
    Loaded,
    /// On disk only. The next job opens it.
    OnDisk,
}

/// A model that takes no jobs yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct LoadingModel {
    name: String,
    /// `None` until its load has begun.
    phase: Option<Phase>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ModelState {
    pub(crate) name: String,
    status: Residence,
    pub(super) sha256: String,
    pub(super) engine: &'static str,
    pub(super) engine_version: String,
    pub(super) provider: String,
    /// Whether evaluations are captured as CUDA graphs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cuda_graph: bool,
    provider_shares: Vec<ProviderShare>,
    rejected_providers: Vec<RejectedProvider>,
    pub(super) ms_per_nfe: Option<f64>,
}

impl ModelState {
    fn new(card: &ModelCard, is_open: bool) -> Self {
        let backend = card.backend.clone();
        Self {
            name: card.bundle.name.clone(),
            status: if is_open { Residence::Loaded } else { Residence::OnDisk },
            // The worker has made the digests.
            sha256: card.digest(),
            engine: backend.engine,
            engine_version: backend.version,
            provider: backend.provider,
            cuda_graph: backend.cuda_graph,
            provider_shares: backend.provider_shares,
            rejected_providers: backend.rejected_providers,
            ms_per_nfe: None,
        }
    }

    /// Whether both are served in the same way, so that evaluations take as long.
    fn is_like(&self, other: &Self) -> bool {
        let key = |state: &Self| (state.name.clone(), state.sha256.clone(), state.provider.clone());
        key(self) == key(other)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Seconds since the phase began; `None` when ready.
    elapsed_s: Option<u64>,
    node: String,
    version: &'static str,
    /// This and the next two are those of the default model.
    engine: Option<&'static str>,
    provider: Option<String>,
    ms_per_nfe: Option<f64>,
    pub(super) queue: usize,
    /// `None` without a thermal sensor.
    pub(super) thermal: Option<ThermalState>,
    /// The models that requests can name.
    pub(crate) models: Vec<ModelState>,
    loading: Vec<LoadingModel>,
    /// The models that finish their jobs and take no others.
    unloading: Vec<String>,
    broker: BrokerState,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct BrokerState {
    /// What the broker does not serve, each in one sentence.
    deficits: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ThermalState {
    /// The temperature of the hottest zone, rounded.
    pub(super) celsius: i64,
    /// Cooling devices that are active.
    pub(super) throttles: Vec<String>,
}

/// The change of temperature, in degrees Celsius, from which it is published again.
const REPORT_DELTA_C: i64 = 2;

/// The current state, and the last published one.
#[derive(Debug)]
pub(super) struct StatusPublisher {
    phase_start: Instant,
    /// Whether no requests arrive, because the broker is not connected or has not granted the subscription.
    waits_for_broker: bool,
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
            thermal: None,
            models: Vec::new(),
            loading: Vec::new(),
            unloading: Vec::new(),
            broker: BrokerState::default(),
        };
        Self { phase_start: Instant::now(), waits_for_broker: true, state, published: None }
    }

    pub(super) fn set_models(&mut self, report: &ModelReport) {
        let ModelReport { served, loading, unloading } = report;
        let former = std::mem::take(&mut self.state.models);
        self.state.models = served
            .iter()
            .map(|(card, is_open)| {
                let state = ModelState::new(card, *is_open);
                let known = former.iter().find(|known| known.is_like(&state));
                ModelState { ms_per_nfe: known.and_then(|known| known.ms_per_nfe), ..state }
            })
            .collect();
        let loading = loading.iter();
        self.state.loading = loading
            .map(|(name, stage)| LoadingModel { name: name.clone(), phase: stage.map(Phase::from) })
            .collect();
        self.state.unloading.clone_from(unloading);
        let default = self.state.models.first();
        self.state.engine = default.map(|model| model.engine);
        self.state.provider = default.map(|model| model.provider.clone());
        self.state.ms_per_nfe = default.and_then(|model| model.ms_per_nfe);
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if self.state.phase != phase {
            self.phase_start = Instant::now();
        }
        self.state.phase = phase;
        self.update_elapsed();
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state.phase == Phase::Ready
    }

    pub(super) fn set_waits_for_broker(&mut self, waits: bool) {
        self.waits_for_broker = waits;
    }

    pub(super) fn update_elapsed(&mut self) {
        let elapsed = self.phase_start.elapsed().as_secs() / ELAPSED_RESOLUTION_S * ELAPSED_RESOLUTION_S;
        self.state.elapsed_s = (self.state.phase != Phase::Ready).then_some(elapsed);
    }

    pub(super) fn set_broker_deficits(&mut self, deficits: Vec<String>) {
        self.state.broker.deficits = deficits;
    }

    pub(super) fn set_queue(&mut self, jobs: usize) {
        self.state.queue = jobs;
    }

    /// Reads the temperature, and updates the state if it has changed enough.
    pub(super) fn update_thermal(&mut self, platform: &Platform) {
        let thermal = platform.thermal_status();
        let Some(celsius) = thermal.hottest().map(|celsius| celsius.round() as i64) else { return };
        let is_unchanged = self.state.thermal.as_ref().is_some_and(|last| {
            (last.celsius - celsius).abs() < REPORT_DELTA_C && last.throttles == thermal.throttles
        });
        if !is_unchanged {
            self.state.thermal = Some(ThermalState { celsius, throttles: thermal.throttles });
        }
    }

    /// The state in one line, for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let State { phase, elapsed_s, queue, models, .. } = &self.state;
        let phase = match phase {
            Phase::Starting => "starting",
            Phase::BuildingEngine => "building an engine",
            Phase::Warming => "warming",
            Phase::Ready if self.waits_for_broker => "models ready, waiting for the broker",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        };
        let models: Vec<_> =
            models.iter().map(|model| format!("{} on {}", model.name, model.provider)).collect();
        let parts = [
            Some(phase.to_owned()),
            elapsed_s.filter(|seconds| *seconds > 0).map(|seconds| format!("for {seconds} s")),
            (!models.is_empty()).then(|| models.join(", ")),
            (*queue > 0).then(|| format!("{} queued", counted(*queue as u64, "job"))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Sets the duration of an evaluation, rounded to hundredths of a millisecond.
    pub(super) fn set_latency(&mut self, model: &str, ms_per_nfe: f64) {
        let rounded = Some((ms_per_nfe * 100.0).round() / 100.0);
        for state in self.state.models.iter_mut().filter(|state| state.name == model) {
            state.ms_per_nfe = rounded;
        }
        if self.state.models.first().is_some_and(|default| default.name == model) {
            self.state.ms_per_nfe = rounded;
        }
    }

    /// Returns whether the state differs from the published one.
    pub(super) fn is_stale(&self) -> bool {
        self.published.as_ref() != Some(&self.state)
    }

    /// The state as a retained message; it counts as published.
    #[expect(clippy::expect_used, reason = "the state holds only values that JSON can represent")]
    pub(super) fn state_message(&mut self, topics: &Topics) -> Message {
        self.published = Some(self.state.clone());
        let json = serde_json::to_vec(&self.state).expect("the state has string keys only");
        Message {
            retain: true,
            content_type: Some("application/json".into()),
            ..Message::new(topics.state(), json)
        }
    }

    pub(super) fn online_message(&self, topics: &Topics) -> Message {
        status_message(topics, "online")
    }

    pub(super) fn offline_message(&self, topics: &Topics) -> Message {
        status_message(topics, "offline")
    }
}

fn status_message(topics: &Topics, status: &'static str) -> Message {
    Message { retain: true, ..Message::new(topics.status(), status) }
}
