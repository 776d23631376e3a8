//! Which files of a tokenizer's directory hold its vocabulary.

use std::path::Path;

/// Where the vocabulary of a tokenizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenizerSource {
    /// In tokenizer.json.
    TokenizerJson,
    /// In vocab.json and merges.txt, as CLIP has it.
    Vocabulary {
        /// Whether the class is one that reads prompts as the library tokenizers does.
        is_fast: bool,
    },
    /// In spiece.model, which is not supported.
    SentencePiece,
}

impl TokenizerSource {
    /// The files that the class of a tokenizer reads: one whose name ends in `Fast` reads tokenizer.json, CLIP's other one
    /// its vocabulary. A file that is missing is replaced by the others.
    pub(crate) fn find(directory: &Path, class: Option<&str>) -> Self {
        let has = |file: &str| directory.join(file).is_file();
        let is_t5 = class.is_some_and(|class| class.starts_with("T5"));
        let is_fast = class.is_some_and(|class| class.ends_with("Fast"));
        match (has("tokenizer.json"), has("vocab.json") && has("merges.txt")) {
            (true, has_vocabulary) if is_t5 || is_fast || !has_vocabulary => Self::TokenizerJson,
            (false, _) if is_t5 => Self::SentencePiece,
            _ => Self::Vocabulary { is_fast },
        }
    }
}
