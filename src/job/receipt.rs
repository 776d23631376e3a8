//! Everything needed to make an image again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::inference::Backend;
use crate::job::Job;
use crate::model::TextConditioning;

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
    /// How much of the prediction's spread was brought back.
    #[serde(skip_serializing_if = "is_zero")]
    pub guidance_rescale: f32,
    /// The words, where the model takes them.
    #[serde(flatten)]
    pub words: Option<Prompts>,
    /// What of the words found no room in the text encoder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// The width and height of the picture, where the job chose them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// How much of the way was gone from a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Further conditions.
    pub conditions: BTreeMap<String, f32>,
    /// Whether it had batches of its own.
    pub exact: bool,
    /// Which engine and provider really ran.
    #[serde(flatten)]
    pub origin: Backend,
}

/// What a job said in words.
#[derive(Debug, Clone, Serialize)]
pub struct Prompts {
    /// For the first text encoder.
    pub prompt: String,
    /// What is not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// For the second one, where that has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_2: Option<String>,
    /// What is not wanted, for the second one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt_2: Option<String>,
    /// How many of CLIP's last layers are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// How many tokens T5 takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<usize>,
}

impl Prompts {
    fn of(wish: &TextConditioning) -> Self {
        let second = |[first, second]: &[String; 2]| (first != second).then(|| second.clone());
        Self {
            prompt: wish.prompt[0].clone(),
            negative_prompt: wish.negative.as_ref().map(|negative| negative[0].clone()),
            prompt_2: second(&wish.prompt),
            negative_prompt_2: wish.negative.as_ref().and_then(second),
            clip_skip: wish.clip_skip,
            max_sequence_length: wish.max_sequence_length,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(x: &f32) -> bool {
    *x == 0.0
}

impl Receipt {
    /// The receipt of a job's `index`-th image, drawn by what `origin` tells.
    pub fn of(job: &Job, index: usize, origin: &Backend) -> Self {
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
            guidance_rescale: job.guidance_rescale,
            words: job.wish.as_deref().map(Prompts::of),
            cut: Vec::new(),
            size: job.wish.as_ref().map(|_| [job.sizes.picture[2], job.sizes.picture[1]]),
            strength: job.beginning.as_ref().map(|beginning| beginning.strength),
            conditions: names.zip(job.conditions.iter().copied()).collect(),
            exact: job.exact,
            origin: origin.clone(),
        }
    }
}
