//! The models that were distilled for few steps: how they are recognised, and the settings that their documentation names.

use super::folder_facts::FolderFacts;
use super::model_name::ModelName;
use crate::bundle::PipelineKind;
use PipelineKind::{Flux, LatentConsistency, PixArtSigma, StableDiffusion, StableDiffusion3};
use PipelineKind::{StableDiffusionXl, ZImage};

/// A property of a folder that identifies its model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Evidence {
    /// `is_distilled` of model_index.json.
    Declared,
    /// The network takes an embedding of the guidance weight.
    GuidanceEmbedding,
    /// The network has no input for the guidance weight, and the schedule's shift is fixed.
    NoGuidanceInput,
    /// A scheduler that samples only distilled models.
    Scheduler(&'static str),
    /// One of these schedulers with `timestep_spacing` trailing.
    Trailing(&'static [&'static str]),
    /// The same, for a network of latents with this side.
    TrailingAt(usize, &'static [&'static str]),
    /// The same, for a network that predicts the sample.
    TrailingSample(&'static [&'static str]),
    /// `shift` of the scheduler.
    Shift(f64),
    /// The name alone, with one of these schedulers.
    Name(&'static [&'static str]),
}

/// A model that was distilled for few steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rule {
    /// The model in messages.
    title: &'static str,
    /// Its families. None: a model without a prompt.
    kinds: &'static [PipelineKind],
    evidence: Evidence,
    /// Phrases that one of its names has, all of them.
    phrases: &'static [&'static str],
    /// The number of steps where no name states one.
    pub(super) steps: usize,
    /// The guidance weight, if it is not that of the pipeline.
    pub(super) guidance: Option<f64>,
    /// η, if it is not that of the sampler.
    pub(super) eta: Option<f64>,
    /// The number of tokens, if it is not that of the pipeline.
    pub(super) max_sequence_length: Option<usize>,
}

/// A folder that has the model of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    /// The model, and the property that identifies it.
    pub(super) reason: String,
    /// The name that has the rule's phrases.
    pub(super) name: Option<ModelName>,
    /// What does not fit.
    pub(super) note: Option<String>,
}

const EULER: &[&str] = &["EulerDiscreteScheduler"];
const ANCESTRAL: &[&str] = &["EulerAncestralDiscreteScheduler"];
const EULERS: &[&str] = &["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"];
const DDIM_OR_EULER: &[&str] =
    &["DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"];
const FLOW: &[&str] = &["FlowMatchEulerDiscreteScheduler"];
const UNETS: &[PipelineKind] = &[StableDiffusion, StableDiffusionXl];
const NOISE: &[PipelineKind] = &[StableDiffusion, StableDiffusionXl, PixArtSigma];
const ANY: &[PipelineKind] = &PipelineKind::ALL;

/// The width of the text embeddings of Stable Diffusion 1; SD-Turbo was made from version 2.1, with 1024.
const STABLE_DIFFUSION_1_WIDTH: usize = 768;
/// The side of SDXL-Turbo's latents; SDXL's is 128.
const SDXL_TURBO_SIDE: usize = 64;
/// The `shift` of Z-Image, which was not distilled.
const Z_IMAGE_SHIFT: f64 = 6.0;

const fn rule(
    title: &'static str,
    kinds: &'static [PipelineKind],
    evidence: Evidence,
    phrases: &'static [&'static str],
    steps: usize,
    guidance: f64,
) -> Rule {
    let guidance = Some(guidance);
    Rule { title, kinds, evidence, phrases, steps, guidance, eta: None, max_sequence_length: None }
}

impl Rule {
    const fn eta(self, eta: f64) -> Self {
        Self { eta: Some(eta), ..self }
    }

    const fn max_sequence_length(self, tokens: usize) -> Self {
        Self { max_sequence_length: Some(tokens), ..self }
    }

    /// With guidance, as the pipeline has it.
    const fn guided(self) -> Self {
        Self { guidance: None, ..self }
    }
}

use Evidence::{Declared, GuidanceEmbedding, Name, NoGuidanceInput, Scheduler, Shift};
use Evidence::{Trailing, TrailingAt, TrailingSample};

/// The models. The first rule that fits counts. The weights are those of the models' documentation, where
/// 0 and 1 both are no guidance, except for Z-Image, where 1 is some.
pub(super) const RULES: &[Rule] = &[
    rule("latent consistency model", &[LatentConsistency], GuidanceEmbedding, &[], 4, 8.5),
    rule("LCM-SDXL", &[StableDiffusionXl], GuidanceEmbedding, &[], 4, 8.0),
    rule("guidance-distilled model", ANY, Declared, &[], 4, 1.0),
    rule("Hyper-SD", UNETS, Scheduler("TCDScheduler"), &["hyper"], 4, 0.0).eta(1.0),
    rule("trajectory consistency model", NOISE, Scheduler("TCDScheduler"), &[], 4, 0.0).eta(0.3),
    rule("latent consistency model", NOISE, Scheduler("LCMScheduler"), &[], 4, 1.0),
    rule("Hyper-SD with guidance", UNETS, Trailing(DDIM_OR_EULER), &["hyper", "cfg"], 8, 0.0).guided(),
    rule("Hyper-SD", UNETS, Trailing(DDIM_OR_EULER), &["hyper"], 4, 0.0),
    rule("Lightning", UNETS, Trailing(EULERS), &["lightning"], 4, 0.0),
    rule("Turbo", UNETS, Trailing(EULERS), &["turbo"], 1, 0.0),
    rule("SDXL-Turbo", &[StableDiffusionXl], Trailing(ANCESTRAL), &[], 1, 0.0),
    rule("SDXL-Turbo", &[StableDiffusionXl], TrailingAt(SDXL_TURBO_SIDE, EULER), &[], 1, 0.0),
    rule("SDXL-Lightning for one step", &[StableDiffusionXl], TrailingSample(EULER), &[], 1, 0.0),
    rule("SDXL-Lightning", &[StableDiffusionXl], Trailing(EULER), &[], 4, 0.0),
    rule("SD-Turbo", &[StableDiffusion], Trailing(EULERS), &[], 1, 0.0),
    rule("Hyper-SD with guidance", UNETS, Name(DDIM_OR_EULER), &["hyper", "cfg"], 8, 0.0).guided(),
    rule("Hyper-SD", UNETS, Name(DDIM_OR_EULER), &["hyper sd"], 4, 0.0),
    rule("SDXL-Lightning", &[StableDiffusionXl], Name(DDIM_OR_EULER), &["xl lightning"], 4, 0.0),
    rule("SDXL-Turbo", &[StableDiffusionXl], Name(EULERS), &["sd xl turbo"], 1, 0.0),
    rule("SD-Turbo", &[StableDiffusion], Name(EULERS), &["sd turbo"], 1, 0.0),
    rule("Z-Image-Turbo", &[ZImage], Shift(3.0), &[], 8, 0.0),
    rule("Z-Image-Turbo", &[ZImage], Name(FLOW), &["image turbo"], 8, 0.0),
    rule("Stable Diffusion 3.5 Large Turbo", &[StableDiffusion3], Name(FLOW), &["3 5 large turbo"], 4, 0.0),
    rule("FLUX.1-schnell", &[Flux], NoGuidanceInput, &[], 4, 0.0).max_sequence_length(256),
    rule("Hyper-FLUX", &[Flux], Name(FLOW), &["hyper flux"], 8, 0.0).guided(),
    rule("consistency model", &[], Scheduler("CMStochasticIterativeScheduler"), &[], 1, 1.0),
];

impl Rule {
    /// Returns why the folder has this model; `None` if it does not.
    pub(super) fn check(&self, folder: &FolderFacts) -> Option<Match> {
        let is_of_family = match folder.kind {
            Some(kind) => self.kinds.contains(&kind),
            None => self.kinds.is_empty(),
        };
        if !is_of_family {
            return None;
        }
        let has_phrases = |name: &ModelName| self.phrases.iter().all(|phrase| name.has(phrase));
        let name = match self.phrases {
            [] => None,
            _ => Some(folder.names().into_iter().find(has_phrases)?),
        };
        let evidence = self.evidence.find(folder, name.is_some())?;
        let evidence = match &name {
            None => evidence,
            Some(name) => format!("{evidence}, and the name {:?}", name.text),
        };
        let spacing = folder.spacing.as_deref().unwrap_or("leading");
        let needs_trailing = matches!(self.evidence, Name(classes) if classes != FLOW);
        let note = needs_trailing.then(|| {
            format!(
                "{} is documented with timestep_spacing \"trailing\", but {} has {spacing:?}; correct \
                 scheduler_config.json",
                self.title, folder.scheduler_class
            )
        });
        Some(Match { reason: format!("{}, by {evidence}", self.title), name, note })
    }
}

impl Evidence {
    /// Describes the property; `None` if the folder lacks it, or contradicts it.
    fn find(self, folder: &FolderFacts, is_named: bool) -> Option<String> {
        let class = folder.scheduler_class.as_str();
        let predicts = |kind: &str| folder.prediction.as_deref().unwrap_or("epsilon") == kind;
        let is_trailing = folder.spacing.as_deref() == Some("trailing");
        let trailing = |classes: &[&str], prediction: &str| {
            let fits = classes.contains(&class) && is_trailing && predicts(prediction);
            // Without a name, Stable Diffusion 1 is no SD-Turbo.
            let is_other = folder.kind == Some(StableDiffusion)
                && folder.text_width == Some(STABLE_DIFFUSION_1_WIDTH)
                && !is_named;
            (fits && !folder.has_other_schedule && !is_other)
                .then(|| format!("{class} with timestep_spacing \"trailing\""))
        };
        match self {
            Declared => folder.is_distilled.then(|| "is_distilled in model_index.json".to_owned()),
            GuidanceEmbedding => folder
                .has_guidance_embedding
                .then(|| "the network's input for the guidance weight".to_owned()),
            NoGuidanceInput => (!folder.has_guidance_input && !folder.has_dynamic_shift).then(|| {
                "a network without an input for guidance and a schedule with a fixed shift".to_owned()
            }),
            Scheduler(only) => (class == only).then(|| only.to_owned()),
            Trailing(classes) => trailing(classes, "epsilon"),
            TrailingSample(classes) => {
                trailing(classes, "sample").map(|found| format!("{found} and prediction_type \"sample\""))
            }
            TrailingAt(side, classes) => trailing(classes, "epsilon")
                .filter(|_| folder.sample_size == Some(side))
                .map(|found| format!("{found} and sample_size {side}")),
            Shift(shift) => (folder.shift == Some(shift) && !folder.has_dynamic_shift)
                .then(|| format!("{class} with shift {shift}")),
            Name(classes) => {
                let is_base = folder.kind == Some(ZImage) && folder.shift == Some(Z_IMAGE_SHIFT);
                let fits = classes.contains(&class) && !folder.has_other_schedule && !is_base;
                let predicts_noise = predicts("epsilon") || classes == FLOW;
                (fits && predicts_noise).then(|| class.to_owned())
            }
        }
    }
}
