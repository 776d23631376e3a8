//! The components that a kind of pipeline needs, whether or not model_index.json declares them.

use std::path::Path;

use super::latent_components::TEXT_ENCODERS;
use super::model_index::{Component, ModelIndex};
use super::other_graph::other_graph;
use super::{BundleError, PipelineKind};

/// Checks that the folder has the text encoders of this kind of pipeline, their tokenizers, and an autoencoder.
pub(super) fn check(directory: &Path, index: &ModelIndex, kind: PipelineKind) -> Result<(), BundleError> {
    let is_null = |component: &str| index.component(component) == Some(Component::Absent);
    let has_graph =
        |component: &str| directory.join(component).join("model.onnx").is_file() && !is_null(component);
    let encoders = TEXT_ENCODERS.iter().zip(kind.facts().text_encoders);
    let needed = encoders.filter(|(_, facts)| !facts.is_optional).map(|((encoder, _), _)| *encoder);
    let decoder = Some("vae_decoder").filter(|decoder| !has_graph(decoder) && !has_graph("vae_encoder"));
    if let Some(component) = needed.filter(|encoder| !has_graph(encoder)).chain(decoder).next() {
        let title = kind.title();
        if is_null(component) {
            return Err(index.fault(format!(
                "{component} is null, but {title} needs it; name its library and its class, or export the whole pipeline \
                 again"
            )));
        }
        let advice = match other_graph(directory, component) {
            Some(file) => format!("{file} is there; rename it to model.onnx"),
            None if directory.join(format!("{component}.partial")).is_dir() => {
                format!("{component}.partial is of an interrupted export; export the model again")
            }
            None => "export the whole pipeline".to_owned(),
        };
        let fault = format!("{component}/model.onnx is missing, which {title} needs; {advice}");
        return Err(BundleError::Content { path: directory.to_owned(), fault });
    }
    let mut present = TEXT_ENCODERS.iter().filter(|(encoder, _)| has_graph(encoder));
    match present.find(|(_, tokenizer)| !directory.join(tokenizer).is_dir()) {
        Some((encoder, tokenizer)) => {
            let advice = match index.entries().is_empty() || index.component(encoder).is_some() {
                true => "export the whole pipeline".to_owned(),
                false => format!(
                    "model_index.json has no {encoder}, so remove the folder {encoder}, or export the whole pipeline"
                ),
            };
            let fault = format!("the folder {tokenizer} is missing, which {encoder} needs; {advice}");
            Err(BundleError::Content { path: directory.to_owned(), fault })
        }
        None => Ok(()),
    }
}
