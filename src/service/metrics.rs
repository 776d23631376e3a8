//! Counters, gauges and histograms for Prometheus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::local::Snapshot;
use super::status::Phase;
use crate::inference::ResidentMemory;
use crate::job::ErrorCode;
use crate::job::receipt::Receipt;

/// The upper bounds of the histogram of job durations, in seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Finished,
    Failed(ErrorCode),
}

impl Outcome {
    /// Every label.
    const LABELS: [&'static str; 4] = ["finished", "failed", "cancelled", "deadline"];

    fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed(ErrorCode::Cancelled) => "cancelled",
            Self::Failed(ErrorCode::Deadline) => "deadline",
            Self::Failed(_) => "failed",
        }
    }
}

/// The daemon's metrics. The default records nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Option<Arc<Series>>);

#[derive(Debug)]
struct Series {
    registry: Registry,
    start: Instant,
    jobs: IntCounterVec,
    rejected: IntCounterVec,
    images: IntCounterVec,
    evaluations: IntCounterVec,
    duration: HistogramVec,
    energy: CounterVec,
    power: GaugeVec,
    http_requests: IntCounterVec,
    http_connections: IntGauge,
    /// Those below are set when the metrics are read.
    phase: IntGaugeVec,
    model: IntGaugeVec,
    evaluation: GaugeVec,
    temperature: IntGaugeVec,
    throttles: IntGauge,
    queue: IntGauge,
    spool: IntGauge,
    connected: IntGauge,
    memory: IntGaugeVec,
    uptime: Gauge,
}

impl Series {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name, help, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let float_gauges =
            |name, help, labels: &[&str]| register(&registry, GaugeVec::new(Opts::new(name, help), labels)?);
        let gauge = |name, help| register(&registry, IntGauge::new(name, help)?);
        let duration = HistogramOpts::new(
            "denoised_job_duration_seconds",
            "Time from the arrival of a request to the end of its job, for jobs that finished.",
        );
        let build = gauges("denoised_build_info", "The version of denoised; always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            start: Instant::now(),
            jobs: counters("denoised_jobs_total", "Accepted jobs that have ended.", &["model", "outcome"])?,
            rejected: counters(
                "denoised_rejected_requests_total",
                "Requests that were not accepted, by the code of their error.",
                &["code"],
            )?,
            images: counters("denoised_images_total", "Images that were made.", &["model"])?,
            evaluations: counters(
                "denoised_evaluations_total",
                "Network evaluations of the images that were made, without those that guidance adds.",
                &["model"],
            )?,
            duration: register(
                &registry,
                HistogramVec::new(duration.buckets(DURATION_BUCKETS.to_vec()), &["model"])?,
            )?,
            energy: register(
                &registry,
                CounterVec::new(
                    Opts::new(
                        "denoised_energy_joules_total",
                        "Energy of the board, from its INA3221 sensors.",
                    ),
                    &[],
                )?,
            )?,
            power: float_gauges(
                "denoised_power_watts",
                "Power of the board, from its INA3221 sensors.",
                &[],
            )?,
            http_requests: counters(
                "denoised_http_requests_total",
                "HTTP requests that were answered.",
                &["endpoint", "status"],
            )?,
            http_connections: gauge("denoised_http_connections", "Open HTTP connections.")?,
            phase: gauges(
                "denoised_phase",
                "1 for the phase that the daemon is in, 0 for the others.",
                &["phase"],
            )?,
            model: gauges(
                "denoised_model_info",
                "The engine and the provider that serve a model; always 1.",
                &["model", "sha256", "engine", "engine_version", "provider"],
            )?,
            evaluation: float_gauges(
                "denoised_evaluation_seconds",
                "Current duration of a network evaluation.",
                &["model"],
            )?,
            temperature: gauges(
                "denoised_temperature_celsius",
                "Temperature of the hottest thermal zone.",
                &[],
            )?,
            throttles: gauge(
                "denoised_active_throttles",
                "Cooling devices, other than fans, that slow the board down.",
            )?,
            queue: gauge("denoised_queue_jobs", "Jobs that wait or run.")?,
            spool: gauge(
                "denoised_spool_bytes",
                "Size of the messages that the broker has not acknowledged.",
            )?,
            connected: gauge("denoised_broker_connected", "Whether the broker delivers requests.")?,
            memory: gauges("process_resident_memory_bytes", "Resident memory size in bytes.", &[])?,
            uptime: register(
                &registry,
                Gauge::new("denoised_uptime_seconds", "Time since the start of the daemon.")?,
            )?,
            registry,
        })
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// Creates metrics that are recorded.
    pub(crate) fn recording() -> Self {
        let series = Series::new().inspect_err(|error| log::error!("there are no metrics: {error}"));
        Self(series.ok().map(Arc::new))
    }

    /// Makes the counters of these models appear with the value 0.
    pub(super) fn add_models<'a>(&self, models: impl Iterator<Item = &'a str>) {
        let Some(series) = &self.0 else { return };
        for model in models {
            for outcome in Outcome::LABELS {
                series.jobs.with_label_values(&[model, outcome]);
            }
            series.images.with_label_values(&[model]);
            series.evaluations.with_label_values(&[model]);
            series.duration.with_label_values(&[model]);
        }
    }

    /// Counts a job that has ended.
    pub(super) fn on_job_end(&self, model: &str, outcome: Outcome) {
        if let Some(series) = &self.0 {
            series.jobs.with_label_values(&[model, outcome.label()]).inc();
        }
    }

    /// Records how long a finished job took.
    pub(super) fn on_job_duration(&self, model: &str, duration: Duration) {
        if let Some(series) = &self.0 {
            series.duration.with_label_values(&[model]).observe(duration.as_secs_f64());
        }
    }

    /// Counts a request that was not accepted, by the code of its error.
    pub(crate) fn on_rejected(&self, code: &str) {
        if let Some(series) = &self.0 {
            series.rejected.with_label_values(&[code]).inc();
        }
    }

    /// Counts an image.
    pub(super) fn on_image(&self, receipt: &Receipt) {
        if let Some(series) = &self.0 {
            series.images.with_label_values(&[receipt.image.model.as_str()]).inc();
            let evaluations = series.evaluations.with_label_values(&[receipt.image.model.as_str()]);
            evaluations.inc_by(receipt.image.evaluations as u64);
        }
    }

    /// Whether anything is recorded.
    pub(super) fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// Records the board's power, in watts, which it had for this time.
    pub(super) fn on_power(&self, watts: f64, duration: Duration) {
        if let Some(series) = &self.0 {
            series.power.with_label_values::<&str>(&[]).set(watts);
            let joules = watts * duration.as_secs_f64();
            series.energy.with_label_values::<&str>(&[]).inc_by(joules.max(0.0));
        }
    }

    /// Counts an HTTP request that was answered.
    pub(crate) fn on_http_request(&self, endpoint: &str, status: u16) {
        if let Some(series) = &self.0 {
            series.http_requests.with_label_values(&[endpoint, &status.to_string()]).inc();
        }
    }

    /// Sets the number of open HTTP connections.
    pub(crate) fn set_http_connections(&self, connections: usize) {
        if let Some(series) = &self.0 {
            series.http_connections.set(connections as i64);
        }
    }

    /// The metrics in Prometheus' text format.
    pub(crate) fn to_text(&self, snapshot: Option<&Snapshot>, memory: Option<ResidentMemory>) -> String {
        let Some(series) = &self.0 else { return String::new() };
        series.uptime.set(series.start.elapsed().as_secs_f64());
        if let Some(memory) = memory {
            series.memory.with_label_values::<&str>(&[]).set(memory.total as i64);
        }
        let current = snapshot.map_or(Phase::Starting, |snapshot| snapshot.state.phase);
        for phase in Phase::ALL {
            series.phase.with_label_values(&[phase.name()]).set(i64::from(phase == current));
        }
        if let Some(snapshot) = snapshot {
            series.set(snapshot);
        }
        TextEncoder::new().encode_to_string(&series.registry.gather()).unwrap_or_else(|error| {
            log::error!("cannot write the metrics: {error}");
            String::new()
        })
    }
}

impl Series {
    /// Sets the gauges that the state has.
    fn set(&self, Snapshot { state, is_connected, spool_bytes, .. }: &Snapshot) {
        self.queue.set(state.queue as i64);
        self.spool.set(*spool_bytes as i64);
        self.connected.set(i64::from(*is_connected));
        if let Some(thermal) = &state.thermal {
            self.temperature.with_label_values::<&str>(&[]).set(thermal.celsius);
            self.throttles.set(thermal.throttles.len() as i64);
        }
        // Another provider may serve a model than before.
        self.model.reset();
        self.evaluation.reset();
        for model in &state.models {
            let labels = [&model.name, &model.sha256, model.engine, &model.engine_version, &model.provider];
            self.model.with_label_values(&labels).set(1);
            if let Some(ms_per_nfe) = model.ms_per_nfe {
                self.evaluation.with_label_values(&[model.name.as_str()]).set(ms_per_nfe / 1000.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_that_record_nothing_are_empty() {
        let metrics = Metrics::default();
        metrics.on_job_end("digits", Outcome::Finished);
        assert_eq!(metrics.to_text(None, None), "");
    }

    #[test]
    fn jobs_are_counted_by_model_and_outcome() {
        let metrics = Metrics::recording();
        metrics.add_models(["digits", "sd"].into_iter());
        metrics.on_job_end("digits", Outcome::Finished);
        metrics.on_job_end("digits", Outcome::Failed(ErrorCode::Engine));
        metrics.on_job_end("digits", Outcome::Failed(ErrorCode::Encoding));
        metrics.on_job_end("sd", Outcome::Failed(ErrorCode::Cancelled));
        metrics.on_job_duration("digits", Duration::from_millis(300));
        metrics.on_rejected(ErrorCode::QueueFull.name());
        metrics.on_power(10.0, Duration::from_millis(500));
        metrics.on_power(20.0, Duration::from_secs(1));
        let memory = ResidentMemory { anonymous: 1, total: 4096, peak: 8192 };
        let text = metrics.to_text(None, Some(memory));
        for line in [
            "denoised_jobs_total{model=\"digits\",outcome=\"finished\"} 1",
            "denoised_jobs_total{model=\"digits\",outcome=\"failed\"} 2",
            "denoised_jobs_total{model=\"sd\",outcome=\"cancelled\"} 1",
            "denoised_jobs_total{model=\"sd\",outcome=\"deadline\"} 0",
            "denoised_job_duration_seconds_bucket{model=\"digits\",le=\"0.25\"} 0",
            "denoised_job_duration_seconds_bucket{model=\"digits\",le=\"0.5\"} 1",
            "denoised_job_duration_seconds_count{model=\"sd\"} 0",
            "denoised_rejected_requests_total{code=\"queue_full\"} 1",
            "denoised_energy_joules_total 25",
            "denoised_power_watts 20",
            "denoised_phase{phase=\"starting\"} 1",
            "denoised_phase{phase=\"ready\"} 0",
            "process_resident_memory_bytes 4096",
            "# TYPE denoised_jobs_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        // A board without sensors has no values of them.
        assert!(!text.contains("denoised_temperature_celsius "), "{text}");
    }
}
