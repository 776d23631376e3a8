//! Whether the components that model_index.json declares are there, and of the classes that the pipeline works with.

use std::path::Path;

use super::latent_components::TEXT_ENCODERS;
use super::model_index::{Component, ModelIndex};
use super::other_graph::other_graph;
use super::pipeline_class::RUNTIMES;
use super::{BundleError, PipelineKind};

/// The components that diffusers' networks are.
const NETWORKS: [&str; 2] = ["unet", "transformer"];

/// The files of an autoencoder, relative to the bundle.
const AUTOENCODER_GRAPHS: [&str; 2] = ["vae_decoder", "vae_encoder"];

/// Checks that every component that model_index.json declares is there. `network` is the component of the network's graph;
/// `None` if denoised.toml names the graph, or if it lies beside the folders of the components.
pub(super) fn check_presence(
    directory: &Path,
    index: &ModelIndex,
    network: Option<&str>,
) -> Result<(), BundleError> {
    let is_declared = |name: &str| matches!(index.component(name), Some(Component::Class { .. }));
    let has_graph = |name: &str| directory.join(name).join("model.onnx").is_file();
    if let Some(name) =
        NETWORKS.iter().find(|name| network.is_some_and(|own| own != **name) && is_declared(name))
    {
        return Err(missing(directory, index, name));
    }
    let encoders = TEXT_ENCODERS.map(|(encoder, _)| encoder);
    let mut graphs = encoders.iter().chain(&AUTOENCODER_GRAPHS);
    if let Some(name) = graphs.find(|name| is_declared(name) && !has_graph(name)) {
        return Err(missing(directory, index, name));
    }
    if is_declared("vae") && !AUTOENCODER_GRAPHS.iter().any(|name| has_graph(name)) {
        return Err(index.fault(
            "vae is declared, but neither vae_decoder/model.onnx nor vae_encoder/model.onnx is there; export the whole \
             pipeline"
                .to_owned(),
        ));
    }
    let tokenizers = TEXT_ENCODERS.map(|(_, tokenizer)| tokenizer);
    match tokenizers.iter().find(|name| is_declared(name) && !directory.join(name).is_dir()) {
        Some(name) => Err(index.fault(format!(
            "{name} is declared, but the folder {name} is missing; export the whole pipeline, or set {name} and its text \
             encoder to [null, null] if the pipeline should run without them"
        ))),
        None => Ok(()),
    }
}

/// The error for a component whose graph is missing.
fn missing(directory: &Path, index: &ModelIndex, name: &str) -> BundleError {
    let advice = match other_graph(directory, name) {
        Some(file) => format!("{file} is there; rename it to model.onnx"),
        None => format!(
            "export the whole pipeline, or set {name} to [null, null] if the pipeline should run without it"
        ),
    };
    index.fault(format!("{name} is declared, but {name}/model.onnx is missing; {advice}"))
}

/// Checks that the networks and the text encoders have the classes that a pipeline of this kind works with. The classes of
/// a runtime, such as OnnxRuntimeModel, and those of other libraries say nothing.
pub(super) fn check_classes(index: &ModelIndex, kind: PipelineKind) -> Result<(), BundleError> {
    let facts = kind.facts();
    let encoders = TEXT_ENCODERS.iter().zip(facts.text_encoders);
    let networks = NETWORKS.iter().map(|name| (*name, facts.network_classes));
    for (name, expected) in networks.chain(encoders.map(|((name, _), encoder)| (*name, encoder.classes))) {
        let Some(Component::Class { library, class }) = index.component(name) else { continue };
        let is_judged = ["diffusers", "transformers"].contains(&library);
        let plain = RUNTIMES.iter().find_map(|runtime| class.strip_prefix(runtime)).unwrap_or(class);
        if is_judged && is_network_or_text_encoder(plain) && !expected.contains(&plain) {
            return Err(index.fault(format!(
                "{name} is {class}, but that of {} is {}; export the folder again, or correct the class",
                kind.title(),
                expected.join(" or ")
            )));
        }
    }
    Ok(())
}

/// Whether a class is that of a network or a text encoder of any pipeline that is served.
fn is_network_or_text_encoder(class: &str) -> bool {
    let is_of = |kind: PipelineKind| {
        let facts = kind.facts();
        let encoders = facts.text_encoders.iter().flat_map(|encoder| encoder.classes);
        facts.network_classes.iter().chain(encoders).any(|known| *known == class)
    };
    ["UNet2DModel", "UNet1DModel"].contains(&class) || PipelineKind::ALL.into_iter().any(is_of)
}
