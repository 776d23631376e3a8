//! How a CLIP tokenizer reads a prompt: `CLIPTokenizer` of transformers with ftfy, which diffusers' pipelines use.
//!
//! The text between added tokens is cleaned as `whitespace_clean(ftfy.fix_text(text)).lower()` does it: mojibake, HTML
//! entities, curly quotes, ligatures and other widths become plain characters, and control characters disappear.
//!
//! The rules and tables are those of ftfy 6.3 (Robyn Speer, Apache-2.0).

mod characters;
mod charmaps;
mod encoding;
mod entities;
mod fix_text;
mod patterns;

use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer, TokenizerImpl,
};

use fix_text::fix_text;

/// A tokenizer whose normalizer is the tokenizer's own or CLIP's.
pub(super) type PromptTokenizer =
    TokenizerImpl<ModelWrapper, PromptNormalizer, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The normalizer of a prompt.
#[derive(Debug, Clone)]
pub(super) enum PromptNormalizer {
    /// CLIP's cleaning.
    Clip,
    /// The one in tokenizer.json.
    Own(NormalizerWrapper),
}

impl Normalizer for PromptNormalizer {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        match self {
            Self::Clip => {
                let cleaned = clean(text.get());
                replace_text(text, &cleaned);
                Ok(())
            }
            Self::Own(normalizer) => normalizer.normalize(text),
        }
    }
}

/// A tokenizer with CLIP's cleaning in place of its own normalizer.
///
/// A normalizer receives the text between added tokens. transformers cleans the same pieces.
pub(super) fn with_clip_cleaning(tokenizer: Tokenizer) -> PromptTokenizer {
    with_normalizer(tokenizer, Some(PromptNormalizer::Clip))
}

/// A tokenizer with its own normalizer.
pub(super) fn with_own_normalizer(tokenizer: Tokenizer) -> PromptTokenizer {
    let own = tokenizer.get_normalizer().cloned().map(PromptNormalizer::Own);
    with_normalizer(tokenizer, own)
}

fn with_normalizer(tokenizer: Tokenizer, normalizer: Option<PromptNormalizer>) -> PromptTokenizer {
    let mut changed = PromptTokenizer::new(tokenizer.get_model().clone());
    changed
        .with_normalizer(normalizer)
        .with_pre_tokenizer(tokenizer.get_pre_tokenizer().cloned())
        .with_post_processor(tokenizer.get_post_processor().cloned())
        .with_decoder(tokenizer.get_decoder().cloned())
        .with_added_vocabulary(tokenizer.get_added_vocabulary().clone());
    changed
}

/// `whitespace_clean(ftfy.fix_text(text)).lower()`.
fn clean(text: &str) -> String {
    let fixed = fix_text(text);
    fixed.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Replaces a text and keeps the positions in the original, which are exact before and after the characters that
/// changed.
fn replace_text(text: &mut NormalizedString, new: &str) {
    let old: Vec<char> = text.get().chars().collect();
    let new: Vec<char> = new.chars().collect();
    let is_kept = |(old, new): &(&char, &char)| old == new || old.to_lowercase().eq(std::iter::once(**new));
    let shorter = old.len().min(new.len());
    let prefix = old.iter().zip(&new).take_while(is_kept).count();
    let suffix = old.iter().rev().zip(new.iter().rev()).take(shorter - prefix).take_while(is_kept).count();
    if new.len() == suffix {
        text.transform(new.into_iter().map(|c| (c, 0)), old.len() - suffix);
        return;
    }
    let (removed, middle) = (old.len() - prefix - suffix, new.len() - prefix - suffix);
    // Extra characters are inserted at the end of the middle, and missing ones removed there.
    let change = |index: usize| {
        let in_middle = (prefix..prefix + middle).contains(&index);
        let last_kept = prefix + middle.min(removed);
        match index {
            _ if in_middle && index >= prefix + removed => 1,
            _ if index + 1 == last_kept && removed > middle => -((removed - middle) as isize),
            _ => 0,
        }
    };
    let dest: Vec<_> = new.into_iter().enumerate().map(|(index, c)| (c, change(index))).collect();
    text.transform(dest, 0);
}

#[cfg(test)]
mod tests;
