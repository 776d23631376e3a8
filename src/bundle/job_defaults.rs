//! What a job without a number of steps or a guidance weight gets: the settings that the model was made for.
//!
//! The files of a folder show many models that were distilled for few steps: see the table in [`rules`]. Any other model
//! gets the defaults of its pipeline in diffusers. `[default]` in denoised.toml replaces each value.

mod folder_facts;
mod model_name;
mod rules;

use super::{Defaults, PipelineFacts, PipelineKind};
pub(super) use folder_facts::FolderFacts;
use model_name::{DISTILLATION_WORDS, ModelName};
use rules::{Match, RULES};

/// A value that a job gets by default, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultValue<T> {
    /// The value.
    pub value: T,
    /// The reason, for `denoised inspect`.
    pub reason: String,
}

/// The values that a job gets by default.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDefaults {
    /// The number of steps.
    pub steps: DefaultValue<usize>,
    /// The guidance weight. Without a prompt, that of a job with a class.
    pub guidance: DefaultValue<f64>,
    /// η of the default sampler, if it is not that of the sampler.
    pub eta: Option<DefaultValue<f64>>,
    /// The number of tokens of a text encoder that takes as many as a job asks for, if it is not that of the pipeline.
    pub max_sequence_length: Option<DefaultValue<usize>>,
    /// What the user should know about a folder whose files contradict its name.
    pub note: Option<String>,
}

/// The largest number of steps that a name states of a distilled model.
const MAX_STEPS_IN_NAME: usize = 16;

impl<T> DefaultValue<T> {
    fn from_rule(value: T, found: &Match) -> Self {
        Self { value, reason: found.reason.clone() }
    }
}

impl JobDefaults {
    /// Decides on every value: that of denoised.toml, or else that of the first rule that fits, or else the pipeline's.
    pub(super) fn decide(folder: &FolderFacts, manifest: &Defaults) -> Self {
        let found = RULES.iter().find_map(|rule| Some((rule, rule.check(folder)?)));
        let facts = folder.kind.unwrap_or(PipelineKind::StableDiffusion).facts();
        let pipeline = match folder.kind {
            None => "of a model without a prompt".to_owned(),
            Some(_) => format!("of {}", folder.pipeline_class.as_deref().unwrap_or(facts.classes[0])),
        };
        let pipeline = || format!("the default {pipeline}");
        let steps = match &found {
            Some((rule, found)) => {
                steps_in_name(folder, found).unwrap_or_else(|| DefaultValue::from_rule(rule.steps, found))
            }
            None => DefaultValue { value: facts.steps, reason: pipeline() },
        };
        let own = if folder.kind.is_some() { facts.guidance } else { 1.0 };
        let guidance = match &found {
            Some((rule, found)) if rule.guidance.is_some() => {
                DefaultValue::from_rule(rule.guidance.unwrap_or(own), found)
            }
            _ => DefaultValue { value: own, reason: pipeline() },
        };
        let eta = found.as_ref().and_then(|(rule, found)| Some(DefaultValue::from_rule(rule.eta?, found)));
        let length = found
            .as_ref()
            .and_then(|(rule, found)| Some(DefaultValue::from_rule(rule.max_sequence_length?, found)));
        let note = match &found {
            Some((_, found)) => found.note.clone(),
            None => suspicious_name(folder),
        };
        Self {
            steps: configured(manifest.steps).unwrap_or(steps),
            guidance: configured(manifest.guidance).unwrap_or(guidance),
            eta: configured(manifest.eta).or(eta),
            max_sequence_length: configured(manifest.max_sequence_length)
                .or(length)
                .filter(|_| takes_length(folder.kind.map(PipelineKind::facts))),
            note: note.filter(|_| manifest.steps.is_none()),
        }
    }
}

/// A value of denoised.toml.
fn configured<T>(value: Option<T>) -> Option<DefaultValue<T>> {
    value.map(|value| DefaultValue { value, reason: "[default] in denoised.toml".to_owned() })
}

/// Whether a text encoder takes as many tokens as a job asks for.
fn takes_length(facts: Option<&PipelineFacts>) -> bool {
    facts.is_some_and(|facts| facts.sequence_length().is_some())
}

/// The number of steps that a name states, first the name that the rule found.
fn steps_in_name(folder: &FolderFacts, found: &Match) -> Option<DefaultValue<usize>> {
    let names = folder.names();
    let names = || found.name.iter().chain(&names);
    let (name, value) = names().find_map(|name| Some((name, name.steps()?)))?;
    (value <= MAX_STEPS_IN_NAME).then(|| DefaultValue {
        value,
        reason: format!("{}; the number is in the name {:?}", found.reason, name.text),
    })
}

/// What to say about a model whose name has the word of a distilled one, but whose files do not fit it.
fn suspicious_name(folder: &FolderFacts) -> Option<String> {
    folder.kind?;
    let names = folder.names();
    let has_word = |name: &&ModelName| DISTILLATION_WORDS.iter().any(|word| name.has(word));
    let name = names.iter().find(has_word)?;
    Some(format!(
        "the name {:?} is that of a model for few steps, but {} is not set up as for such a model; if it is one, set steps \
         and guidance under [default] in denoised.toml, and the scheduler that its documentation names",
        name.text, folder.scheduler_class
    ))
}

#[cfg(test)]
mod tests;
