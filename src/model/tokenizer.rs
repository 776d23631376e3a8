//! The tokenizers of text encoders.

mod added_tokens;
mod byte_level;
mod config;
mod merges;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use super::prompt_text::{PromptTokenizer, with_clip_cleaning, with_own_normalizer};
use crate::bundle::tokenizer_source::TokenizerSource;
use crate::bundle::{FramedPrompt, TextModel, VocabularyForm};
use crate::json_input::{file_fault, type_fault};
use crate::regular_file;
use crate::serde_message::{DocumentFormat, without_rust_types};
use added_tokens::{AddedTokens, Piece, expand_vectors};
use config::{SpecialToken, TokenizerConfig};

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
///
/// A tokenizer of CLIP reads a prompt as transformers' `CLIPTokenizer` of version 4 does, one of the class
/// `CLIPTokenizerFast` or of another model as the library tokenizers does.
pub(super) struct Tokenizer {
    inner: PromptTokenizer,
    /// The tokens at which a prompt is split before the rest is read. Empty if `inner` has them.
    added: AddedTokens,
    /// The tokens before and after a prompt's own.
    begin: Vec<u32>,
    end: Vec<u32>,
    pad: u32,
    /// The token for symbols that a vocabulary lacks.
    unknown: Option<u32>,
    truncates_left: bool,
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
    /// The part of the prompt that was truncated, in whole words.
    pub(super) truncated: Option<String>,
}

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// The number of tokens of CLIP.
const CLIP_LENGTH: usize = 77;

impl Tokenizer {
    /// Opens the tokenizer in a directory, which is that of a model unless its class shows another. `class` is the one that
    /// model_index.json names, and `positions` the number of tokens that the text encoder takes.
    pub(super) fn open(
        directory: &Path,
        model: &'static TextModel,
        class: Option<&str>,
        positions: Option<usize>,
    ) -> Result<Self, TokenizerError> {
        let config = TokenizerConfig::read(directory, |own| TextModel::of_class_or(class.or(own), model))?;
        let fault = |reason: String| TokenizerError { path: directory.to_owned(), reason };
        let named = class.or(config.class.as_deref());
        let model = TextModel::of_class_or(named, model);
        let mut tokenizer = match (TokenizerSource::find(directory, model, named), model.vocabulary) {
            (TokenizerSource::TokenizerJson, _) => {
                let cleans = !model.is_fast(named);
                Self::from_file(&directory.join("tokenizer.json"), cleans, &config)?
            }
            (TokenizerSource::Vocabulary { .. }, VocabularyForm::ByteLevel(pattern)) => {
                Self::from_byte_level(directory, pattern, &config)?
            }
            (TokenizerSource::Vocabulary { is_fast }, _) => {
                Self::from_vocabulary(directory, is_fast, &config)?
            }
            (TokenizerSource::SentencePiece, _) => {
                return Err(fault(format!(
                    "it has no tokenizer.json, and a file of SentencePiece alone is not supported; create it in Python: \
                     {}.from_pretrained(\"FOLDER\").save_pretrained(\"FOLDER\")",
                    model.fast_class()
                )));
            }
        };
        if model.adds_tokens_by_config {
            tokenizer.set_added_tokens(directory, &config)?;
        }
        tokenizer.length = config.length.or(positions).unwrap_or(CLIP_LENGTH);
        Ok(tokenizer)
    }

    /// The tokenizer of a tokenizer.json, with the tokens of the other files. With `cleans`, prompts are cleaned as CLIP's
    /// own class does it.
    fn from_file(file: &Path, cleans: bool, config: &TokenizerConfig) -> Result<Self, TokenizerError> {
        let fault =
            |error: tokenizers::Error| TokenizerError { path: file.to_owned(), reason: reason(file, &error) };
        let text = regular_file::read_text(file).map_err(|error| fault(error.into()))?;
        let mut inner: tokenizers::Tokenizer = text.parse().map_err(fault)?;
        if inner.get_vocab_size(false) == 0 {
            return Err(fault(EMPTY_VOCABULARY.into()));
        }
        // `encode` truncates and pads.
        inner.with_truncation(None).map_err(fault)?;
        inner.with_padding(None);
        add_tokens(&mut inner, config, false);
        let ids =
            |special| Ok::<_, TokenizerError>(inner.encode("a", special).map_err(fault)?.get_ids().to_vec());
        let (own, whole) = (ids(false)?, ids(true)?);
        let begin = (0..=whole.len().saturating_sub(own.len()))
            .find(|at| whole[*at..].starts_with(&own))
            .unwrap_or(0);
        let (begin, end) = (whole[..begin].to_vec(), whole[(begin + own.len()).min(whole.len())..].to_vec());
        let id = |name: &str| inner.token_to_id(name);
        let pad = special_id(file, config, "pad_token", id)?;
        inner.set_encode_special_tokens(config.splits_special_tokens);
        let inner = if cleans { with_clip_cleaning(inner) } else { with_own_normalizer(inner) };
        let added = AddedTokens::default();
        let (unknown, truncates_left) = (None, config.truncates_left);
        Ok(Self { inner, added, begin, end, pad, unknown, truncates_left, length: CLIP_LENGTH })
    }

    /// The tokens that the class of the tokenizer puts around a text, as the configuration says.
    fn set_added_tokens(&mut self, directory: &Path, config: &TokenizerConfig) -> Result<(), TokenizerError> {
        let id = |name: &str| self.inner.token_to_id(name);
        let added = |is_added: bool, attribute: &str| {
            let id = is_added.then(|| special_id(directory, config, attribute, id)).transpose()?;
            Ok::<_, TokenizerError>(id.into_iter().collect())
        };
        let begin = added(config.adds_begin.unwrap_or(true), "bos_token")?;
        let end = added(config.adds_end.unwrap_or(false), "eos_token")?;
        (self.begin, self.end) = (begin, end);
        Ok(())
    }

    /// The number of tokens of a text, with those that are put around it.
    pub(super) fn count(&self, text: &str) -> Result<usize, String> {
        Ok(self.begin.len() + self.tokens(text)?.len() + self.end.len())
    }

    /// Tokenizes a prompt with the text around it, padded or truncated to `length` tokens.
    pub(super) fn encode(&self, framed: &FramedPrompt<'_>, length: usize) -> Result<Tokens, String> {
        let FramedPrompt { before, prompt, after } = framed;
        let expanded = self.expand_vectors(prompt);
        let prompt = expanded.as_deref().unwrap_or(prompt);
        let own = before.len()..before.len() + prompt.len();
        let text = [before, prompt, after].concat();
        let mut tokens = self.tokens(&text)?;
        let room = length.saturating_sub(self.begin.len() + self.end.len());
        let mut truncated = None;
        if tokens.len() > room {
            let cut = if self.truncates_left {
                let kept = tokens.split_off(tokens.len() - room);
                let end = tokens.last().map_or(0, |(_, range)| range.end);
                tokens = kept;
                own.start..end.min(own.end)
            } else {
                let start = tokens[room].1.start;
                tokens.truncate(room);
                start.max(own.start)..own.end
            };
            // Without a part of the prompt, only the text after it was cut.
            truncated = (!cut.is_empty()).then(|| text.get(cut).unwrap_or(prompt).trim().to_owned());
        }
        let own = tokens.iter().map(|(id, _)| id);
        let mut ids: Vec<i64> =
            self.begin.iter().chain(own).chain(&self.end).map(|id| i64::from(*id)).collect();
        let unpadded_len = ids.len();
        self.pad(&mut ids, length);
        Ok(Tokens { ids, unpadded_len, truncated })
    }

    /// Pads token ids to a length.
    pub(super) fn pad(&self, ids: &mut Vec<i64>, length: usize) {
        ids.resize(length, i64::from(self.pad));
    }

    /// The prompt's own tokens with their bytes.
    fn tokens(&self, prompt: &str) -> Result<Vec<(u32, Range<usize>)>, String> {
        let mut tokens = Vec::new();
        for piece in self.added.split(prompt) {
            match piece {
                Piece::Token(id, range) => tokens.push((id, range)),
                Piece::Text(range) => {
                    let text = &prompt[range.clone()];
                    let encoding = self.inner.encode(text, false).map_err(|error| error.to_string())?;
                    let offsets = encoding.get_offsets().iter();
                    let offsets = offsets.map(|(start, end)| range.start + start..range.start + end);
                    for (id, range) in encoding.get_ids().iter().zip(offsets) {
                        let known = Some(*id).filter(|id| !merges::is_without_id(*id)).or(self.unknown);
                        let id = known.ok_or("the vocabulary has no unk_token for a part of it")?;
                        tokens.push((id, range));
                    }
                }
            }
        }
        Ok(tokens)
    }

    /// The prompt with all vectors of textual inversion, if it names any that has several.
    fn expand_vectors(&self, prompt: &str) -> Option<String> {
        let inner = self.inner.get_added_vocabulary().get_vocab();
        let names = inner.keys().map(String::as_str).chain(self.added.names());
        let is_token = |name: &str| inner.contains_key(name) || self.added.id(name).is_some();
        expand_vectors(prompt, names, is_token, |name| prompt.contains(name))
    }

    /// Checks that the text encoder, whose vocabulary has the size `known`, knows every token.
    pub(super) fn check_vocabulary(
        &self,
        directory: &Path,
        known: Option<usize>,
        encoder: &Path,
    ) -> Result<(), TokenizerError> {
        let ids = self.inner.get_vocab(true);
        let largest = ids
            .values()
            .copied()
            .filter(|id| !merges::is_without_id(*id))
            .chain(self.added.largest_id())
            .chain([self.pad])
            .max()
            .unwrap_or(0);
        let own = self.inner.get_vocab(false);
        let is_added = || own.values().all(|id| known.is_none_or(|known| (*id as usize) < known));
        match known {
            Some(known) if largest as usize >= known && is_added() => Err(TokenizerError {
                path: directory.to_owned(),
                reason: format!(
                    "its configuration adds the token {:?}, which the vocabulary does not have, and {} knows {known} \
                     tokens; correct the token in tokenizer_config.json",
                    self.added
                        .content(largest)
                        .map(str::to_owned)
                        .or_else(|| self.inner.id_to_token(largest))
                        .unwrap_or_default(),
                    encoder.display()
                ),
            }),
            Some(known) if largest as usize >= known => Err(TokenizerError {
                path: directory.to_owned(),
                reason: format!(
                    "its tokens have ids up to {largest}, but {} knows {known} tokens: they are not of one model; export \
                     both again",
                    encoder.display()
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// The fault of a file without tokens.
const EMPTY_VOCABULARY: &str =
    "the vocabulary is empty; create the file again in Python with save_pretrained";

/// What the library tokenizers reports about a vocabulary of Unigram, and what it means.
const UNIGRAM_ERRORS: [(&str, &str); 2] = [
    (
        "Unable to load vocab UnkIdNotInVocabulary",
        "unk_id is larger than the vocabulary; create the file again in Python with save_pretrained",
    ),
    ("Unable to load vocab EmptyVocabulary", EMPTY_VOCABULARY),
];

/// What the library tokenizers reports, without the names of its types.
fn plain_reason(error: &tokenizers::Error) -> String {
    let text = error.to_string();
    if text.contains("untagged enum") {
        let place = text.find(" at line ").map_or("", |at| &text[at..]);
        return format!(
            "a part of it has a form that is not known{place}; create the file again in Python with save_pretrained"
        );
    }
    let plain = UNIGRAM_ERRORS.iter().fold(text, |text, (name, plain)| text.replacen(name, plain, 1));
    without_rust_types(&plain, DocumentFormat::Json)
}

fn special_id(
    path: &Path,
    config: &TokenizerConfig,
    attribute: &str,
    id: impl Fn(&str) -> Option<u32>,
) -> Result<u32, TokenizerError> {
    let name = config.special(attribute).unwrap_or_default();
    id(name).ok_or_else(|| TokenizerError {
        path: path.to_owned(),
        reason: format!(
            "its vocabulary has no {name:?}, which is the {attribute}; export the tokenizer again"
        ),
    })
}

/// Adds the tokens beside a vocabulary as transformers' fast classes do: a token that the vocabulary lacks gets the next
/// id. With `wraps_strings`, begin, end and unknown are normalized although they are special, as those of CLIP.
fn add_tokens(inner: &mut tokenizers::Tokenizer, config: &TokenizerConfig, wraps_strings: bool) {
    let mut tokens: Vec<AddedToken> = config.added.values().cloned().collect();
    for (attribute, token) in config.missing_special_tokens() {
        let is_known = inner.get_added_vocabulary().get_vocab().contains_key(token.content());
        let token = match token {
            SpecialToken::Plain(_) if is_known => continue,
            SpecialToken::Plain(name) => AddedToken {
                normalized: wraps_strings && ["bos_token", "eos_token", "unk_token"].contains(&attribute),
                ..AddedToken::from(name.as_str(), true)
            },
            SpecialToken::Described(token) => token.clone(),
        };
        tokens.push(token);
    }
    inner.add_tokens(&tokens);
}

/// Why a tokenizer.json cannot be used: it is not JSON, or the reason of the library.
fn reason(file: &Path, error: &tokenizers::Error) -> String {
    let text = regular_file::read_text(file).unwrap_or_default();
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Err(_) => file_fault(&text),
        Ok(_) => plain_reason(error),
    }
}

/// Reads a JSON file. Returns `None` if it does not exist.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    let fault = |reason: String| TokenizerError { path: path.to_owned(), reason };
    match regular_file::read_text(path) {
        Ok(text) => {
            let mut json = serde_json::Deserializer::from_str(&text);
            let parsed = serde_path_to_error::deserialize(&mut json);
            parsed
                .map_err(|error| match error.inner().is_data() {
                    true => fault(type_fault(error.path(), &error.inner().to_string(), &text)),
                    false => fault(file_fault(&text)),
                })
                .and_then(|value| json.end().map(|()| Some(value)).map_err(|_| fault(file_fault(&text))))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}
