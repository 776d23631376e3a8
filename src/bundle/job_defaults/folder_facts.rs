//! What a folder says about how its model is to be sampled.

use super::model_name::ModelName;
use crate::bundle::{Bundle, PipelineKind, Role};
use crate::tensor::Dim;
use diffusion_samplers::scheduler_settings::Value;

/// What a folder says about how its model is to be sampled.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::bundle) struct FolderFacts {
    /// The family; `None` for a model without a prompt.
    pub(super) kind: Option<PipelineKind>,
    /// `_class_name` of model_index.json.
    pub(super) pipeline_class: Option<String>,
    /// Names of the model: `_name_or_path` of model_index.json, that of the network, and the folder.
    pub(super) paths: Vec<String>,
    /// `is_distilled` of model_index.json.
    pub(super) is_distilled: bool,
    /// Whether the network takes an embedding of the guidance weight (`time_cond_proj_dim`).
    pub(super) has_guidance_embedding: bool,
    /// Whether the network takes the guidance weight (`guidance_embeds`).
    pub(super) has_guidance_input: bool,
    /// The side of the latents for which the network was made.
    pub(super) sample_size: Option<usize>,
    /// The width of the text's embeddings.
    pub(super) text_width: Option<usize>,
    /// The scheduler's class.
    pub(super) scheduler_class: String,
    /// `timestep_spacing`.
    pub(super) spacing: Option<String>,
    /// `prediction_type`.
    pub(super) prediction: Option<String>,
    /// Whether a key that distilled models do not have is true: zero SNR, or another spacing of noise levels.
    pub(super) has_other_schedule: bool,
    /// `shift`.
    pub(super) shift: Option<f64>,
    /// `use_dynamic_shifting`.
    pub(super) has_dynamic_shift: bool,
}

/// Keys of schedules for which no model was distilled.
const OTHER_SCHEDULES: [&str; 4] =
    ["rescale_betas_zero_snr", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];

impl FolderFacts {
    /// Collects the facts of a bundle.
    pub(in crate::bundle) fn from_bundle(bundle: &Bundle) -> Self {
        let signature = bundle.signature.as_ref();
        let has = |role| signature.is_some_and(|signature| signature.has(role));
        let text =
            signature.and_then(|signature| signature.tensors.iter().find(|input| input.role == Role::Text));
        let directory = bundle.directory.canonicalize().unwrap_or_else(|_| bundle.directory.clone());
        let own = bundle.index.entries().get("_name_or_path").and_then(|name| name.as_str());
        let names = [own.map(str::to_owned), bundle.network_name.clone()];
        let value = |key: &str| bundle.scheduler.value(key);
        let text_of = |key: &str| match value(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let flag = |key: &str| value(key) == Some(&Value::Flag(true));
        Self {
            kind: signature.and_then(PipelineKind::from_signature).filter(|_| bundle.latent.is_some()),
            pipeline_class: bundle.index.class().map(str::to_owned),
            paths: names.into_iter().flatten().chain([directory.to_string_lossy().into_owned()]).collect(),
            is_distilled: bundle.latent.as_ref().is_some_and(|latent| latent.is_distilled),
            has_guidance_embedding: has(Role::GuidanceEmbedding),
            has_guidance_input: has(Role::Guidance),
            sample_size: bundle.network.size.map(|(height, _)| height),
            text_width: text.and_then(|text| text.shape.last().and_then(Dim::length)),
            scheduler_class: bundle.scheduler.class.clone(),
            spacing: text_of("timestep_spacing"),
            prediction: text_of("prediction_type"),
            has_other_schedule: OTHER_SCHEDULES.into_iter().any(flag),
            shift: match value("shift") {
                Some(Value::Number(shift)) => Some(*shift),
                _ => None,
            },
            has_dynamic_shift: flag("use_dynamic_shifting"),
        }
    }

    /// The names of the model.
    pub(super) fn names(&self) -> Vec<ModelName> {
        self.paths.iter().filter_map(|path| ModelName::new(path)).collect()
    }
}
