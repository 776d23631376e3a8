//! Components in a bundle's folder that are not run, and templates that are built in.

use crate::bundle::chat_template;
use crate::bundle::{Bundle, PipelineKind, TEXT_ENCODERS};

/// Why a tokenizer without its text encoder is not used.
const TOKENIZER: &str = "no text encoder is served that reads it";
/// Why a component without its graph is not used.
const NO_GRAPH: &str = "the model.onnx beside it is missing";
/// Why a text encoder with its graph is not used.
const TEXT_ENCODER: &str = "model_index.json has no such component";
/// Why the encoder of an autoencoder with its graph is not used.
const VAE_ENCODER: &str = "model_index.json sets the component to null";

/// Why nothing is read from the folder of a component; `None` if it is run, or if it is of another kind.
pub(super) fn idle_reason(bundle: &Bundle, component: &str) -> Option<&'static str> {
    let folder = bundle.directory.join(component);
    let reason = |with_graph| if folder.join("model.onnx").exists() { with_graph } else { NO_GRAPH };
    let mut encoders = bundle.latent.iter().flat_map(|latent| &latent.text_encoders);
    if TEXT_ENCODERS.iter().any(|(_, tokenizer)| *tokenizer == component) {
        let is_read = encoders.any(|(_, tokenizer)| *tokenizer == folder);
        return (!is_read).then_some(TOKENIZER);
    }
    if TEXT_ENCODERS.iter().any(|(encoder, _)| *encoder == component) {
        let is_run = encoders.any(|(graph, _)| graph.parent() == Some(&folder));
        return (!is_run).then(|| reason(TEXT_ENCODER));
    }
    let lacks_encoder = bundle.latent.as_ref().is_some_and(|latent| latent.encoder.is_none());
    (component == "vae_encoder" && lacks_encoder).then(|| reason(VAE_ENCODER))
}

/// What counts in place of the chat template in the folder of a tokenizer.
pub(super) fn chat_template_reason(bundle: &Bundle, tokenizer: &str) -> String {
    let folder = bundle.directory.join(tokenizer);
    let kind = bundle.signature.as_ref().and_then(PipelineKind::from_signature);
    let latent = bundle.latent.as_ref().zip(kind);
    let is_compared = latent.is_some_and(|(latent, kind)| {
        let facts = latent.text_encoder_facts(kind);
        let mut encoders = latent.text_encoders.iter().zip(facts);
        encoders.any(|((_, own), (_, facts))| *own == folder && chat_template::is_compared(facts.template))
    });
    match kind.filter(|_| is_compared) {
        Some(kind) => format!(
            "prompts get the built-in text of {}, with which the template is only compared",
            kind.title()
        ),
        None => "the pipeline uses no chat template".to_owned(),
    }
}
