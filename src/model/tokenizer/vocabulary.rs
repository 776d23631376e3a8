//! CLIP's tokenizer, built from a vocab.json and a merges.txt.

use std::path::Path;

use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::super::prompt_text::{with_clip_cleaning, with_own_normalizer};
use super::added_tokens::AddedTokens;
use super::config::{SpecialToken, TokenizerConfig};
use super::{CLIP_LENGTH, END, START, Tokenizer, TokenizerError, add_tokens, merges, special_id};

/// How CLIP splits a text into words (Radford et al. 2021).
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

impl Tokenizer {
    /// CLIP's tokenizer of a vocab.json and a merges.txt.
    pub(super) fn from_vocabulary(
        directory: &Path,
        is_fast: bool,
        config: &TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        let mut inner = clip(directory, config, is_fast)?;
        let mut added = AddedTokens::default();
        if is_fast {
            add_tokens(&mut inner, config, true);
            inner.set_encode_special_tokens(config.splits_special_tokens);
        } else {
            added = own_added_tokens(&inner, config);
            // Words that are these after cleaning are the tokens, also within text.
            let names = [START, END].into_iter().filter(|name| inner.token_to_id(name).is_some());
            let names: Vec<_> = names.map(|name| AddedToken::from(name, false)).collect();
            inner.add_tokens(&names);
        }
        let unknown = config.special("unk_token").and_then(|name| inner.token_to_id(name));
        let id = |name: &str| added.id(name).or_else(|| inner.token_to_id(name)).or(unknown);
        let special = |attribute| special_id(directory, config, attribute, id);
        let (begin, end, pad) =
            (vec![special("bos_token")?], vec![special("eos_token")?], special("pad_token")?);
        if config.splits_special_tokens {
            added = AddedTokens::default();
        }
        let inner = if is_fast { with_own_normalizer(inner) } else { with_clip_cleaning(inner) };
        let truncates_left = config.truncates_left;
        Ok(Self { inner, added, begin, end, pad, unknown, truncates_left, length: CLIP_LENGTH })
    }
}

/// The tokens beside a vocabulary as transformers' own classes have them: with the ids that the files give, and special
/// tokens that the vocabulary lacks after it.
fn own_added_tokens(inner: &tokenizers::Tokenizer, config: &TokenizerConfig) -> AddedTokens {
    let mut tokens = AddedTokens::default();
    for (id, token) in &config.added {
        tokens.insert(*id, token.clone());
    }
    let mut vocabulary = inner.get_vocab(false);
    vocabulary.retain(|_, id| !merges::is_without_id(*id));
    let beside = config.added.values().filter(|token| !vocabulary.contains_key(&token.content)).count();
    let mut next = vocabulary.len() + beside;
    for (_, token) in config.missing_special_tokens() {
        let id = vocabulary.get(token.content()).copied().unwrap_or_else(|| {
            next += 1;
            next as u32 - 1
        });
        tokens.insert(
            id,
            match token {
                SpecialToken::Plain(name) => AddedToken::from(name.as_str(), true),
                SpecialToken::Described(token) => token.clone(),
            },
        );
    }
    tokens
}

/// CLIP's byte-pair encoding, from vocab.json and merges.txt.
fn clip(
    directory: &Path,
    config: &TokenizerConfig,
    is_fast: bool,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let (vocabulary, merges) = (directory.join("vocab.json"), directory.join("merges.txt"));
    let fault = |path: &Path, reason: String| TokenizerError { path: path.to_owned(), reason };
    for file in [&vocabulary, &merges] {
        if !file.is_file() {
            let reason = "it is missing, and so is tokenizer.json; export the tokenizer again".to_owned();
            return Err(fault(file, reason));
        }
    }
    let faulty = |error: tokenizers::Error| fault(directory, error.to_string());
    let unknown = config.special("unk_token").unwrap_or(END);
    let model = merges::read(&vocabulary, &merges, unknown, is_fast)?;
    let spaces =
        Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ");
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true);
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Sequence::new(vec![
            NFC.into(),
            spaces.map_err(faulty)?.into(),
            Lowercase.into(),
        ])))
        .with_pre_tokenizer(Some(Steps::new(vec![
            words.map_err(faulty)?.into(),
            ByteLevel::default().add_prefix_space(false).into(),
        ])));
    Ok(tokenizer)
}
