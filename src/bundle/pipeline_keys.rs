//! What diffusers' pipelines demand of a scheduler, and the keys that their constructors replace whatever the files say.

use super::model_index::ModelIndex;
use super::{PipelineKind, SchedulerConfig};
use diffusion_samplers::sampler::{self, TimeConditioning};
use diffusion_samplers::scheduler_settings::Value;

/// What a pipeline makes. diffusers has a class for each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineTask {
    /// An image from text, or from text and an image.
    Generation,
    /// The masked part of an image.
    Inpainting,
}

/// A scheduler key that the constructor of a pipeline sets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PipelineKey {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// The task whose pipeline sets it; `None` for all.
    pub(super) task: Option<PipelineTask>,
}

/// Whether the folder is opened by the pipelines of Stable Diffusion 1 and 2, whose constructors replace keys of old
/// configurations.
pub(super) fn replaces_keys(kind: Option<PipelineKind>, index: &ModelIndex) -> bool {
    match (kind, index.class()) {
        (Some(PipelineKind::StableDiffusion), class) => {
            !class.is_some_and(|class| class.contains("LatentConsistency"))
        }
        (Some(PipelineKind::LatentConsistency), Some(class)) => class.contains("StableDiffusion"),
        _ => false,
    }
}

/// The scheduler keys that the constructors of `StableDiffusionPipeline`, `StableDiffusionImg2ImgPipeline` and
/// `StableDiffusionInpaintPipeline` set.
pub(super) fn replaced_keys(scheduler: &SchedulerConfig) -> Vec<PipelineKey> {
    let read = scheduler.read_keys();
    // A configuration also holds the keys that its class does not have.
    let value = |key: &str| scheduler.value(key).or_else(|| read.get(key));
    let key = |name, value, task| PipelineKey { name, value, task };
    let mut keys = Vec::new();
    if value("steps_offset").is_some_and(|offset| *offset != Value::Number(1.0)) {
        keys.push(key("steps_offset", Value::Number(1.0), None));
    }
    if value("clip_sample") == Some(&Value::Flag(true)) {
        keys.push(key("clip_sample", Value::Flag(false), Some(PipelineTask::Generation)));
    }
    if value("skip_prk_steps") == Some(&Value::Flag(false)) {
        keys.push(key("skip_prk_steps", Value::Flag(true), Some(PipelineTask::Inpainting)));
    }
    keys
}

/// The height and width of a latent that the same constructors set for a network of before diffusers 0.9.
pub(super) fn replaced_sample_size(size: usize, version: Option<&str>) -> Option<usize> {
    let mut parts = version?.split('.').map(|part| part.parse::<u32>().ok());
    let is_old = parts.next()? == Some(0) && parts.next()?.is_some_and(|minor| minor < 9);
    (is_old && size < 64).then_some(64)
}

/// Why a pipeline of this kind cannot work with a scheduler of this class.
pub(super) fn scheduler_fault(kind: PipelineKind, scheduler: &SchedulerConfig) -> Option<String> {
    let (class, title) = (&scheduler.class, kind.title());
    let is_path = sampler::by_class(class).ok()?.time() == TimeConditioning::Path;
    let predicts_flow =
        scheduler.value("prediction_type") == Some(&Value::Text("flow_prediction".to_owned()));
    if kind.facts().predicts_flow {
        return (!is_path && !predicts_flow).then(|| {
            format!(
                "{class} is for networks that predict noise, but the network of {title} predicts the velocity of a flow; \
                 use the configuration that the model was published with, such as FlowMatchEulerDiscreteScheduler"
            )
        });
    }
    is_path.then(|| {
        format!(
            "{class} is for networks that predict the velocity of a flow, and the pipelines of {title} do not work with it; \
             use the configuration that the model was published with, such as PNDMScheduler or EulerDiscreteScheduler"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_size_of_before_0_9_is_replaced() {
        for (size, version, expected) in [
            (32, Some("0.8.0"), Some(64)),
            (32, Some("0.6.0.dev0"), Some(64)),
            (64, Some("0.8.0"), None),
            (32, Some("0.9.0"), None),
            (32, Some("0.36.0"), None),
            (32, Some("1.0.0"), None),
            (32, None, None),
            (32, Some("unknown"), None),
        ] {
            assert_eq!(replaced_sample_size(size, version), expected, "{size} {version:?}");
        }
    }
}
