//! Watches over the daemon: its published state, systemd, the watchdog, and reloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::heartbeat::Watchdog;
use super::local::Snapshot;
use super::metrics::Metrics;
use super::model_set::ModelReport;
use super::model_summary::ModelSummary;
use super::status::{Phase, StatusPublisher};
use super::systemd::SystemdNotifier;
use super::worker::ModelEvent;
use crate::config::{Config, LimitsConfig};
use crate::mqtt::{Message, Topics};
use crate::platform::{Platform, input_power};

/// How long the worker may make no progress, as `WatchdogSec` of denoised.service. One evaluation can take much longer
/// than the time between two ticks.
const MAX_SILENCE: Duration = Duration::from_secs(120);

pub(super) struct Supervisor {
    status: StatusPublisher,
    notifier: SystemdNotifier,
    watchdog: Watchdog,
    platform: Platform,
    topics: Topics,
    config: Config,
    /// Whether the broker has given the daemon its subscription on this connection.
    is_subscribed: bool,
    /// Whether the log has that requests are accepted.
    is_announced: bool,
    /// When the worker last made progress.
    last_alive: Instant,
    /// The loaded models as interfaces show them.
    models: Arc<[ModelSummary]>,
    /// The size of the messages that the broker had not acknowledged at the last tick, in bytes.
    spool_bytes: u64,
    /// What the interfaces of this process see.
    snapshot: watch::Sender<Option<Snapshot>>,
    metrics: Metrics,
    /// When the board's power was read last; `None` if nothing measures or records it.
    power_read: Option<Instant>,
}

impl Supervisor {
    pub(super) fn new(
        config: &Config,
        topics: Topics,
        notifier: SystemdNotifier,
        watchdog: Watchdog,
        snapshot: watch::Sender<Option<Snapshot>>,
        metrics: Metrics,
    ) -> Self {
        let platform = config.board.platform();
        let mut status = StatusPublisher::new(config.node.as_str());
        // Every published state has the temperature, even one before the first tick.
        status.update_thermal(&platform);
        let measures_power = metrics.is_recording() && !platform.power_rails().is_empty();
        let supervisor = Self {
            status,
            notifier,
            watchdog,
            platform,
            topics,
            config: config.clone(),
            is_subscribed: false,
            is_announced: false,
            last_alive: Instant::now(),
            models: Arc::default(),
            spool_bytes: 0,
            snapshot,
            metrics,
            power_read: measures_power.then(Instant::now),
        };
        supervisor.share();
        supervisor
    }

    /// Shows the present state to the interfaces of this process.
    fn share(&self) {
        if self.snapshot.receiver_count() == 0 {
            return;
        }
        let snapshot = Some(Snapshot {
            state: self.status.state().clone(),
            models: Arc::clone(&self.models),
            limits: self.config.limits.clone(),
            is_connected: self.is_subscribed,
            is_alive: self.last_alive.elapsed() < MAX_SILENCE,
            spool_bytes: self.spool_bytes,
        });
        self.snapshot.send_if_modified(|known| {
            let is_changed = *known != snapshot;
            *known = snapshot;
            is_changed
        });
    }

    fn record_power(&mut self) {
        let Some(last) = self.power_read else { return };
        if let Some((watts, _)) = input_power(&self.platform.power_rails()) {
            self.metrics.on_power(watts, last.elapsed());
        }
        self.power_read = Some(Instant::now());
    }

    /// Updates the state, and reports to systemd. `spool_bytes` is the size of the messages that the broker has not
    /// acknowledged. Returns the state if it has changed.
    pub(super) fn on_tick(&mut self, jobs: usize, spool_bytes: u64) -> Option<Message> {
        self.status.set_queue(jobs);
        self.status.update_elapsed();
        self.status.update_thermal(&self.platform);
        let state = self.status.is_stale().then(|| self.status.state_message(&self.topics));
        self.notifier.status(self.status.summary());
        let is_alive = self.watchdog.is_alive();
        self.notifier.keep_alive(is_alive);
        if is_alive {
            self.last_alive = Instant::now();
        }
        self.spool_bytes = spool_bytes;
        self.record_power();
        self.share();
        state
    }

    /// Returns the messages to publish on each connection.
    pub(super) fn on_connected(&mut self) -> [Message; 2] {
        [self.status.online_message(&self.topics), self.status.state_message(&self.topics)]
    }

    /// Returns whether the machine has a thermal sensor.
    pub(super) fn has_thermal(&self) -> bool {
        self.status.state().thermal.is_some()
    }

    /// Requests arrive from now on.
    pub(super) fn on_subscribed(&mut self) {
        self.is_subscribed = true;
        self.status.set_waits_for_broker(false);
        self.announce();
        self.share();
    }

    pub(super) fn on_disconnected(&mut self) {
        self.is_subscribed = false;
        self.status.set_waits_for_broker(true);
        self.share();
    }

    /// Logs once that requests are accepted: the models are ready, and the broker has the subscription.
    fn announce(&mut self) {
        if self.is_subscribed && self.status.is_ready() && !self.is_announced {
            self.is_announced = true;
            log::info!("ready: requests are accepted on {}", self.topics.request());
        }
    }

    /// Sets what the broker does not serve; the next tick publishes it.
    pub(super) fn set_broker_deficits(&mut self, deficits: Vec<String>) {
        self.status.set_broker_deficits(deficits);
    }

    /// Returns the state if it must be published at once.
    pub(super) fn on_model_event(&mut self, event: &ModelEvent) -> Option<Message> {
        match event {
            ModelEvent::Loading(stage) => self.status.set_phase((*stage).into()),
            ModelEvent::Ready(models) => {
                self.status.set_phase(Phase::Ready);
                let served = models.iter().map(|card| (Arc::clone(card), true)).collect();
                self.set_models(&ModelReport { served, ..ModelReport::default() });
                if !self.is_subscribed {
                    let url = &self.config.mqtt.url;
                    log::info!("the models are ready; waiting for the broker at {url}");
                }
                self.announce();
                self.notifier.ready();
            }
            ModelEvent::Latency { model, ms_per_nfe } => {
                self.status.set_latency(model, *ms_per_nfe);
                return None;
            }
            // The router reports what changes with these.
            ModelEvent::Failed(_)
            | ModelEvent::Replaced(_)
            | ModelEvent::LoadStage { .. }
            | ModelEvent::Loaded { .. }
            | ModelEvent::Unloaded(_)
            | ModelEvent::Open { .. } => return None,
        }
        self.share();
        Some(self.status.state_message(&self.topics))
    }

    /// The models have changed. Returns the state if it has.
    pub(super) fn on_models(&mut self, report: &ModelReport) -> Option<Message> {
        self.set_models(report);
        self.share();
        self.status.is_stale().then(|| self.status.state_message(&self.topics))
    }

    fn set_models(&mut self, report: &ModelReport) {
        self.status.set_models(report);
        self.models = report.served.iter().map(|(card, _)| ModelSummary::new(card)).collect();
    }

    /// Reports that the daemon stops. Returns the state, and how long to wait for unfinished jobs.
    pub(super) fn start_draining(&mut self) -> (Message, Duration) {
        self.status.set_phase(Phase::Draining);
        self.notifier.stopping();
        self.share();
        (self.status.state_message(&self.topics), Duration::from_secs(self.config.limits.drain_s.0))
    }

    pub(super) fn offline_message(&self) -> Message {
        self.status.offline_message(&self.topics)
    }

    /// Applies and returns the settings that can change at run time. Logs the sections that need a restart.
    pub(super) fn reload(&mut self, config: Config) -> LimitsConfig {
        let (new, old) = (&config, &self.config);
        let sections = [
            ("node", new.node != old.node),
            ("[mqtt]", new.mqtt != old.mqtt),
            ("[home_assistant]", new.home_assistant != old.home_assistant),
            ("[http]", new.http != old.http),
            ("[engine]", new.engine != old.engine),
            ("[spool]", new.spool != old.spool),
            ("[receipt]", new.receipt != old.receipt),
            ("[log]", new.log != old.log),
            ("[board]", new.board != old.board),
        ];
        let changed: Vec<_> =
            sections.iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| *name).collect();
        if changed.is_empty() {
            log::info!("configuration reloaded: [limits] and [models] apply now");
        } else {
            log::warn!(
                "configuration reloaded: [limits] and [models] apply now, but {} only after a restart",
                changed.join(", ")
            );
        }
        self.config.limits = config.limits;
        self.config.models = config.models;
        self.share();
        self.config.limits.clone()
    }
}
