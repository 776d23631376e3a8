//! A byte-level byte-pair encoding, built from a vocab.json and a merges.txt, as Qwen's class reads it.

use std::path::Path;

use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::added_tokens::AddedTokens;
use super::config::TokenizerConfig;
use super::{CLIP_LENGTH, Tokenizer, TokenizerError, add_tokens, merges, special_id, with_own_normalizer};

impl Tokenizer {
    /// The tokenizer of a vocab.json and a merges.txt, of normalized text (NFC) in pieces that a pattern finds.
    pub(super) fn from_byte_level(
        directory: &Path,
        pattern: &str,
        config: &TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        let faulty = |error: tokenizers::Error| TokenizerError {
            path: directory.to_owned(),
            reason: error.to_string(),
        };
        let model: BPE = merges::read_byte_level(directory)?;
        let pieces = SplitPattern::Regex(pattern.to_owned());
        let pieces = Split::new(pieces, SplitDelimiterBehavior::Isolated, false).map_err(faulty)?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_normalizer(Some(NFC)).with_pre_tokenizer(Some(Sequence::new(vec![
            pieces.into(),
            ByteLevel::default().add_prefix_space(false).use_regex(false).into(),
        ])));
        add_tokens(&mut inner, config, false);
        let pad = special_id(directory, config, "pad_token", |name| inner.token_to_id(name))?;
        inner.set_encode_special_tokens(config.splits_special_tokens);
        Ok(Self {
            inner: with_own_normalizer(inner),
            added: AddedTokens::default(),
            begin: Vec::new(),
            end: Vec::new(),
            pad,
            unknown: None,
            truncates_left: config.truncates_left,
            length: CLIP_LENGTH,
        })
    }
}
