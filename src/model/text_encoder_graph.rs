//! The graph of a text encoder with its tokenizer, held against its configuration and the pipeline.

use std::path::{Path, PathBuf};

use super::error::LatentError;
use super::text_encoder::Layer;
use super::tokenizer::Tokenizer;
use super::{ModelError, text_encoder_checks};
use crate::bundle::{
    Bundle, Masking, PipelineKind, RowUse, TextEncoderConfig, TextEncoderFacts, TextEncoderIo, TextLength,
    embedding_shape,
};

/// The graph of a text encoder with its tokenizer.
pub(super) struct TextEncoderGraph {
    pub(super) path: PathBuf,
    pub(super) tokenizer: Tokenizer,
    /// The directory of the tokenizer.
    pub(super) tokenizer_path: PathBuf,
    pub(super) io: TextEncoderIo,
    pub(super) config: TextEncoderConfig,
    /// What the pipeline does with it.
    pub(super) facts: &'static TextEncoderFacts,
    /// Its place among the text encoders of the pipeline, from 0.
    pub(super) place: usize,
}

impl TextEncoderGraph {
    pub(super) fn read(
        bundle: &Bundle,
        path: &Path,
        (tokenizer_path, tokenizer_class): (&Path, Option<&str>),
        kind: PipelineKind,
        (place, facts): (usize, &'static TextEncoderFacts),
    ) -> Result<Self, ModelError> {
        let graph = &bundle.files(path)?.header.io;
        let mut io = TextEncoderIo::resolve(graph)
            .map_err(|error| ModelError::Signature { graph: path.to_owned(), error })?;
        let config = TextEncoderConfig::read(path)?;
        let positions = config.max_position_embeddings;
        let tokenizer = Tokenizer::open(tokenizer_path, facts.model, tokenizer_class, positions)?;
        let embedding = embedding_shape(path, &io.ids)?;
        let fault = |fault: String| ModelError::Mismatch { graph: path.to_owned(), fault };
        text_encoder_checks::check_config(&io, &config, embedding, facts).map_err(fault)?;
        let vocabulary = config.vocab_size.or(embedding.map(|[rows, _]| rows));
        tokenizer.check_vocabulary(tokenizer_path, vocabulary, path)?;
        let takes_any_length = facts.length != TextLength::Tokenizer;
        if let Some(length) = io.length.filter(|length| *length != tokenizer.length && !takes_any_length) {
            return Err(fault(format!(
                "its input {} takes {length} tokens, but the tokenizer in {} pads prompts to {}; export the text encoder \
                 with a dynamic length, or with that one",
                io.ids,
                tokenizer_path.display(),
                tokenizer.length
            )));
        }
        if let Some(max) = positions.filter(|max| tokenizer.length > *max && !takes_any_length) {
            return Err(fault(format!(
                "it has positions for {max} tokens (max_position_embeddings in its config.json), but the tokenizer in {} \
                 pads prompts to {}: they are not of one model, so export both again",
                tokenizer_path.display(),
                tokenizer.length
            )));
        }
        text_encoder_checks::check_outputs(&mut io, facts).map_err(fault)?;
        if let Some(pooled) = facts.pooled {
            text_encoder_checks::choose_pooled(graph, &mut io, &config, pooled, kind).map_err(fault)?;
        }
        // Exports of CLIP leave these widths out, or declare them as dynamic.
        let is_projected = io.pooled.as_deref() == Some("text_embeds");
        let pooled_width = if is_projected { config.projection_dim } else { config.hidden_size };
        let beside = facts.layers_beside();
        io.width = match text_encoder_checks::has_one_output(&io, facts) {
            true => io.width.or(config.hidden_size.map(|width| width * beside)),
            false => io.width.or(config.hidden_size).map(|width| width * beside),
        };
        io.pooled_width = io.pooled_width.or(pooled_width);
        if facts.masking == Masking::Configured && config.use_attention_mask && io.mask.is_none() {
            log::warn!(
                "{}: use_attention_mask in its config.json has no effect, because the graph has no input for a mask; export \
                 the text encoder with attention_mask, or remove the key",
                path.display()
            );
        }
        let (path, tokenizer_path) = (path.to_owned(), tokenizer_path.to_owned());
        Ok(Self { path, tokenizer, tokenizer_path, io, config, facts, place })
    }

    /// Whether padding is hidden by the mask. The pipelines of most families never do that.
    pub(super) fn masks_padding(&self) -> bool {
        match self.facts.masking {
            Masking::Never => false,
            Masking::Configured => self.config.use_attention_mask,
            Masking::Always => true,
        }
    }

    /// The number of tokens of a prompt with the text before it, if `asked` tokens are given to the network.
    pub(super) fn encoded_length(&self, before: &str, asked: usize) -> Result<usize, String> {
        let length = match self.facts.rows {
            // Of the further rows, the first one is kept, and the last two are places of the prompt.
            RowUse::FirstAndLast if !before.is_empty() => self.tokenizer.count(before)? + asked - 2,
            _ => asked,
        };
        match self.io.length {
            Some(fixed) if self.facts.masking == Masking::Always && length > fixed => Err(format!(
                "{} takes {fixed} tokens, but {length} are needed; export it with a dynamic length, or reduce \
                 max_sequence_length",
                self.path.display()
            )),
            _ => Ok(length),
        }
    }

    /// The outputs whose rows are read for a layer, in the order in which they are put side by side.
    pub(super) fn layer_outputs(&self, layer: Layer) -> Result<Vec<&str>, LatentError> {
        let io = &self.io;
        if let (true, Some(only)) = (text_encoder_checks::has_one_output(io, self.facts), io.last.as_deref())
        {
            return Ok(vec![only]);
        }
        let output = match layer {
            Layer::Last => io.last.as_deref().ok_or(LatentError::NoLayers)?,
            Layer::BeforeLast(n) => layer_before_last(io, self.hidden_layers(), n)?,
            Layer::Numbered(layers) => {
                let output = |n: &usize| io.hidden_layer(*n).ok_or(LatentError::NoLayers);
                return layers.iter().map(output).collect();
            }
        };
        Ok(vec![output])
    }

    /// How many outputs for layers a complete export has. The first one holds the token embeddings, and the last one may
    /// be left out, because with the final norm it is the last hidden state.
    fn hidden_layers(&self) -> usize {
        let found = self.io.hidden.len();
        let is_language_model = self.facts.may_have_one_output();
        match self.config.num_hidden_layers.filter(|_| is_language_model) {
            Some(layers) => layers + 1,
            None if is_language_model && self.io.last.is_some() => found + 1,
            None => found,
        }
    }
}

/// The output for the n-th layer before the last of `count`. The first of the hidden layers holds the token embeddings.
fn layer_before_last(io: &TextEncoderIo, count: usize, n: usize) -> Result<&str, LatentError> {
    if io.hidden.is_empty() {
        return Err(LatentError::NoLayers);
    }
    let found = (n + 1 < count).then(|| io.hidden.get(count - 1 - n)).flatten();
    found.map(String::as_str).ok_or(LatentError::Layers { requested: n - 1, max: count.saturating_sub(3) })
}
