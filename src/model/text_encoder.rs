//! The text encoders of a pipeline.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::LatentError;
use super::tokenizer::Tokenizer;
use crate::inference::{EvaluationError, Input, PooledSession, Session, Values};
use crate::tensor::Tensor;

/// The number of embeddings that are cached.
const EMBEDDING_CACHE_LEN: usize = 32;

/// A text encoder with its tokenizer and a cache of embeddings.
pub(super) struct TextEncoder {
    pub(super) tokenizer: Tokenizer,
    session: PooledSession,
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
    pub(super) fn new(tokenizer: Tokenizer, session: PooledSession) -> Self {
        Self { tokenizer, session, cache: Mutex::default() }
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

    fn cache(&self) -> MutexGuard<'_, LruCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evaluate(&self, prompt: &str, layer: Layer, length: usize) -> Result<Embedding, LatentError> {
        let tokens = self.tokenizer.encode(prompt, length).map_err(LatentError::Tokens)?;
        self.session.with_session(|session: &mut dyn Session| {
            let outputs: Vec<_> = session.graph().outputs.iter().map(|output| output.name.clone()).collect();
            let rows = layer_output(&outputs, layer)?;
            let pooled = ["text_embeds", "pooler_output"];
            let pooled = pooled.into_iter().find(|name| outputs.iter().any(|output| output == name));
            let input = session.graph().inputs.first().map_or_else(String::new, |input| input.name.clone());
            let names: Vec<&str> = [rows.as_str()].into_iter().chain(pooled).collect();
            let mut values = vec![Vec::new(); names.len()];
            let ids = |length: usize| Input::new(&input, [1, length], Values::I64(&tokens.ids[..length]));
            let shapes = session.run_all(&[ids(length)], &names, &mut values)?;
            if let (Some(pooled), false) = (pooled, session.argmax_returns_first()) {
                // CLIP pools at the first end-of-text token, which its padding repeats. An engine whose ArgMax returns
                // the last one finds it if there is no padding. No row depends on later tokens.
                session.run(&[ids(tokens.unpadded_len)], pooled, &mut values[1])?;
            }
            if shapes[0].len() != 3 || shapes[0][..2] != [1, length] {
                let expected = format!("[1, {length}, a width]");
                let (output, found) = (rows, shapes[0].clone());
                return Err(EvaluationError::OutputShape { output, expected, found }.into());
            }
            let mut values = values.into_iter();
            let rows = Tensor::new(&shapes[0][1..], values.next().unwrap_or_default());
            Ok(Embedding { rows, pooled: values.next().unwrap_or_default(), truncated: tokens.truncated })
        })?
    }
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

/// The name of the output for a layer. hidden_states.0 holds the token embeddings.
fn layer_output(outputs: &[String], layer: Layer) -> Result<String, LatentError> {
    let hidden = outputs.iter().filter(|name| name.starts_with("hidden_states.")).count();
    match layer {
        Layer::Last => Ok("last_hidden_state".to_owned()),
        Layer::BeforeLast(_) if hidden == 0 => Err(LatentError::NoLayers),
        Layer::BeforeLast(n) if n + 1 < hidden => Ok(format!("hidden_states.{}", hidden - 1 - n)),
        Layer::BeforeLast(n) => Err(LatentError::Layers { requested: n - 1, max: hidden.saturating_sub(3) }),
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
