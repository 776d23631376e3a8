//! The keys of a network's config.json that its graph or another key makes superfluous.

use serde_json::{Map, Value as Json};

use crate::bundle::sample_size::SampleSize;
use crate::bundle::{Bundle, PipelineKind, Role, Signature, TimeConvention};
use crate::tensor::Dim;
use crate::units::counted;

/// Why a key that the program reads has no effect here; `None` if it has one, or if it agrees with what counts.
pub(super) fn unused(bundle: &Bundle, key: &str, keys: &Map<String, Json>) -> Option<String> {
    let is_set = |key: &str| keys.get(key).is_some_and(|value| !value.is_null());
    let signature = bundle.signature.as_ref().filter(|_| is_set(key))?;
    match key {
        "in_channels" => unused_channels(signature, keys.get(key)?.as_u64()?),
        "sample_size" => unused_size(bundle, signature, keys.get(key)?),
        "num_class_embeds" if bundle.manifest.classes.names.iter().any(|name| !name.is_empty()) => {
            let rows = crate::bundle::class_labels::embedding_rows(&bundle.graph, Some(signature)).ok()?;
            rows.is_none().then(|| "denoised.toml has the names of the classes, which count".to_owned())
        }
        "block_out_channels" => {
            let levels = |key: &str| Some(keys.get(key)?.as_array()?.len());
            let (own, other) = (levels(key)?, levels("down_block_types")?);
            (own != other)
                .then(|| format!("down_block_types takes precedence, with {other} levels instead of {own}"))
        }
        "patch_size" if is_set("down_block_types") => {
            Some("a network with down_block_types has no patches".to_owned())
        }
        "pos_embed_max_size" if !is_set("patch_size") || is_set("down_block_types") => {
            Some("only a network with patch_size has such a table".to_owned())
        }
        "timestep_scale" => {
            let kind = PipelineKind::from_signature(signature)?;
            let is_scaled = matches!(kind.facts().time, TimeConvention::ScaledStep(_));
            (!is_scaled).then(|| format!("the network of {} takes time steps of a fixed scale", kind.title()))
        }
        "joint_attention_dim" => unused_text_width(bundle, signature, keys.get(key)?.as_u64()?),
        _ => None,
    }
}

/// `in_channels` of a graph that fixes another number.
fn unused_channels(signature: &Signature, configured: u64) -> Option<String> {
    let found = match signature.sample_shape[..] {
        [channels, _, _] => channels + signature.extra_channels,
        [_, channels] => channels,
        _ => return Some("the samples of the graph beside it have no channels".to_owned()),
    };
    (found as u64 != configured)
        .then(|| format!("the graph beside it takes precedence, with {}", counted(found as u64, "channel")))
}

/// `joint_attention_dim`, which gives the width of the rows of a text encoder that is left out.
fn unused_text_width(bundle: &Bundle, signature: &Signature, configured: u64) -> Option<String> {
    if !bundle.graph.parent().is_some_and(|folder| folder.ends_with("transformer")) {
        return Some("only a network in transformer/ has it".to_owned());
    }
    let text = signature.tensors.iter().find(|input| input.role == Role::Text)?;
    let taken = text.shape.last().and_then(Dim::length).filter(|taken| *taken as u64 != configured)?;
    Some(format!("the graph beside it takes precedence, with text embeddings of width {taken}"))
}

/// `sample_size` of a graph that fixes another size, or that a pipeline replaces.
fn unused_size(bundle: &Bundle, signature: &Signature, configured: &Json) -> Option<String> {
    let configured: SampleSize = serde_json::from_value(configured.clone()).ok()?;
    let configured = configured.height_and_width();
    match (signature.sample_shape.as_slice(), bundle.network.size) {
        ([_, _, _], Some((height, width))) if signature.dynamic_size => ((height, width) != configured)
            .then(|| format!("the pipeline takes {height}×{width} instead, as in diffusers")),
        ([_, height, width], _) => ((*height, *width) != configured)
            .then(|| format!("the graph beside it takes precedence, with {height}×{width}")),
        _ if bundle.latent.is_some() => None,
        _ => Some("the samples of the graph beside it have no height and width".to_owned()),
    }
}
