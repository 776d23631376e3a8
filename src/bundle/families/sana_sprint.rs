//! SANA-Sprint (Chen et al. 2025): SANA distilled to one to four steps, with guidance as an input of the network.

use super::sana;
use crate::bundle::Role;
use crate::bundle::pipeline_kind::{PipelineFacts, StrengthRule, TimeConvention};

pub(in crate::bundle) const FACTS: PipelineFacts = PipelineFacts {
    title: "SANA-Sprint",
    classes: &["SanaSprintPipeline", "SanaSprintImg2ImgPipeline"],
    required_inputs: &[Role::TextMask, Role::Guidance],
    // The network is one of a straight path, although its sampler's states are not.
    time: TimeConvention::Sigma,
    steps: 2,
    is_guidance_distilled: true,
    guidance_embeds_scale: 0.1,
    passes_eta: false,
    takes_image: true,
    strength: 0.6,
    strength_rule: StrengthRule::Ceil,
    has_negative_prompt: false,
    ..sana::FACTS
};
