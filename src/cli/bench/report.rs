//! All figures of a run with what they were measured on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{EvaluationFigures, JobFigures, LoadFigures, MemoryFigures, mebibytes};
use super::monitor::Monitor;
use crate::bundle::BundleError;
use crate::config::Config;
use crate::inference::Backend;
use crate::model::Model;
use crate::platform::Platform;

/// The libraries whose versions are reported, with their names.
const LIBRARIES: [(&str, &str); 4] = [
    ("cuda", "libcudart.so"),
    ("cublas", "libcublas.so"),
    ("cudnn", "libcudnn.so"),
    ("tensorrt", "libnvinfer.so"),
];

/// A run of the command.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of `denoised`.
    pub(super) version: &'static str,
    pub(super) board: BoardReport,
    /// The versions of the installed libraries.
    pub(super) libraries: BTreeMap<&'static str, String>,
    pub(super) model: ModelReport,
    /// The engine and the provider that ran the network.
    #[serde(flatten)]
    pub(super) backend: Backend,
    pub(super) load: LoadFigures,
    pub(super) evaluations: Vec<EvaluationFigures>,
    pub(super) job: JobFigures,
    pub(super) memory: MemoryFigures,
}

/// The machine.
#[derive(Debug, Serialize)]
pub(super) struct BoardReport {
    /// The board, the GPUs and the processor.
    pub(super) name: String,
    pub(super) architecture: &'static str,
    pub(super) cores: usize,
    pub(super) memory_mib: Option<f64>,
    /// The release of JetPack and of Linux for Tegra, on a Jetson.
    pub(super) jetpack: Option<String>,
    pub(super) l4t: Option<String>,
    pub(super) power_mode: Option<String>,
}

/// The model.
#[derive(Debug, Serialize)]
pub(super) struct ModelReport {
    pub(super) name: String,
    pub(super) sha256: String,
    /// The SHA-256 of each graph.
    pub(super) graph_sha256: BTreeMap<String, String>,
    pub(super) pipeline: Option<&'static str>,
    pub(super) precision: String,
}

impl Report {
    pub(super) fn new(
        config: &Config,
        model: &Model,
        precision: String,
        load: LoadFigures,
        evaluations: Vec<EvaluationFigures>,
        job: JobFigures,
        monitor: &Monitor,
    ) -> Result<Self, BundleError> {
        let platform = config.board.platform();
        let backend = model.predictor.backend().clone();
        let digests = model.bundle.digests()?;
        let tensorrt = backend.tensorrt.clone().map(|version| ("tensorrt", version));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            libraries: libraries(&platform).into_iter().chain(tensorrt).collect(),
            board: BoardReport::new(&platform),
            model: ModelReport {
                name: model.bundle.name.clone(),
                sha256: digests.total.clone(),
                graph_sha256: digests.by_name.clone(),
                pipeline: model.latent.as_ref().map(|latent| latent.kind.title()),
                precision,
            },
            backend,
            load,
            evaluations,
            job,
            memory: monitor.memory(),
        })
    }
}

impl BoardReport {
    fn new(platform: &Platform) -> Self {
        let release = platform.l4t_release();
        Self {
            name: platform.device(),
            architecture: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: platform.total_memory().map(mebibytes),
            jetpack: release.as_ref().and_then(|release| release.jetpack).map(ToString::to_string),
            l4t: release.map(|release| release.version),
            power_mode: platform.power_mode(),
        }
    }
}

/// Returns the versions of the libraries that are installed.
fn libraries(platform: &Platform) -> BTreeMap<&'static str, String> {
    let version = |(name, file)| Some((name, platform.library(file)?.version));
    LIBRARIES.into_iter().filter_map(version).collect()
}
