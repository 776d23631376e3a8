//! The lengths of a network's dynamic axes, from its configuration or else from its graph.

use std::path::Path;

use serde::Deserialize;

use super::class_labels::embedding_rows;
use super::convolutions::Convolutions;
use super::model_index::ModelIndex;
use super::sample_size::SampleSize;
use super::signature::SampleLayout;
use super::{
    BundleError, LatentComponents, LatentSizes, Manifest, NetworkSize, PipelineKind, Signature, pipeline_keys,
};
use crate::tensor::GraphIo;
use crate::units::{counted, nearest_multiples};

/// The keys of the network's config.json.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkConfig {
    pub(super) in_channels: Option<usize>,
    sample_size: Option<SampleSize>,
    pub(super) num_class_embeds: Option<usize>,
    _diffusers_version: Option<String>,
    pub(super) _class_name: Option<String>,
    timestep_scale: Option<f64>,
    _name_or_path: Option<serde_json::Value>,
}

impl NetworkConfig {
    /// `_name_or_path`: where the network was loaded from when it was saved.
    pub(super) fn name(&self) -> Option<&str> {
        self._name_or_path.as_ref()?.as_str()
    }
}

/// The lengths of the network's dynamic axes, and how it is fed if all its inputs are known. What the
/// configuration lacks is taken from the graph.
pub(super) fn network_size(
    graph: &Path,
    io: &GraphIo,
    manifest: &Manifest,
    config: &NetworkConfig,
    latent: Option<&LatentComponents>,
    index: &ModelIndex,
) -> Result<(NetworkSize, Option<Signature>), BundleError> {
    check_in_channels(graph, io, manifest, config, latent)?;
    let channels = match (config.in_channels, latent) {
        (None, Some(latent)) => input_channels(graph, io, manifest, Some(latent.vae.channels))?,
        (configured, _) => configured,
    };
    let named_kind = index.named_kind(config._class_name.as_deref(), io);
    // A network of packed latents has the channels of a patch: of 2×2, unless the family has another one.
    let side = named_kind.map_or(Some(2), |kind| kind.facts().packing);
    let packed = channels.zip(latent).zip(side);
    let packed = packed.is_some_and(|((n, latent), side)| n == side * side * latent.vae.channels);
    let size = config.sample_size.map(SampleSize::height_and_width);
    let own_channels = latent.filter(|_| !packed).map(|latent| latent.vae.channels);
    let default_size = PipelineKind::StableDiffusion.facts().default_sample_size;
    let mut network = NetworkSize {
        channels,
        size: size.or_else(|| latent.map(|_| (default_size, default_size))),
        packed,
        own_channels,
        named_kind,
        timestep_scale: config.timestep_scale,
    };
    // A graph with other inputs is reported when it is loaded.
    let signature = Signature::resolve(io, manifest, network, 1).ok();
    check_class_embeddings(graph, config, signature.as_ref())?;
    let kind = signature.as_ref().and_then(PipelineKind::from_signature);
    if let (None, Some(_), Some(kind)) = (size, latent, kind) {
        let default_size = kind.facts().default_sample_size;
        network.size = Some((default_size, default_size));
    }
    if let Some(SampleSize::Square(n)) = config.sample_size
        && pipeline_keys::replaces_keys(kind, index)
        && let Some(n) = pipeline_keys::replaced_sample_size(n, config._diffusers_version.as_deref())
    {
        network.size = Some((n, n));
    }
    if let (Some(size), Some(signature)) = (config.sample_size, &signature)
        && signature.dynamic_size
        && !packed
        && network.size == Some(size.height_and_width())
    {
        check_sample_size(graph, size)?;
    }
    Ok((network, signature))
}

/// Checks that the network can halve its sample, or cut it into patches, at the size of its config.json.
fn check_sample_size(graph: &Path, size: SampleSize) -> Result<(), BundleError> {
    let (LatentSizes { multiple, largest }, (height, width)) =
        (LatentSizes::read(graph)?, size.height_and_width());
    let fault = |fault: String| BundleError::Content { path: graph.with_file_name("config.json"), fault };
    for side in [height, width] {
        if !side.is_multiple_of(multiple) {
            return Err(fault(format!(
                "sample_size is {size}, but the graph beside it only takes multiples of {multiple}; use {}",
                nearest_multiples(side, multiple)
            )));
        }
        if let Some(largest) = largest.filter(|largest| side > *largest) {
            return Err(fault(format!(
                "sample_size is {size}, but the graph beside it takes at most {largest}, by pos_embed_max_size and \
                 patch_size; correct them"
            )));
        }
    }
    Ok(())
}

/// The error for a key of the network's config.json that contradicts the graph.
fn contradiction(graph: &Path, key: &str, value: usize, found: &str) -> BundleError {
    let fault = format!("{key} is {value}, but {found}: they are not of one model; export both again");
    BundleError::Content { path: graph.with_file_name("config.json"), fault }
}

/// Checks that the graph takes as many channels as the configuration has.
fn check_in_channels(
    graph: &Path,
    io: &GraphIo,
    manifest: &Manifest,
    config: &NetworkConfig,
    latent: Option<&LatentComponents>,
) -> Result<(), BundleError> {
    // The graph of a network of pixels may add channels of its own.
    let (Some(configured), Some(latent)) = (config.in_channels, latent) else { return Ok(()) };
    match input_channels(graph, io, manifest, Some(latent.vae.channels))? {
        Some(own) if own != configured => {
            let found = format!("the graph beside it takes samples of {}", counted(own as u64, "channel"));
            Err(contradiction(graph, "in_channels", configured, &found))
        }
        _ => Ok(()),
    }
}

/// Checks that a network with an embedding of classes has an input for them, and as many.
fn check_class_embeddings(
    graph: &Path,
    config: &NetworkConfig,
    signature: Option<&Signature>,
) -> Result<(), BundleError> {
    match (config.num_class_embeds, signature) {
        (Some(classes), Some(signature)) if signature.class.is_none() => {
            let found = "the graph beside it has no input for a class, such as class_labels";
            Err(contradiction(graph, "num_class_embeds", classes, found))
        }
        (Some(classes), Some(_)) => match embedding_rows(graph, signature)? {
            Some(rows) if rows != classes => {
                let found = format!(
                    "the graph beside it has an embedding of {}",
                    counted(rows as u64, "class label")
                );
                Err(contradiction(graph, "num_class_embeds", classes, &found))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The channels of the network's sample where no configuration gives them.
fn input_channels(
    graph: &Path,
    io: &GraphIo,
    manifest: &Manifest,
    latent_channels: Option<usize>,
) -> Result<Option<usize>, BundleError> {
    // A graph without such an input is reported when it is loaded.
    let Ok(sample) = Signature::sample_input(io, manifest) else { return Ok(None) };
    let (_, axes) = SampleLayout::split(&sample.shape, latent_channels);
    let axis = if axes.len() == 3 { 2 } else { 1 };
    match axes.get(axis).and_then(|axis| axis.length()) {
        Some(channels) => Ok(Some(channels)),
        None => Ok(Convolutions::read(graph)?.input_channels(&sample.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph_io;
    use super::*;
    use crate::tensor::Dim;

    /// diffusers' own converter leaves every axis of a sample free.
    #[test]
    fn the_channels_of_a_dynamic_axis_are_those_of_the_first_convolution() {
        let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles");
        for (name, channels) in [("sd", 4), ("sd_inpaint", 9)] {
            let graph = bundles.join(name).join("unet/model.onnx");
            let mut io = graph_io(&graph).unwrap();
            let sample = io.inputs.iter_mut().find(|input| input.name == "sample").unwrap();
            sample.shape = vec![Dim::Dynamic; 4];
            assert_eq!(
                input_channels(&graph, &io, &Manifest::default(), None).unwrap(),
                Some(channels),
                "{name}"
            );
        }
    }
}
