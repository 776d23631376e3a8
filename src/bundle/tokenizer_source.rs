//! Which files of a tokenizer's directory hold its vocabulary.

use std::path::Path;

use super::{TextModel, VocabularyForm};

/// Where the vocabulary of a tokenizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenizerSource {
    /// In tokenizer.json.
    TokenizerJson,
    /// In vocab.json and merges.txt.
    Vocabulary {
        /// Whether the class is one that reads prompts as the library tokenizers does.
        is_fast: bool,
    },
    /// In a file of SentencePiece, which is not supported.
    SentencePiece,
}

impl TokenizerSource {
    /// The files that the class of a model's tokenizer reads: CLIP's slow one its vocabulary, all others tokenizer.json. A
    /// file that is missing is replaced by the others.
    pub(crate) fn find(directory: &Path, model: &TextModel, class: Option<&str>) -> Self {
        let has = |file: &str| directory.join(file).is_file();
        let is_fast = model.is_fast(class);
        match (has("tokenizer.json"), has("vocab.json") && has("merges.txt")) {
            (true, has_vocabulary) if is_fast || !has_vocabulary => Self::TokenizerJson,
            (false, _) if model.vocabulary == VocabularyForm::None => Self::SentencePiece,
            _ => Self::Vocabulary { is_fast },
        }
    }
}
