//! The text encoders of a pipeline.

use super::component::{Component, SampleInput, SampleOutput, SampleValues};
use super::embedding_cache::{EmbeddingCache, EmbeddingKey};
use super::error::LatentError;
use super::live_feed::{self, Adaptation};
use super::text_encoder_graph::TextEncoderGraph;
use super::tokenizer::Tokens;
use crate::bundle::{FramedPrompt, LayerRule, Masking, RowUse, TextEncoderFacts, TextLength};
use crate::tensor::Tensor;

/// A text encoder with its tokenizer and a cache of embeddings.
pub(super) struct TextEncoder {
    graph: TextEncoderGraph,
    component: Component,
    cache: EmbeddingCache,
}

/// The layer of a text encoder that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// The last one, with the final norm.
    Last,
    /// The n-th one before the last, without the norm.
    BeforeLast(usize),
    /// Those with these numbers, counted from 1, side by side.
    Numbered(&'static [usize]),
}

/// A prompt for a text encoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncoderInput<'a> {
    pub(super) prompt: &'a str,
    pub(super) is_negative: bool,
    /// How many of the last layers are skipped.
    pub(super) skipped_layers: usize,
    /// The number of tokens of an encoder that takes as many as a job asks for.
    pub(super) sequence_length: usize,
    /// The LoRAs, and what tells them from others.
    pub(super) loras: Option<(&'a Adaptation, &'a str)>,
}

/// The embedding of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Embedding {
    /// One row per token.
    pub(super) rows: Tensor,
    /// For each row 1, or 0 if it is padding.
    pub(super) mask: Vec<f32>,
    /// The pooled embedding. Empty if the text encoder has none.
    pub(super) pooled: Vec<f32>,
    /// The part of the prompt that exceeds the text encoder's length.
    pub(super) truncated: Option<String>,
}

impl TextEncoder {
    pub(super) fn new(graph: TextEncoderGraph, component: Component, cache: EmbeddingCache) -> Self {
        Self { graph, component, cache }
    }

    /// What the pipeline does with it.
    pub(super) fn facts(&self) -> &'static TextEncoderFacts {
        self.graph.facts
    }

    /// Its place among the text encoders of the pipeline, from 0.
    pub(super) fn place(&self) -> usize {
        self.graph.place
    }

    /// Encodes a prompt.
    pub(super) fn encode(&self, input: &EncoderInput<'_>) -> Result<Embedding, LatentError> {
        let facts = self.graph.facts;
        let framed = facts.template.frame(input.prompt, input.is_negative);
        let skipped_layers = if facts.model.is_clip() { input.skipped_layers } else { 0 };
        let layer = match facts.layer {
            LayerRule::Last if skipped_layers == 0 => Layer::Last,
            LayerRule::Last => Layer::BeforeLast(skipped_layers),
            LayerRule::BeforeLast => Layer::BeforeLast(1 + skipped_layers),
            LayerRule::Numbered(layers) => Layer::Numbered(layers),
        };
        let length = match facts.length {
            TextLength::Tokenizer => self.graph.tokenizer.length,
            TextLength::Requested(_) => input.sequence_length,
        };
        let text = [&*framed.before, &*framed.prompt, framed.after].map(str::to_owned);
        let (adaptation, loras) = input.loras.map_or((None, ""), |(adaptation, key)| (Some(adaptation), key));
        let key = EmbeddingKey { text, layer, length, loras: loras.to_owned() };
        self.cache.get_or_encode(key, || self.evaluate(&framed, layer, length, adaptation))
    }

    /// Opens the graph without evaluating it, if it is not open.
    pub(super) fn open(&self) -> Result<(), LatentError> {
        self.component.open()
    }

    /// Closes the graph. Embeddings stay in the cache.
    pub(super) fn close(&self) {
        self.component.close();
    }

    /// Encodes a text in `asked` tokens.
    fn evaluate(
        &self,
        framed: &FramedPrompt<'_>,
        layer: Layer,
        asked: usize,
        adaptation: Option<&Adaptation>,
    ) -> Result<Embedding, LatentError> {
        let TextEncoderGraph { io, tokenizer, facts, .. } = &self.graph;
        let length = self.graph.encoded_length(&framed.before, asked).map_err(LatentError::Tokens)?;
        let mut tokens = tokenizer.encode(framed, length).map_err(LatentError::Tokens)?;
        match io.length {
            None if facts.rows == RowUse::Unpadded => tokens.ids.truncate(tokens.unpadded_len),
            Some(fixed) if facts.masking == Masking::Always => tokenizer.pad(&mut tokens.ids, fixed),
            _ => {}
        }
        let fed = tokens.ids.len();
        let rows = self.graph.layer_outputs(layer)?;
        let pooled = io.pooled.as_deref();
        let outputs: Vec<&str> = rows.iter().copied().chain(pooled).collect();
        let mut found = self.component.run(&self.inputs(&tokens.ids, &tokens, adaptation), &outputs)?;
        let mut pooled_values =
            if pooled.is_some() { found.pop().unwrap_or_default().values } else { Vec::new() };
        let mut layers = Vec::with_capacity(found.len());
        for (SampleOutput { shape, values }, name) in found.into_iter().zip(&rows) {
            if shape.len() != 2 || shape[0] != fed {
                return Err(self.component.wrong_shape(name, format!("[{fed}, a width]"), shape));
            }
            layers.push(Tensor::new(shape, values));
        }
        if let (Some(pooled), false) = (pooled, self.component.argmax_returns_first()?) {
            let ids = self.with_unique_maximum(&tokens.ids);
            let mut found = self.component.run(&self.inputs(&ids, &tokens, adaptation), &[pooled])?;
            pooled_values = found.pop().unwrap_or_default().values;
        }
        let chosen = match facts.rows {
            RowUse::Unpadded => 0..tokens.unpadded_len,
            RowUse::FirstAndLast => length - (asked - 1).min(length)..length,
            RowUse::Unused | RowUse::Beside | RowUse::After => 0..length,
        };
        let first = (facts.rows == RowUse::FirstAndLast && chosen.start > 0).then_some(0);
        let chosen: Vec<usize> = first.into_iter().chain(chosen).collect();
        let mask = chosen.iter().map(|row| if *row < tokens.unpadded_len { 1.0 } else { 0.0 });
        let (mask, rows) =
            (mask.collect(), selected(concat_features(&layers.iter().collect::<Vec<_>>()), &chosen));
        Ok(Embedding { rows, mask, pooled: pooled_values, truncated: tokens.truncated })
    }

    /// The inputs of the graph for these token ids.
    fn inputs(&self, ids: &[i64], tokens: &Tokens, adaptation: Option<&Adaptation>) -> Vec<SampleInput<'_>> {
        let io = &self.graph.io;
        let length = ids.len() as i64;
        let visible = if self.graph.masks_padding() { tokens.unpadded_len as i64 } else { length };
        let input =
            |name, values| SampleInput { name, shape: vec![ids.len()], values: SampleValues::I64(values) };
        let others = [
            (&io.mask, (0..length).map(|i| i64::from(i < visible)).collect()),
            (&io.positions, (0..length).collect()),
            (&io.token_types, vec![0; ids.len()]),
        ];
        let others = others.into_iter().filter_map(|(name, values)| Some(input(name.as_deref()?, values)));
        let live =
            io.live.layers.iter().enumerate().flat_map(|(index, layer)| {
                let part = adaptation.and_then(|adaptation| adaptation.layers.get(index)?.as_ref());
                let matrices = live_feed::matrices(layer, part.map(Some).as_slice());
                [&layer.a, &layer.b].into_iter().zip(matrices).map(|(name, Tensor { shape, data })| {
                    SampleInput { name, shape: shape[1..].to_vec(), values: SampleValues::F32(data) }
                })
            });
        [input(io.ids.as_str(), ids.to_vec())].into_iter().chain(others).chain(live).collect()
    }

    /// The token ids, changed after the token at which CLIP pools so that this token is the only one of its kind.
    ///
    /// CLIP pools with ArgMax at the first end-of-text token, which its padding may repeat. An engine whose ArgMax returns
    /// the last one then finds the first one. No row depends on later tokens, so the result is the same.
    fn with_unique_maximum(&self, ids: &[i64]) -> Vec<i64> {
        let Some(at) = pooled_position(ids, self.graph.config.eos_token_id) else { return ids.to_vec() };
        let mut changed = ids[..=at].to_vec();
        if let Some(fixed) = self.graph.io.length {
            // Any id that is neither the largest one nor the end of the text.
            let other = (0..).find(|id| *id != ids[at]).unwrap_or(0);
            changed.resize(fixed, other);
        }
        changed
    }
}

/// Where CLIP pools: at the first end-of-text token. transformers takes the first of the largest ids if the
/// configuration has the id 2, which is that of files from before that key was right.
fn pooled_position(ids: &[i64], eos: Option<i64>) -> Option<usize> {
    let largest = ids.iter().max().copied();
    let target = eos.filter(|eos| *eos != 2 && ids.contains(eos)).or(largest)?;
    ids.iter().position(|id| *id == target)
}

/// These rows of a tensor.
fn selected(tensor: Tensor, rows: &[usize]) -> Tensor {
    if rows.len() == tensor.shape[0] {
        return tensor;
    }
    let width = tensor.shape[1];
    let data = rows.iter().flat_map(|row| &tensor.data[row * width..][..width]).copied().collect();
    Tensor::new([rows.len(), width], data)
}

/// Concatenates the rows of the same token.
pub(super) fn concat_features(parts: &[&Tensor]) -> Tensor {
    let rows = parts.iter().map(|part| part.shape[0]).min().unwrap_or(0);
    let width = |part: &Tensor| part.shape[1];
    let row =
        |i: usize| parts.iter().flat_map(move |part| part.data[i * width(part)..][..width(part)].iter());
    let data = (0..rows).flat_map(row).copied().collect();
    Tensor::new([rows, parts.iter().map(|part| width(part)).sum()], data)
}

/// The rows of `first`, then those of `second`. Narrower rows are padded with zeros.
pub(super) fn concat_tokens(first: &Tensor, second: &Tensor) -> Tensor {
    let width = first.shape[1].max(second.shape[1]);
    let mut data = Vec::with_capacity((first.shape[0] + second.shape[0]) * width);
    for tensor in [first, second] {
        for row in tensor.data.chunks_exact(tensor.shape[1]) {
            data.extend_from_slice(row);
            data.extend(std::iter::repeat_n(0.0, width - row.len()));
        }
    }
    Tensor::new([first.shape[0] + second.shape[0], width], data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clip_pools_at_the_first_end_of_text() {
        assert_eq!(pooled_position(&[7, 5, 9, 9, 9], Some(9)), Some(2));
        // The largest id counts in files with the id 2, and where there is no end.
        assert_eq!(pooled_position(&[7, 12, 9, 9], Some(2)), Some(1));
        assert_eq!(pooled_position(&[7, 12, 9, 9], Some(9)), Some(2));
        assert_eq!(pooled_position(&[7, 9, 0, 0], None), Some(1));
        assert_eq!(pooled_position(&[], Some(9)), None);
    }

    #[test]
    fn rows_are_concatenated_along_both_axes() {
        let first = Tensor::new([2, 1], vec![1.0, 2.0]);
        let second = Tensor::new([2, 2], vec![3.0, 4.0, 5.0, 6.0]);
        let features = concat_features(&[&first, &second]);
        assert_eq!(features, Tensor::new([2, 3], vec![1.0, 3.0, 4.0, 2.0, 5.0, 6.0]));
        let tokens = concat_tokens(&first, &second);
        assert_eq!(tokens, Tensor::new([4, 2], vec![1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn rows_are_selected_in_order() {
        let tensor = Tensor::new([3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(selected(tensor.clone(), &[0, 2]), Tensor::new([2, 2], vec![1.0, 2.0, 5.0, 6.0]));
        assert_eq!(selected(tensor.clone(), &[0, 1, 2]), tensor);
    }
}
