//! Whether the graph of a text encoder fits its configuration and the pipeline, and which of its outputs is read.

use crate::bundle::{LayerRule, PipelineKind, Pooled, TextEncoderConfig, TextEncoderFacts, TextEncoderIo};
use crate::tensor::GraphIo;

/// The projected embedding of CLIPTextModelWithProjection.
const PROJECTED: &str = "text_embeds";

/// The embedding of CLIPTextModel, which is not projected. It may have the same width.
const NOT_PROJECTED: &str = "pooler_output";

/// Sets the output for the pooled embedding: Flux reads the one that is not projected, the other pipelines the projected
/// one. The error is what is wrong with the graph. An output of another name is taken as it is.
pub(super) fn choose_pooled(
    graph: &GraphIo,
    io: &mut TextEncoderIo,
    config: &TextEncoderConfig,
    pooled: Pooled,
    kind: PipelineKind,
) -> Result<(), String> {
    let reads_projected = pooled == Pooled::Projected;
    let (read, other) = if reads_projected { (PROJECTED, NOT_PROJECTED) } else { (NOT_PROJECTED, PROJECTED) };
    if let Some(output) = graph.outputs.iter().find(|output| output.name == read) {
        io.pooled = Some(output.name.clone());
        io.pooled_width = output.shape.get(1).and_then(|axis| axis.length());
        return Ok(());
    }
    let is_wide_as = |width: Option<usize>| width.is_some() && io.pooled_width == width;
    // Its width can show that an output of another name is projected.
    let is_projected = is_wide_as(config.projection_dim) && !is_wide_as(config.hidden_size);
    if io.pooled.as_deref() != Some(other) || (reads_projected && is_projected) {
        return Ok(());
    }
    let (class, wrong) = match reads_projected {
        true => ("CLIPTextModelWithProjection", "is not projected"),
        false => ("CLIPTextModel", "is projected"),
    };
    Err(format!(
        "its output {other} {wrong}, but {} reads the output {read} of {class}; export this text encoder again, and do not \
         exchange it with another one",
        kind.title()
    ))
}

/// Checks that the graph of a text encoder has the lengths that its configuration gives.
pub(super) fn check_config(
    io: &TextEncoderIo,
    config: &TextEncoderConfig,
    embedding: Option<[usize; 2]>,
    facts: &TextEncoderFacts,
) -> Result<(), String> {
    let own = io.width.filter(|_| facts.layers_beside() == 1 || !has_one_output(io, facts));
    let width = own.or(embedding.map(|[_, width]| width));
    let rows = embedding.map(|[rows, _]| rows);
    for (key, configured, own, what) in [
        ("hidden_size or d_model", config.hidden_size, width, "the width of its embeddings"),
        ("vocab_size", config.vocab_size, rows, "the number of its tokens"),
    ] {
        if let (Some(configured), Some(own)) = (configured, own)
            && configured != own
        {
            return Err(format!(
                "{key} in its config.json is {configured}, but {what} is {own}: they are not of one model; export both \
                 again"
            ));
        }
    }
    Ok(())
}

/// Whether the only output with rows is that of the layers that a pipeline reads, as exports for one pipeline have it.
pub(super) fn has_one_output(io: &TextEncoderIo, facts: &TextEncoderFacts) -> bool {
    facts.may_have_one_output() && io.hidden.is_empty() && io.last.is_some()
}

/// Checks that a text encoder has the outputs that the pipeline reads, and forgets a pooled embedding that it does not read.
pub(super) fn check_outputs(io: &mut TextEncoderIo, facts: &TextEncoderFacts) -> Result<(), String> {
    let reads_pooled = facts.pooled.is_some();
    let reads_layers = facts.layer != LayerRule::Last && !has_one_output(io, facts);
    let is_missing = |layers: &[usize]| layers.iter().any(|layer| io.hidden_layer(*layer).is_none());
    if let (LayerRule::Numbered(layers), true) = (facts.layer, reads_layers)
        && is_missing(layers)
    {
        return Err(format!(
            "it lacks one of the outputs hidden_states.{}, which this pipeline reads; export it with output_hidden_states",
            layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", hidden_states.")
        ));
    }
    if !reads_pooled {
        io.pooled = None;
    }
    let fault = if reads_layers && io.hidden.len() < 3 {
        "it has no outputs hidden_states.0, hidden_states.1 …, of which this pipeline reads the last but one; export it \
         with output_hidden_states"
    } else if !reads_layers && io.last.is_none() {
        "it has no output last_hidden_state; export it again"
    } else if reads_pooled && io.pooled.is_none() {
        "it has no output text_embeds or pooler_output for the pooled embedding, which this pipeline reads; export it \
         again"
    } else {
        return Ok(());
    };
    Err(fault.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DataType, ValueInfo};

    #[test]
    fn the_pooled_output_is_the_one_that_the_pipeline_reads() {
        let chosen = |outputs: &[(&str, Option<usize>)], kind| {
            let pooled = outputs
                .iter()
                .map(|(name, width)| ValueInfo::with_axes(name, DataType::F32, &[None, *width]));
            let inputs = vec![ValueInfo::with_axes("input_ids", DataType::I64, &[None, None])];
            let graph = GraphIo { inputs, outputs: pooled.collect() };
            let mut io = TextEncoderIo::resolve(&graph).unwrap();
            let config = TextEncoderConfig {
                hidden_size: Some(16),
                projection_dim: Some(24),
                ..TextEncoderConfig::default()
            };
            {
                let pooled =
                    if kind == PipelineKind::Flux { Pooled::NotProjected } else { Pooled::Projected };
                choose_pooled(&graph, &mut io, &config, pooled, kind)
            }
            .map(|()| io.pooled.unwrap_or_default())
        };
        let xl = PipelineKind::StableDiffusionXl;
        let both = [("text_embeds", None), ("pooler_output", None)];
        assert_eq!(chosen(&both, xl).as_deref(), Ok("text_embeds"));
        assert_eq!(chosen(&both, PipelineKind::Flux).as_deref(), Ok("pooler_output"));
        assert_eq!(chosen(&[("pool", None)], xl).as_deref(), Ok("pool"));
        assert_eq!(chosen(&[("pooler_output", Some(24))], xl).as_deref(), Ok("pooler_output"));
        for width in [None, Some(16)] {
            assert_eq!(
                chosen(&[("pooler_output", width)], xl).unwrap_err(),
                "its output pooler_output is not projected, but Stable Diffusion XL reads the output text_embeds of \
                 CLIPTextModelWithProjection; export this text encoder again, and do not exchange it with another one"
            );
        }
        let error = chosen(&[("text_embeds", None)], PipelineKind::Flux).unwrap_err();
        assert!(error.starts_with("its output text_embeds is projected, but Flux reads"), "{error}");
    }
}
