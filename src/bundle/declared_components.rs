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
/// `None` if denoised.toml names the graph, or if it lies beside the folders of the components. `kind` is the network's.
pub(super) fn check_presence(
    directory: &Path,
    index: &ModelIndex,
    network: Option<&str>,
    kind: Option<PipelineKind>,
) -> Result<(), BundleError> {
    let is_declared = |name: &str| matches!(index.component(name), Some(Component::Class { .. }));
    let has_graph = |name: &str| directory.join(name).join("model.onnx").is_file();
    if let Some(name) =
        NETWORKS.iter().find(|name| network.is_some_and(|own| own != **name) && is_declared(name))
    {
        return Err(missing(directory, index, name, kind));
    }
    let encoders = TEXT_ENCODERS.map(|(encoder, _)| encoder);
    let mut graphs = encoders.iter().chain(&AUTOENCODER_GRAPHS);
    if let Some(name) = graphs.find(|name| is_declared(name) && !has_graph(name)) {
        return Err(missing(directory, index, name, kind));
    }
    if is_declared("vae") && !AUTOENCODER_GRAPHS.iter().any(|name| has_graph(name)) {
        return Err(index.fault(
            "vae is declared, but neither vae_decoder/model.onnx nor vae_encoder/model.onnx is there; export the whole \
             pipeline"
                .to_owned(),
        ));
    }
    let mut encoders = TEXT_ENCODERS.iter();
    match encoders.find(|(_, tokenizer)| is_declared(tokenizer) && !directory.join(tokenizer).is_dir()) {
        Some((encoder, name)) => {
            let advice = match is_optional(encoder, kind) {
                true => format!(
                    ", or set {name} and its text encoder to [null, null] if the pipeline should run without them"
                ),
                false => String::new(),
            };
            Err(index.fault(format!(
                "{name} is declared, but the folder {name} is missing; export the whole pipeline{advice}"
            )))
        }
        None => Ok(()),
    }
}

/// The error for a component whose graph is missing.
fn missing(directory: &Path, index: &ModelIndex, name: &str, kind: Option<PipelineKind>) -> BundleError {
    let advice = match other_graph(directory, name) {
        Some(file) => format!("{file} is there; rename it to model.onnx"),
        None if is_optional(name, kind) => {
            let tokenizer = TEXT_ENCODERS.iter().find(|(encoder, _)| *encoder == name);
            let tokenizer = tokenizer.map_or_else(String::new, |(_, tokenizer)| format!(" and {tokenizer}"));
            format!(
                "export the whole pipeline, or set {name}{tokenizer} to [null, null] if the pipeline should run without it"
            )
        }
        None => "export the whole pipeline".to_owned(),
    };
    index.fault(format!("{name} is declared, but {name}/model.onnx is missing; {advice}"))
}

/// Whether a pipeline of this kind, which declares a component, also works without it.
fn is_optional(name: &str, kind: Option<PipelineKind>) -> bool {
    match TEXT_ENCODERS.iter().position(|(encoder, _)| *encoder == name) {
        // SDXL's refiner, which has the second text encoder alone, does not declare the first.
        Some(place) => kind.is_none_or(|kind| match kind {
            PipelineKind::StableDiffusionXl => place > 1,
            kind => kind.facts().text_encoders.get(place).is_none_or(|encoder| encoder.is_optional),
        }),
        // Without it, jobs can't begin at an image.
        None => name == "vae_encoder",
    }
}

/// Checks that the networks, the text encoders and the autoencoder have the classes that a pipeline of this kind works
/// with. The classes of a runtime, such as OnnxRuntimeModel, and those of other libraries say nothing.
pub(super) fn check_classes(index: &ModelIndex, kind: PipelineKind) -> Result<(), BundleError> {
    let facts = kind.facts();
    let encoders = TEXT_ENCODERS.iter().zip(facts.text_encoders);
    let networks = NETWORKS.iter().map(|name| (*name, facts.network_classes));
    let encoders = encoders.map(|((name, _), encoder)| (*name, encoder.classes));
    let autoencoder = ("vae", facts.autoencoder_classes);
    for (name, expected) in networks.chain(encoders).chain([autoencoder]) {
        let Some(Component::Class { library, class }) = index.component(name) else { continue };
        let is_judged = ["diffusers", "transformers"].contains(&library);
        let plain = RUNTIMES.iter().find_map(|runtime| class.strip_prefix(runtime)).unwrap_or(class);
        if is_judged && is_of_a_pipeline(plain) && !expected.contains(&plain) {
            return Err(index.fault(format!(
                "{name} is {class}, but that of {} is {}; export the folder again, or correct the class",
                kind.title(),
                expected.join(" or ")
            )));
        }
    }
    Ok(())
}

/// Whether a class is that of a component of any pipeline that is served.
fn is_of_a_pipeline(class: &str) -> bool {
    let is_of = |kind: PipelineKind| {
        let facts = kind.facts();
        let encoders = facts.text_encoders.iter().flat_map(|encoder| encoder.classes);
        facts
            .network_classes
            .iter()
            .chain(facts.autoencoder_classes)
            .chain(encoders)
            .any(|known| *known == class)
    };
    ["UNet2DModel", "UNet1DModel"].contains(&class) || PipelineKind::ALL.into_iter().any(is_of)
}
