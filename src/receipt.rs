//! Everything needed to make an image again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::job::Job;
use crate::model::Origin;

/// How one image was made. It holds nothing that changes from run to run, but for the share of
/// time in which each provider ran, which each start measures.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The version of `denoised`.
    pub version: &'static str,
    /// The job.
    pub id: String,
    /// The image's place in the job, from 0.
    pub index: usize,
    /// The model's name.
    pub model: String,
    /// The SHA-256 of its graph.
    pub model_sha256: String,
    /// The scheduler's configuration.
    pub scheduler: serde_json::Value,
    /// The sampler.
    pub sampler: String,
    /// Its steps.
    pub steps: usize,
    /// Network evaluations (NFE), guidance's second ones aside.
    pub evaluations: usize,
    /// η, where the job gave one.
    pub eta: Option<f64>,
    /// This image's seed.
    pub seed: u64,
    /// The generator behind it.
    pub noise: &'static str,
    /// The class.
    pub class: Option<i64>,
    /// The weight of guidance.
    pub guidance: f64,
    /// Further conditions.
    pub conditions: BTreeMap<String, f32>,
    /// Whether it had batches of its own.
    pub exact: bool,
    /// Which engine and provider really ran.
    #[serde(flatten)]
    pub origin: Origin,
}

impl Receipt {
    /// The receipt of a job's `index`-th image, drawn by what `origin` tells.
    pub fn of(job: &Job, index: usize, origin: &Origin) -> Self {
        let bundle = &job.model.bundle;
        let names = bundle.manifest.conditions.keys().cloned();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            id: job.id.clone(),
            index,
            model: bundle.name.clone(),
            model_sha256: bundle.sha256.clone(),
            scheduler: bundle.scheduler.to_json(),
            sampler: job.sampler_name.clone(),
            steps: job.options.steps,
            evaluations: job.sampler.evaluations(),
            eta: job.options.eta,
            seed: job.image_seed(index),
            noise: job.noise.name(),
            class: job.class,
            guidance: job.guidance,
            conditions: names.zip(job.conditions.iter().copied()).collect(),
            exact: job.exact,
            origin: origin.clone(),
        }
    }
}
