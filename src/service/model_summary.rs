//! What an interface shows of a model to whoever writes a request.

use serde::Serialize;

use crate::job::ModelCard;

/// What an interface shows of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ModelSummary {
    /// The name by which requests choose it.
    #[serde(skip)]
    pub(crate) name: String,
    /// Whether it takes a prompt.
    pub(crate) takes_prompt: bool,
    /// The labels of its classes: their names, or their numbers without names. Empty if it has none.
    pub(crate) classes: Vec<String>,
    /// Whether a guidance scale other than 1 has a meaning.
    pub(crate) takes_guidance: bool,
    /// The default number of steps.
    pub(crate) steps: usize,
    /// The default guidance scale.
    pub(crate) guidance: f64,
}

impl ModelSummary {
    pub(super) fn new(card: &ModelCard) -> Self {
        let bundle = &card.bundle;
        let takes_prompt = card.latent.is_some();
        let labels = &bundle.manifest.classes;
        let label = |class: usize| labels.names.get(class).cloned().unwrap_or_else(|| class.to_string());
        let can_choose_class = card.signature.class.is_some();
        Self {
            name: bundle.name.clone(),
            takes_prompt,
            classes: (0..bundle.classes()).filter(|_| can_choose_class).map(label).collect(),
            takes_guidance: if takes_prompt { card.takes_guidance() } else { labels.null.is_some() },
            steps: bundle.defaults.steps.value,
            guidance: bundle.defaults.guidance.value,
        }
    }
}
