//! A pipeline's text encoders: prompts become the tensors that tell its network what to draw.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::inference::session::{Input, Tensor, Values};
use crate::inference::session_pool::PooledSession;
use crate::model::latent_pipeline::LatentError;
use crate::model::predictor::EvaluationError;
use crate::model::tokenizer::Tokenizer;

/// How many prompts' embeddings are kept.
const KEPT: usize = 32;

/// A tokenizer with its encoder.
pub(crate) struct TextEncoder {
    pub(crate) tokenizer: Tokenizer,
    encoder: PooledSession,
    kept: Mutex<VecDeque<(Key, Embedding)>>,
}

type Key = (String, Layer, usize);

/// Which of an encoder's layers is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// The last one, with its final norm.
    Last,
    /// So many before the last one, without the norm.
    Before(usize),
}

/// A prompt as one encoder understands it.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    /// A row for each token.
    pub(crate) rows: Tensor,
    /// The prompt as one vector, where the encoder gives that.
    pub(crate) pooled: Vec<f32>,
    /// What of the prompt found no room.
    pub(crate) cut: Option<String>,
}

impl TextEncoder {
    pub(crate) fn new(tokenizer: Tokenizer, encoder: PooledSession) -> Self {
        Self { tokenizer, encoder, kept: Mutex::default() }
    }

    /// Encode a prompt at a length of so many tokens; what was encoded lately is kept.
    pub(crate) fn encode(&self, prompt: &str, layer: Layer, length: usize) -> Result<Embedding, LatentError> {
        let key = (prompt.to_owned(), layer, length);
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, embedding)) = all.iter().find(|(kept, _)| *kept == key) {
            return Ok(embedding.clone());
        }
        let embedding = self.evaluate(prompt, layer, length)?;
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back((key, embedding.clone()));
        Ok(embedding)
    }

    fn evaluate(&self, prompt: &str, layer: Layer, length: usize) -> Result<Embedding, LatentError> {
        let tokens = self.tokenizer.encode(prompt, length).map_err(LatentError::Tokens)?;
        self.encoder.with(|session| {
            let outputs: Vec<_> = session.graph().outputs.iter().map(|port| port.name.clone()).collect();
            let rows = output_of(&outputs, layer)?;
            let pooled = ["text_embeds", "pooler_output"];
            let pooled = pooled.into_iter().find(|name| outputs.iter().any(|output| output == name));
            let input = session.graph().inputs.first().map_or_else(String::new, |port| port.name.clone());
            let names: Vec<&str> = [rows.as_str()].into_iter().chain(pooled).collect();
            let mut values = vec![Vec::new(); names.len()];
            let of = |length: usize| Input::new(&input, [1, length], Values::I64(&tokens.ids[..length]));
            let shapes = session.run_all(&[of(length)], &names, &mut values)?;
            if let (Some(pooled), false) = (pooled, session.takes_the_first_of_equals()) {
                // CLIP's vector is that of the prompt's end, which such an engine looks for among what
                // fills up. No row depends on those after it, so that they can be left out.
                session.run(&[of(tokens.said)], pooled, &mut values[1])?;
            }
            if shapes[0].len() != 3 || shapes[0][..2] != [1, length] {
                let expected = format!("[1, {length}, a width]");
                let (output, found) = (rows, shapes[0].clone());
                return Err(EvaluationError::OutputShape { output, expected, found }.into());
            }
            let mut values = values.into_iter();
            let rows = Tensor::new(&shapes[0][1..], values.next().unwrap_or_default());
            Ok(Embedding { rows, pooled: values.next().unwrap_or_default(), cut: tokens.cut })
        })?
    }
}

/// The output that holds a layer; hidden_states.0 are the token embeddings.
fn output_of(outputs: &[String], layer: Layer) -> Result<String, LatentError> {
    let hidden = outputs.iter().filter(|name| name.starts_with("hidden_states.")).count();
    match layer {
        Layer::Last => Ok("last_hidden_state".to_owned()),
        Layer::Before(_) if hidden == 0 => Err(LatentError::NoLayers),
        Layer::Before(n) if n + 1 < hidden => Ok(format!("hidden_states.{}", hidden - 1 - n)),
        Layer::Before(n) => Err(LatentError::Layers { asked: n - 1, most: hidden.saturating_sub(3) }),
    }
}

/// The rows of several encoders side by side.
pub(crate) fn beside(parts: &[&Tensor]) -> Tensor {
    let rows = parts.iter().map(|part| part.shape[0]).min().unwrap_or(0);
    let width = |part: &Tensor| part.shape[1];
    let row =
        |i: usize| parts.iter().flat_map(move |part| part.data[i * width(part)..][..width(part)].iter());
    let data = (0..rows).flat_map(row).copied().collect();
    Tensor::new([rows, parts.iter().map(|part| width(part)).sum()], data)
}

/// The rows of both one after the other, the narrower ones filled up with zeros.
pub(crate) fn one_after_the_other(first: &Tensor, second: &Tensor) -> Tensor {
    let width = first.shape[1].max(second.shape[1]);
    let mut data = Vec::with_capacity((first.shape[0] + second.shape[0]) * width);
    for part in [first, second] {
        for row in part.data.chunks_exact(part.shape[1]) {
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
    fn rows_are_joined_along_both_axes() {
        let narrow = Tensor::new([2, 1], vec![1.0, 2.0]);
        let wide = Tensor::new([2, 2], vec![3.0, 4.0, 5.0, 6.0]);
        assert_eq!(beside(&[&narrow, &wide]), Tensor::new([2, 3], vec![1.0, 3.0, 4.0, 2.0, 5.0, 6.0]));
        let stacked = one_after_the_other(&narrow, &wide);
        assert_eq!(stacked, Tensor::new([4, 2], vec![1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 5.0, 6.0]));
    }
}
