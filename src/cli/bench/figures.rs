//! The measured figures. Each key of the JSON ends with its unit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// The time from opening a model to the moment when it can run a job.
#[derive(Debug, Serialize)]
pub(super) struct LoadFigures {
    /// Whether the engine cache was empty at the first load.
    pub(super) is_cache_empty: bool,
    pub(super) first_ms: f64,
    pub(super) later_ms: f64,
    /// The largest use of GPU memory meanwhile, by all processes.
    pub(super) gpu_memory_mib: Option<f64>,
    /// The resident memory afterwards.
    pub(super) resident_mib: Option<f64>,
}

/// The time of an evaluation.
#[derive(Debug, Serialize)]
pub(super) struct EvaluationFigures {
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    pub(super) batch: usize,
    #[serde(flatten)]
    pub(super) outcome: EvaluationOutcome,
}

/// What came of evaluations in one shape.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum EvaluationOutcome {
    Measured {
        /// The first evaluation, with work that is done once for each shape.
        first_ms: f64,
        median_ms: f64,
        min_ms: f64,
        /// The number of evaluations after the first.
        count: usize,
        #[serde(flatten)]
        readings: Readings,
    },
    Failed {
        error: String,
    },
}

/// The times of a job.
#[derive(Debug, Serialize)]
pub(super) struct JobFigures {
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    pub(super) sampler: String,
    pub(super) steps: usize,
    pub(super) guidance: f64,
    /// The number of jobs after the first; 0 if one took too long for another.
    pub(super) count: usize,
    /// The first job, with what is done once for each prompt and shape.
    pub(super) first_ms: f64,
    /// From the request to the encoded picture. Of the first job, if there is no other.
    pub(super) median_ms: f64,
    pub(super) pictures_per_s: f64,
    /// The parts of the median job.
    #[serde(flatten)]
    pub(super) parts: JobParts,
    #[serde(flatten)]
    pub(super) readings: Readings,
    /// The energy of one picture, if a sensor measures the power.
    pub(super) energy_per_picture_j: Option<f64>,
}

/// The parts of a job's time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct JobParts {
    pub(super) evaluations: usize,
    pub(super) evaluations_ms: f64,
    /// From the last evaluation to the picture.
    pub(super) decoding_ms: f64,
    /// The encoding as PNG.
    pub(super) png_ms: f64,
    /// Everything except evaluations and decoding, the encoding as PNG included.
    pub(super) rest_ms: f64,
    pub(super) rest_percent: f64,
}

/// What the sensors measured during one figure.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Readings {
    /// What `power_w` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) power_source: Option<String>,
    /// The mean power.
    pub(super) power_w: Option<f64>,
    /// The mean power of each rail.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) rails_w: BTreeMap<String, f64>,
    /// The largest use of GPU memory, by all processes.
    pub(super) gpu_memory_mib: Option<f64>,
    /// The highest temperature of each thermal zone, and of the GPU as `gpu`.
    pub(super) temperatures_c: BTreeMap<String, f64>,
}

/// The memory of the whole run.
#[derive(Debug, Serialize)]
pub(super) struct MemoryFigures {
    pub(super) resident_peak_mib: Option<f64>,
    /// The use of GPU memory by all processes, before the model was loaded.
    pub(super) gpu_before_mib: Option<f64>,
    pub(super) gpu_peak_mib: Option<f64>,
    /// The memory that was available in the system before the model was loaded, and the least since. On a board, this
    /// memory is the GPU's too.
    pub(super) available_before_mib: Option<f64>,
    pub(super) available_min_mib: Option<f64>,
}

/// Returns a duration in milliseconds, to the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Returns a number of bytes in MiB, to a tenth.
pub(super) fn mebibytes(bytes: u64) -> f64 {
    rounded(bytes as f64 / f64::from(1 << 20), 1)
}

/// Rounds to this number of decimal places.
pub(super) fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (value * scale).round() / scale
}
