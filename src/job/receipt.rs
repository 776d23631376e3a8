//! Receipts: everything that is needed to make an image again.

mod parameters;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bundle::{BundleError, ControlNet};
use crate::image::{EmbeddedText, Format, Preprocess};
use crate::inference::{Backend, ProviderShare, RejectedProvider};
use crate::job::{ControlChoice, InitImage, Job, Sizes, seed};
use crate::model::{LoraChoice, TextConditioning};

/// How one image of a job was made.
///
/// Deterministic across runs, except for the time shares of the providers, which the first evaluation gives.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The job's id.
    pub id: String,
    /// The image's index in the job, from 0.
    pub index: usize,
    /// What the image depends on.
    #[serde(flatten)]
    pub image: ImageReceipt,
    /// A sentence for each field of the request that had no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// The share of each provider in the first evaluation.
    pub provider_shares: Vec<ProviderShare>,
    /// The providers that were preferred to this one and do not work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected_providers: Vec<RejectedProvider>,
}

/// The part of a receipt that is the same for the same image, whatever its job and its machine are called. It is embedded
/// in pictures, so that pictures that are drawn again have the same bytes.
#[derive(Debug, Clone, Serialize)]
pub struct ImageReceipt {
    /// The version of `denoised`.
    pub version: &'static str,
    /// The model's name.
    pub model: String,
    /// The SHA-256 of the model's graphs.
    pub model_sha256: String,
    /// The SHA-256 of each graph, by the name of its folder, if the model has several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub graph_sha256: BTreeMap<String, String>,
    /// The scheduler's configuration.
    pub scheduler: serde_json::Value,
    /// The sampler's name.
    pub sampler: String,
    /// The number of steps.
    pub steps: usize,
    /// The number of network evaluations (NFE), without those that guidance adds.
    pub evaluations: usize,
    /// η, if the job sets it or the model's pipeline passes one. Otherwise the sampler's own default applies.
    pub eta: Option<f64>,
    /// This image's seed.
    pub seed: u64,
    /// The seed as a string, from 2^53 on, where many JSON clients round the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_text: Option<String>,
    /// The noise generator.
    pub noise: &'static str,
    /// The class label.
    pub class: Option<i64>,
    /// The guidance scale.
    pub guidance: f64,
    /// The guidance rescale φ.
    #[serde(skip_serializing_if = "is_zero")]
    pub guidance_rescale: f32,
    /// The prompts, if the model takes any.
    #[serde(flatten)]
    pub prompts: Option<Prompts>,
    /// The parts of the prompts that the text encoder truncated.
    #[serde(rename = "cut", skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
    /// The width and height of the image, if the job can choose them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// The SHA-256 of the init image's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// The SHA-256 of the mask's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_sha256: Option<String>,
    /// The img2img strength.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// The values of further conditions.
    pub conditions: BTreeMap<String, f32>,
    /// Whether each image was evaluated in a batch of its own.
    pub exact: bool,
    /// The LoRAs that changed the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<ReceiptLora>,
    /// The pictures that steered the job through ControlNets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ReceiptControl>,
    /// Whether the controls were in guess mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guess_mode: bool,
    /// The quality of a JPEG file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
    /// The number of images in a picture that shows several. Image i has seed + i.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// `onnxruntime` or `embedded`.
    pub engine: &'static str,
    /// The version of the engine.
    pub engine_version: String,
    /// The execution provider that ran the network.
    pub provider: String,
    /// Whether evaluations were captured as CUDA graphs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cuda_graph: bool,
}

/// A LoRA of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceiptLora {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// The SHA-256 of the file.
    pub sha256: String,
}

/// A picture that steered a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceiptControl {
    /// The ControlNet's name.
    pub net: String,
    /// What its residuals were multiplied by.
    pub scale: f64,
    /// The share of the evaluations before the first one that counted.
    pub start: f64,
    /// The share of the evaluations after which none counted.
    pub end: f64,
    /// How the picture was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// Whether the picture was resized to the job's size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resize: bool,
    /// The SHA-256 of the picture's file.
    pub sha256: String,
}

impl ReceiptControl {
    fn new(control: &ControlChoice, nets: &[ControlNet]) -> Self {
        Self {
            net: nets.get(control.net).map(|net| net.name.clone()).unwrap_or_default(),
            scale: control.scale,
            start: control.start,
            end: control.end,
            preprocess: control.picture.preprocess,
            resize: control.picture.resize,
            sha256: control.sha256.clone(),
        }
    }
}

/// The prompts of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Prompts {
    /// For the first text encoder.
    pub prompt: String,
    /// The negative prompt for the first text encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// For the second text encoder, if different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_2: Option<String>,
    /// The negative prompt for the second text encoder, if different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt_2: Option<String>,
    /// The number of CLIP's last layers that are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// The number of tokens for T5 or a language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<usize>,
    /// The largest norm of a guided prediction, in norms of the prediction with the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_normalization: Option<f64>,
    /// The share of the way from noise to the image after which guidance ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_truncation: Option<f64>,
    /// The sizes that SDXL's networks take as inputs.
    #[serde(flatten)]
    pub micro_conditioning: Option<MicroConditioning>,
}

/// SDXL's micro-conditioning (Podell et al. 2023, section 2.2), in pixels; each height or top first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MicroConditioning {
    /// The size of the image before it was resized.
    pub original_size: [u64; 2],
    /// The corner from which it was cropped.
    pub crop: [u64; 2],
    /// The size that it has.
    pub target_size: [u64; 2],
}

impl MicroConditioning {
    fn from_time_ids(ids: &[f32; 6]) -> Self {
        let [original_height, original_width, top, left, height, width] = ids.map(|id| id as u64);
        Self {
            original_size: [original_height, original_width],
            crop: [top, left],
            target_size: [height, width],
        }
    }
}

impl Prompts {
    fn from_text(text: &TextConditioning, has_micro_conditioning: bool) -> Self {
        let second = |[first, second]: &[String; 2]| (first != second).then(|| second.clone());
        Self {
            prompt: text.prompt[0].clone(),
            negative_prompt: text.negative.as_ref().map(|negative| negative[0].clone()),
            prompt_2: second(&text.prompt),
            negative_prompt_2: text.negative.as_ref().and_then(second),
            clip_skip: text.clip_skip,
            max_sequence_length: text.max_sequence_length,
            cfg_normalization: text.cfg_normalization,
            cfg_truncation: text.cfg_truncation,
            micro_conditioning: has_micro_conditioning
                .then(|| MicroConditioning::from_time_ids(&text.time_ids)),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that skip_serializing_if needs")]
fn is_zero(x: &f32) -> bool {
    *x == 0.0
}

impl Receipt {
    /// The receipt of a job's image with this index, made by this backend. Waits for the digests of the model's graphs.
    pub fn new(job: &Job, index: usize, backend: &Backend) -> Result<Self, BundleError> {
        let bundle = &job.model.bundle;
        let names = bundle.manifest.conditions.keys().cloned();
        let digests = bundle.digests()?;
        let kind = job.model.latent.as_ref().map(|(kind, _)| *kind);
        let has_micro_conditioning = kind.is_some_and(|kind| kind.facts().has_micro_conditioning);
        let image = ImageReceipt {
            version: env!("CARGO_PKG_VERSION"),
            model: bundle.name.clone(),
            model_sha256: digests.total.clone(),
            graph_sha256: match &digests.by_name {
                graphs if graphs.len() > 1 => graphs.clone(),
                _ => BTreeMap::new(),
            },
            scheduler: bundle.scheduler.to_json(InitImage::task(job.init_image.as_deref())),
            sampler: job.sampler_name.clone(),
            steps: job.options.steps,
            evaluations: job.sampler.evaluations(),
            eta: job.options.eta,
            seed: job.image_seed(index),
            seed_text: seed::to_exact_text(job.image_seed(index)),
            noise: job.noise.name(),
            class: job.class,
            guidance: job.guidance,
            guidance_rescale: job.guidance_rescale,
            prompts: job.text.as_deref().map(|text| Prompts::from_text(text, has_micro_conditioning)),
            truncated: Vec::new(),
            size: job.text.as_ref().map(|_| [job.sizes.image[2], job.sizes.image[1]]),
            image_sha256: job.digests.image.clone(),
            mask_sha256: job.digests.mask.clone(),
            strength: job.init_image.as_ref().map(|init_image| init_image.strength),
            conditions: names.zip(job.conditions.iter().copied()).collect(),
            exact: job.exact,
            loras: Vec::new(),
            controls: job
                .controls
                .iter()
                .map(|control| ReceiptControl::new(control, &bundle.controlnets))
                .collect(),
            guess_mode: job.guess_mode,
            quality: (job.encoding.format == Format::Jpeg).then_some(job.encoding.quality),
            count: None,
            engine: backend.engine,
            engine_version: backend.version.clone(),
            provider: backend.provider.clone(),
            cuda_graph: backend.cuda_graph,
        };
        Ok(Self {
            id: job.id.clone(),
            index,
            image,
            ignored: job.ignored.clone(),
            provider_shares: backend.provider_shares.clone(),
            rejected_providers: backend.rejected_providers.clone(),
        })
    }
}

impl ImageReceipt {
    /// Adds the LoRAs, with the digest of each file.
    pub fn set_loras(&mut self, loras: &[LoraChoice], sha256: &[String]) {
        let lora = |(lora, sha256): (&LoraChoice, &String)| ReceiptLora {
            name: lora.name.clone(),
            weight: lora.weight,
            sha256: sha256.clone(),
        };
        self.loras = loras.iter().zip(sha256).map(lora).collect();
    }

    /// The texts for a picture of a job with these sizes.
    #[expect(clippy::expect_used, reason = "receipts hold only values that JSON can represent")]
    pub fn to_text(&self, sizes: &Sizes) -> EmbeddedText {
        let size = match *sizes.image.as_slice() {
            [_, height, width] => Some([width, height]),
            _ => None,
        };
        let receipt = serde_json::to_string(self).expect("a receipt has string keys only");
        EmbeddedText { parameters: parameters::parameters(self, size), receipt }
    }
}
