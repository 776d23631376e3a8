//! The settings of a tokenizer in the files that transformers writes: tokenizer_config.json, special_tokens_map.json and
//! added_tokens.json.
//!
//! The files overlap. transformers 4 reads special_tokens_map.json, added_tokens.json and the tokens in tokenizer.json only
//! if tokenizer_config.json has no `added_tokens_decoder`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};
use tokenizers::AddedToken;

use super::{TokenizerError, json};
use crate::bundle::TextModel;

/// The attributes that name special tokens, in the order in which transformers adds them to a vocabulary.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const ADDITIONAL: &str = "additional_special_tokens";
/// Special tokens with names of their own.
const EXTRA: &str = "extra_special_tokens";

/// The settings of a tokenizer.
pub(super) struct TokenizerConfig {
    /// `tokenizer_class`.
    pub(super) class: Option<String>,
    /// `add_bos_token`.
    pub(super) adds_begin: Option<bool>,
    /// `add_eos_token`.
    pub(super) adds_end: Option<bool>,
    /// `model_max_length`, if it is a length.
    pub(super) length: Option<usize>,
    /// Whether a long prompt loses its beginning.
    pub(super) truncates_left: bool,
    /// Whether special tokens in a prompt are read as plain text.
    pub(super) splits_special_tokens: bool,
    /// The tokens beside the vocabulary, by their ids.
    pub(super) added: BTreeMap<u32, AddedToken>,
    /// The special tokens by their attribute, in the order in which they are added.
    special: Vec<(String, SpecialToken)>,
}

/// A special token in one of the two forms that the files use.
pub(super) enum SpecialToken {
    /// Only the content.
    Plain(String),
    /// With its flags.
    Described(AddedToken),
}

impl SpecialToken {
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Plain(content) => content,
            Self::Described(token) => &token.content,
        }
    }
}

impl TokenizerConfig {
    /// Reads the files in a directory. `model` is the one of the tokenizer's class.
    pub(super) fn read(
        directory: &Path,
        model: impl FnOnce(Option<&str>) -> &'static TextModel,
    ) -> Result<Self, TokenizerError> {
        let path = directory.join("tokenizer_config.json");
        let fault = |key: &str, fault: String| TokenizerError {
            path: path.clone(),
            reason: format!("{key} {fault}"),
        };
        let mut config: Map<String, Json> = json(&path)?.unwrap_or_default();
        let added = match config.remove("added_tokens_decoder") {
            Some(Json::Object(tokens)) => {
                tokens_by_id(&tokens).map_err(|error| fault("added_tokens_decoder", error))?
            }
            Some(_) => return Err(fault("added_tokens_decoder", "must be an object".to_owned())),
            None => {
                add_special_tokens_map(directory, &mut config)?;
                separate_tokens(directory, &config)?
            }
        };
        let class = config.get("tokenizer_class").and_then(Json::as_str).map(str::to_owned);
        let model = model(class.as_deref());
        for (attribute, content) in model.special_tokens {
            config.entry(*attribute).or_insert_with(|| Json::from(*content));
        }
        let mut special = Vec::new();
        for attribute in SPECIAL_TOKENS {
            match config.get(attribute) {
                None => {}
                // An id would have to be guessed, so that transformers fails when it encodes.
                Some(Json::Null) if model.needed_tokens.contains(&attribute) => {
                    return Err(fault(
                        attribute,
                        "is null, but prompts need it; name a token of the vocabulary".to_owned(),
                    ));
                }
                Some(Json::Null) => {}
                Some(value) => {
                    let token = special_token(value).map_err(|error| fault(attribute, error))?;
                    special.push((attribute.to_owned(), token));
                }
            }
        }
        for key in [ADDITIONAL, EXTRA] {
            let values: Vec<&Json> = match config.get(key) {
                Some(Json::Array(values)) => values.iter().collect(),
                Some(Json::Object(values)) => values.values().collect(),
                _ => Vec::new(),
            };
            for value in values {
                special.push((key.to_owned(), special_token(value).map_err(|error| fault(key, error))?));
            }
        }
        let side = |key: &str| match config.get(key).map(Json::as_str) {
            None | Some(Some("right")) => Ok(false),
            Some(Some("left")) => Ok(true),
            Some(_) => Err(fault(key, "must be \"left\" or \"right\"".to_owned())),
        };
        // Pipelines pad the texts of language models on the right, whatever the file has.
        if side("padding_side")? && !model.is_language_model {
            let reason =
                "is \"left\", which text encoders of diffusion models do not take; set it to \"right\"";
            return Err(fault("padding_side", reason.to_owned()));
        }
        let length = max_length(&config).map_err(|(key, error)| fault(key, error))?;
        let flag = |key: &str| config.get(key).and_then(Json::as_bool);
        Ok(Self {
            class,
            adds_begin: flag("add_bos_token"),
            adds_end: flag("add_eos_token"),
            length,
            truncates_left: side("truncation_side")?,
            splits_special_tokens: flag("split_special_tokens").unwrap_or(false),
            added,
            special,
        })
    }

    /// The content of the special token with this attribute.
    pub(super) fn special(&self, attribute: &str) -> Option<&str> {
        self.special.iter().find(|(name, _)| name == attribute).map(|(_, token)| token.content())
    }

    /// The special tokens that are not among [`added`](Self::added), each once.
    pub(super) fn missing_special_tokens(&self) -> Vec<(&str, &SpecialToken)> {
        let mut missing: Vec<(&str, &SpecialToken)> = Vec::new();
        for (attribute, token) in &self.special {
            let is_known = self.added.values().any(|added| added.content == token.content())
                || missing.iter().any(|(_, other)| other.content() == token.content());
            if !is_known && !token.content().is_empty() {
                missing.push((attribute, token));
            }
        }
        missing
    }
}

/// `model_max_length`, or its old name. Without a length, transformers writes 10³⁰.
fn max_length(config: &Map<String, Json>) -> Result<Option<usize>, (&'static str, String)> {
    let set = |key: &'static str| config.get(key).filter(|value| !value.is_null()).map(|value| (key, value));
    let Some((key, value)) = ["model_max_length", "max_len"].into_iter().find_map(set) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(length) if length >= 100_000.0 => Ok(None),
        Some(length) if length >= 2.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
        _ => Err((key, format!("is {value}, but must be a whole number of at least 2, as 77 for CLIP"))),
    }
}

/// Sets the attributes in special_tokens_map.json.
fn add_special_tokens_map(directory: &Path, config: &mut Map<String, Json>) -> Result<(), TokenizerError> {
    let map: Map<String, Json> = json(&directory.join("special_tokens_map.json"))?.unwrap_or_default();
    for (key, value) in map {
        match (value, config.get_mut(&key)) {
            (Json::Array(more), Some(Json::Array(own))) if key == ADDITIONAL => {
                let new: Vec<Json> = more.into_iter().filter(|token| !own.contains(token)).collect();
                own.extend(new);
            }
            (value, _) => {
                config.insert(key, value);
            }
        }
    }
    Ok(())
}

/// The tokens in added_tokens.json and tokenizer.json.
fn separate_tokens(
    directory: &Path,
    config: &Map<String, Json>,
) -> Result<BTreeMap<u32, AddedToken>, TokenizerError> {
    let named = |key: &str| config.get(key).and_then(|value| special_token(value).ok());
    let listed = config.get(ADDITIONAL).and_then(Json::as_array).into_iter().flatten();
    let special: Vec<String> = SPECIAL_TOKENS
        .into_iter()
        .filter_map(named)
        .chain(listed.filter_map(|value| special_token(value).ok()))
        .map(|token| token.content().to_owned())
        .collect();
    let added: BTreeMap<String, u32> = json(&directory.join("added_tokens.json"))?.unwrap_or_default();
    let token = |content: String| AddedToken::from(content.clone(), special.contains(&content));
    let mut tokens: BTreeMap<u32, AddedToken> =
        added.into_iter().map(|(content, id)| (id, token(content))).collect();
    let path = directory.join("tokenizer.json");
    let file: Map<String, Json> = json(&path)?.unwrap_or_default();
    for entry in file.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let fault = |reason| TokenizerError { path: path.clone(), reason: format!("added_tokens: {reason}") };
        let id = entry.get("id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| fault("a token has no id".to_owned()))?;
        tokens.insert(id, described(entry).map_err(fault)?);
    }
    Ok(tokens)
}

fn tokens_by_id(tokens: &Map<String, Json>) -> Result<BTreeMap<u32, AddedToken>, String> {
    let token = |(id, token): (&String, &Json)| {
        let id = id.parse().map_err(|_| format!("has the key {id:?}, which is not a token id"))?;
        Ok((id, described(token)?))
    };
    tokens.iter().map(token).collect()
}

fn special_token(value: &Json) -> Result<SpecialToken, String> {
    match value {
        Json::String(content) => Ok(SpecialToken::Plain(content.clone())),
        other => Ok(SpecialToken::Described(AddedToken { special: true, ..described(other)? })),
    }
}

/// A token with its flags, which transformers writes as an object.
fn described(value: &Json) -> Result<AddedToken, String> {
    let flag = |name: &str| value.get(name).and_then(Json::as_bool);
    let content = value.get("content").and_then(Json::as_str);
    let content = content.ok_or_else(|| format!("has the token {value}, but must name its content"))?;
    let special = flag("special").unwrap_or(false);
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}
