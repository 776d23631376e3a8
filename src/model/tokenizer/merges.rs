//! The byte-pair encoding in a vocab.json and a merges.txt, as transformers' tokenizers of CLIP and Qwen read it.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};

use super::{EMPTY_VOCABULARY, TokenizerError, json};
use crate::regular_file;

/// The first of the ids of symbols that the vocabulary lacks. A vocabulary is far smaller.
const WITHOUT_ID: u32 = 1 << 24;

/// Merges are read up to this line: 49152 tokens less 256 bytes and 2 special tokens. The first line is the version.
const LAST_MERGE: usize = 49152 - 256 - 2 + 1;

/// Whether a token is a symbol that the vocabulary lacks, so that it is read as the unknown token.
pub(super) fn is_without_id(id: u32) -> bool {
    id >= WITHOUT_ID
}

/// Reads the files of a byte-level encoding in a directory.
pub(super) fn read_byte_level(directory: &Path) -> Result<BPE, TokenizerError> {
    let (vocabulary, merges) = (directory.join("vocab.json"), directory.join("merges.txt"));
    let fault = |path: &Path, reason: String| TokenizerError { path: path.to_owned(), reason };
    let tokens: HashMap<String, u32> = json(&vocabulary)?.unwrap_or_default();
    if tokens.is_empty() {
        return Err(fault(&vocabulary, EMPTY_VOCABULARY.to_owned()));
    }
    let text = regular_file::read_text(&merges).map_err(|error| fault(&merges, error.to_string()))?;
    let mut pairs = Vec::new();
    let lines = text.lines().map(str::trim).enumerate();
    for (_, line) in lines.filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version:")))
    {
        let Some((left, right)) = line.split_once(' ') else {
            let reason =
                format!("the line {line:?} is not a merge of two tokens; export the tokenizer again");
            return Err(fault(&merges, reason));
        };
        pairs.push((left.to_owned(), right.to_owned()));
    }
    let builder = BPE::builder().vocab_and_merges(tokens.into_iter().collect::<Vocab>(), pairs);
    builder.build().map_err(|error| fault(&merges, error.to_string()))
}

/// Reads both files. The fast class refuses what the other one passes over.
pub(super) fn read(
    vocabulary: &Path,
    merges: &Path,
    unknown: &str,
    is_fast: bool,
) -> Result<BPE, TokenizerError> {
    let fault = |path: &Path, reason: String| TokenizerError { path: path.to_owned(), reason };
    let mut tokens: HashMap<String, u32> = json(vocabulary)?.unwrap_or_default();
    if tokens.is_empty() {
        return Err(fault(vocabulary, EMPTY_VOCABULARY.to_owned()));
    }
    let text = regular_file::read_text(merges).map_err(|error| fault(merges, error.to_string()))?;
    let mut pairs = Vec::new();
    for line in lines(&text) {
        let parts: Vec<&str> = line.split_whitespace().collect();
        match parts.as_slice() {
            [left, right] => pairs.push(((*left).to_owned(), (*right).to_owned())),
            _ if is_fast => {
                let reason = format!(
                    "the line {line:?} is not a merge of two tokens, which CLIPTokenizerFast does not take; export the \
                     tokenizer again"
                );
                return Err(fault(merges, reason));
            }
            // No pair of symbols is equal to it.
            _ => {}
        }
    }
    for (left, right) in &pairs {
        for symbol in [left.clone(), right.clone(), format!("{left}{right}")] {
            if tokens.contains_key(&symbol) {
                continue;
            }
            if is_fast {
                let reason = format!(
                    "it merges {left:?} and {right:?}, but vocab.json has no {symbol:?}, which CLIPTokenizerFast does not \
                     take: the files are not of one model; export the tokenizer again"
                );
                return Err(fault(merges, reason));
            }
            let id = WITHOUT_ID + u32::try_from(tokens.len()).unwrap_or(0);
            tokens.insert(symbol, id);
        }
    }
    BPE::builder()
        .vocab_and_merges(tokens.into_iter().collect::<Vocab>(), pairs)
        .unk_token(unknown.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .map_err(|error| fault(merges, error.to_string()))
}

/// The lines with merges: after the first one, whatever it holds, without blank lines around the text.
fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.trim().split('\n').take(LAST_MERGE).skip(1).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_merges_txt_is_never_a_merge() {
        for text in [
            "#version: 0.2\na b\nc d",
            "x y\na b\nc d\n\n",
            "\n\u{feff}#version\r\na b\r\nc d",
            "x\ra b\rc d",
        ] {
            assert_eq!(lines(text), ["a b", "c d"], "{text:?}");
        }
        assert_eq!(lines("v\na b\n\n# no comment\nc d"), ["a b", "", "# no comment", "c d"]);
        assert!(lines("").is_empty());
        assert_eq!(lines(&"a b\n".repeat(60_000)).len(), 48894);
    }

    fn ids(merges: &str, is_fast: bool) -> Result<Vec<u32>, String> {
        use tokenizers::Model as _;
        let directory = tempfile::tempdir().unwrap();
        let (vocabulary, file) = (directory.path().join("vocab.json"), directory.path().join("merges.txt"));
        std::fs::write(&vocabulary, r#"{"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "<u>": 4, "a</w>": 5}"#)
            .unwrap();
        std::fs::write(&file, merges).unwrap();
        let bpe = read(&vocabulary, &file, "<u>", is_fast).map_err(|error| error.to_string())?;
        Ok(bpe.tokenize("ab").unwrap().into_iter().map(|token| token.id).collect())
    }

    #[test]
    fn lines_that_are_no_merges_are_passed_over_as_transformers_does() {
        assert_eq!(ids("#version\na b</w>", false), Ok(vec![3]));
        assert_eq!(ids("a b</w>", false), Ok(vec![0, 2]));
        assert_eq!(ids("#version\n\n# a comment\na b</w>", false), Ok(vec![3]));
        let error = ids("#version\n\na b</w>", true).unwrap_err();
        assert!(error.contains("the line \"\" is not a merge of two tokens"), "{error}");
    }

    #[test]
    fn a_merge_without_a_token_in_the_vocabulary_gives_the_unknown_token() {
        let directory = tempfile::tempdir().unwrap();
        let (vocabulary, file) = (directory.path().join("vocab.json"), directory.path().join("merges.txt"));
        std::fs::write(&vocabulary, r#"{"a": 0, "b</w>": 1, "<u>": 2}"#).unwrap();
        std::fs::write(&file, "#version\na b</w>").unwrap();
        let bpe = read(&vocabulary, &file, "<u>", false).unwrap();
        let found = tokenizers::Model::tokenize(&bpe, "ab").unwrap();
        assert!(found.len() == 1 && is_without_id(found[0].id));
        let error = read(&vocabulary, &file, "<u>", true).unwrap_err().to_string();
        assert!(error.contains("vocab.json has no \"ab</w>\""), "{error}");
    }
}
