//! The text encoders of a pipeline.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::component::{Component, SampleInput, SampleOutput, SampleValues};
use super::error::LatentError;
use super::tokenizer::{Tokenizer, Tokens};
use crate::bundle::{TextEncoderConfig, TextEncoderIo};
use crate::tensor::Tensor;

/// The number of embeddings that are cached.
const EMBEDDING_CACHE_LEN: usize = 32;

/// A text encoder with its tokenizer and a cache of embeddings.
pub(super) struct TextEncoder {
    pub(super) tokenizer: Tokenizer,
    pub(super) io: TextEncoderIo,
    config: TextEncoderConfig,
    component: Component,
    cache: Mutex<LruCache>,
}

/// The layer of a text encoder that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// The last one, with the final norm.
    Last,
    /// The n-th one before the last, without the norm.
    BeforeLast(usize),
}

/// The embedding of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Embedding {
    /// One row per token.
    pub(super) rows: Tensor,
    /// The pooled embedding. Empty if the text encoder has none.
    pub(super) pooled: Vec<f32>,
    /// The part of the prompt that exceeds the text encoder's length.
    pub(super) truncated: Option<String>,
}

impl TextEncoder {
    pub(super) fn new(
        tokenizer: Tokenizer,
        io: TextEncoderIo,
        config: TextEncoderConfig,
        component: Component,
    ) -> Self {
        Self { tokenizer, io, config, component, cache: Mutex::default() }
    }

    /// Encodes a prompt, padded or truncated to `length` tokens.
    pub(super) fn encode(&self, prompt: &str, layer: Layer, length: usize) -> Result<Embedding, LatentError> {
        let key = (prompt.to_owned(), layer, length);
        if let Some(embedding) = self.cache().get(&key) {
            return Ok(embedding);
        }
        let embedding = self.evaluate(prompt, layer, length)?;
        self.cache().insert(key, embedding.clone());
        Ok(embedding)
    }

    /// Opens the graph without evaluating it, if it is not open.
    pub(super) fn open(&self) -> Result<(), LatentError> {
        self.component.open()
    }

    /// Closes the graph. Embeddings stay in the cache.
    pub(super) fn close(&self) {
        self.component.close();
    }

    fn cache(&self) -> MutexGuard<'_, LruCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evaluate(&self, prompt: &str, layer: Layer, length: usize) -> Result<Embedding, LatentError> {
        let tokens = self.tokenizer.encode(prompt, length).map_err(LatentError::Tokens)?;
        let rows = layer_output(&self.io, layer)?;
        let pooled = self.io.pooled.as_deref();
        let outputs: Vec<&str> = [rows].into_iter().chain(pooled).collect();
        let mut found = self.component.run(&self.inputs(&tokens.ids, &tokens), &outputs)?.into_iter();
        let SampleOutput { shape, values } = found.next().unwrap_or_default();
        if shape.len() != 2 || shape[0] != length {
            return Err(self.component.wrong_shape(rows, format!("[{length}, a width]"), shape));
        }
        let mut pooled_values = found.next().unwrap_or_default().values;
        if let (Some(pooled), false) = (pooled, self.component.argmax_returns_first()?) {
            let ids = self.with_unique_maximum(&tokens.ids);
            let mut found = self.component.run(&self.inputs(&ids, &tokens), &[pooled])?;
            pooled_values = found.pop().unwrap_or_default().values;
        }
        Ok(Embedding { rows: Tensor::new(shape, values), pooled: pooled_values, truncated: tokens.truncated })
    }

    /// The inputs of the graph for these token ids.
    fn inputs(&self, ids: &[i64], tokens: &Tokens) -> Vec<SampleInput<'_>> {
        let io = &self.io;
        let length = ids.len() as i64;
        let visible = if self.config.use_attention_mask { tokens.unpadded_len as i64 } else { length };
        let input =
            |name, values| SampleInput { name, shape: vec![ids.len()], values: SampleValues::I64(values) };
        let others = [
            (&io.mask, (0..length).map(|i| i64::from(i < visible)).collect()),
            (&io.positions, (0..length).collect()),
            (&io.token_types, vec![0; ids.len()]),
        ];
        let others = others.into_iter().filter_map(|(name, values)| Some(input(name.as_deref()?, values)));
        [input(io.ids.as_str(), ids.to_vec())].into_iter().chain(others).collect()
    }

    /// The token ids, changed after the token at which CLIP pools so that this token is the only one of its kind.
    ///
    /// CLIP pools with ArgMax at the first end-of-text token, which its padding may repeat. An engine whose ArgMax returns
    /// the last one then finds the first one. No row depends on later tokens, so the result is the same.
    fn with_unique_maximum(&self, ids: &[i64]) -> Vec<i64> {
        let Some(at) = pooled_position(ids, self.config.eos_token_id) else { return ids.to_vec() };
        let mut changed = ids[..=at].to_vec();
        if let Some(fixed) = self.io.length {
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

/// The prompt, the layer and the length of an embedding.
type EmbeddingKey = (String, Layer, usize);

/// The most recently used embeddings, the latest last.
#[derive(Default)]
struct LruCache(VecDeque<(EmbeddingKey, Embedding)>);

impl LruCache {
    fn get(&mut self, key: &EmbeddingKey) -> Option<Embedding> {
        let index = self.0.iter().position(|(cached, _)| cached == key)?;
        let entry = self.0.remove(index)?;
        let embedding = entry.1.clone();
        self.0.push_back(entry);
        Some(embedding)
    }

    fn insert(&mut self, key: EmbeddingKey, embedding: Embedding) {
        // Another thread may have encoded the same prompt.
        self.0.retain(|(cached, _)| *cached != key);
        if self.0.len() == EMBEDDING_CACHE_LEN {
            self.0.pop_front();
        }
        self.0.push_back((key, embedding));
    }
}

/// The output for a layer. The first of the hidden layers holds the token embeddings.
fn layer_output(io: &TextEncoderIo, layer: Layer) -> Result<&str, LatentError> {
    let count = io.hidden.len();
    match layer {
        Layer::Last => io.last.as_deref().ok_or(LatentError::NoLayers),
        Layer::BeforeLast(_) if count == 0 => Err(LatentError::NoLayers),
        Layer::BeforeLast(n) if n + 1 < count => Ok(&io.hidden[count - 1 - n]),
        Layer::BeforeLast(n) => Err(LatentError::Layers { requested: n - 1, max: count.saturating_sub(3) }),
    }
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
    fn the_least_recently_used_embedding_leaves_the_cache() {
        let key = |i: usize| (i.to_string(), Layer::Last, 77);
        let embedding = |i: usize| Embedding {
            rows: Tensor::new([], vec![i as f32]),
            pooled: Vec::new(),
            truncated: None,
        };
        let mut cache = LruCache::default();
        for i in 0..EMBEDDING_CACHE_LEN {
            cache.insert(key(i), embedding(i));
        }
        assert_eq!(cache.get(&key(0)), Some(embedding(0)));
        cache.insert(key(99), embedding(99));
        assert_eq!((cache.get(&key(0)), cache.get(&key(1))), (Some(embedding(0)), None));
        // Inserted once more, an embedding takes no further room.
        cache.insert(key(0), embedding(0));
        assert_eq!(cache.0.len(), EMBEDDING_CACHE_LEN);
    }
}
