//! The tokenizers of CLIP and T5.

use std::path::{Path, PathBuf};

use super::prompt_text::{PromptTokenizer, with_clip_cleaning, with_own_normalizer};
use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// A tokenizer that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TokenizerError {
    /// The file or directory.
    pub path: PathBuf,
    /// The fault.
    pub reason: String,
}

/// The tokenizer of one text encoder.
pub(super) struct Tokenizer {
    inner: PromptTokenizer,
    begin: Option<u32>,
    end: u32,
    pad: u32,
    /// The default number of tokens.
    pub(super) length: usize,
}

/// A tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    /// The token ids, with padding.
    pub(super) ids: Vec<i64>,
    /// The number of ids without padding.
    pub(super) unpadded_len: usize,
    /// The prompt from the first word that was truncated.
    pub(super) truncated: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    tokenizer_class: Option<String>,
    pad_token: Option<Token>,
    model_max_length: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecialTokens {
    pad_token: Option<Token>,
}

/// A token in either of the two forms that the files use.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Token {
    Plain(String),
    Described { content: String },
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Plain(content) | Self::Described { content } => content,
        }
    }
}

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// How CLIP splits a text into words (Radford et al. 2021).
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

impl Tokenizer {
    /// Opens the tokenizer in a directory, of CLIP or of T5.
    pub(super) fn open(directory: &Path) -> Result<Self, TokenizerError> {
        let config: TokenizerConfig = json(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
        let special: SpecialTokens = json(&directory.join("special_tokens_map.json"))?.unwrap_or_default();
        let file = directory.join("tokenizer.json");
        let t5 = config.tokenizer_class.as_deref().is_some_and(|class| class.starts_with("T5"));
        let fault = |reason: String| TokenizerError { path: directory.to_owned(), reason };
        let mut inner = if file.is_file() {
            let read = tokenizers::Tokenizer::from_file(&file);
            read.map_err(|error| TokenizerError { path: file.clone(), reason: error.to_string() })?
        } else if t5 {
            return Err(fault(
                "it has no tokenizer.json, and spiece.model alone is not supported; create it in Python: \
                 T5TokenizerFast.from_pretrained(\"FOLDER\").save_pretrained(\"FOLDER\")"
                    .to_owned(),
            ));
        } else {
            clip(directory)?
        };
        // `encode` truncates and pads.
        inner.with_truncation(None).map_err(|error| fault(error.to_string()))?;
        inner.with_padding(None);
        let default_pad = if t5 { "<pad>" } else { END };
        let pad =
            config.pad_token.as_ref().or(special.pad_token.as_ref()).map_or(default_pad, Token::content);
        inner.add_special_tokens(&[AddedToken::from(pad, true)]);
        let inner = if t5 { with_own_normalizer(inner) } else { with_clip_cleaning(inner) };
        let id = |token: &str| {
            let missing = || fault(format!("its vocabulary has no {token:?}; export the tokenizer again"));
            inner.token_to_id(token).ok_or_else(missing)
        };
        let (begin, end) = if t5 { (None, id("</s>")?) } else { (Some(id(START)?), id(END)?) };
        let pad = id(pad)?;
        let length =
            config.model_max_length.filter(|n| (2.0..100_000.0).contains(n)).map_or(77, |n| n as usize);
        Ok(Self { inner, begin, end, pad, length })
    }

    /// Tokenizes a prompt, padded or truncated to `length` tokens.
    pub(super) fn encode(&self, prompt: &str, length: usize) -> Result<Tokens, String> {
        let encoding = self.inner.encode(prompt, false).map_err(|error| error.to_string())?;
        let room = length.saturating_sub(1 + usize::from(self.begin.is_some()));
        let truncated = encoding.get_offsets().get(room).map(|(start, _)| {
            let rest = prompt.get(*start..).unwrap_or(prompt);
            rest.trim().to_owned()
        });
        let token_ids = encoding.get_ids().iter().take(room).copied();
        let mut ids: Vec<i64> =
            self.begin.into_iter().chain(token_ids).chain([self.end]).map(i64::from).collect();
        let unpadded_len = ids.len();
        ids.resize(length, i64::from(self.pad));
        Ok(Tokens { ids, unpadded_len, truncated })
    }

    /// Checks that the text encoder, whose vocabulary has the size `known`, knows every token.
    pub(super) fn check_vocabulary(
        &self,
        directory: &Path,
        known: Option<usize>,
        encoder: &Path,
    ) -> Result<(), TokenizerError> {
        let own = self.inner.get_vocab_size(true);
        match known {
            Some(known) if own > known => Err(TokenizerError {
                path: directory.to_owned(),
                reason: format!(
                    "it has {own} tokens, but {} knows {known}: they are not of one model; export both again",
                    encoder.display()
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// CLIP's byte-pair encoding, from vocab.json and merges.txt.
fn clip(directory: &Path) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let (vocabulary, merges) = (directory.join("vocab.json"), directory.join("merges.txt"));
    let fault = |path: &Path, reason: String| TokenizerError { path: path.to_owned(), reason };
    for file in [&vocabulary, &merges] {
        if !file.is_file() {
            let reason = "it is missing, and so is tokenizer.json; export the tokenizer again".to_owned();
            return Err(fault(file, reason));
        }
    }
    let faulty = |error: tokenizers::Error| fault(directory, error.to_string());
    let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy())
        .unk_token(END.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .map_err(faulty)?;
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
    tokenizer.add_special_tokens(&[AddedToken::from(START, true), AddedToken::from(END, true)]);
    Ok(tokenizer)
}

/// Reads a JSON file. Returns `None` if it does not exist.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    let fault = |reason: String| TokenizerError { path: path.to_owned(), reason };
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| fault(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}
