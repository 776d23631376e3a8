//! Prompts as transformers reads them, from `tests/golden/prompts/make.py`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::NormalizedString;

use super::fix_text::MAX_PASSES;
use super::{clean, replace_text};
use crate::bundle::CLIP;
use crate::model::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Case {
    pad: String,
    text: String,
    cleaned: String,
    ids: Vec<i64>,
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/prompts").join(file)
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(golden("prompts.json")).unwrap()).unwrap()
}

#[test]
fn prompts_are_cleaned_as_ftfy_does_it() {
    let wrong = |case: &Case| {
        let found = clean(&case.text);
        (found != case.cleaned)
            .then(|| format!("{:?}\n  {found:?} instead of\n  {:?}", case.text, case.cleaned))
    };
    let wrong: Vec<_> = cases().iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{} prompts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn prompts_have_the_tokens_of_the_reference() {
    let open = |folder: &str| Tokenizer::open(&golden(folder), &CLIP, Some("CLIPTokenizer"), None).unwrap();
    let (plain, padded_with_a_mark) = (open("tokenizer"), open("tokenizer-pad"));
    let wrong = |case: &Case| {
        let tokenizer = if case.pad == "!" { &padded_with_a_mark } else { &plain };
        let tokens = tokenizer.encode_plain(&case.text, 77).unwrap();
        let found = &tokens.ids[..tokens.unpadded_len];
        (found != case.ids).then(|| format!("{:?}\n  {found:?} instead of\n  {:?}", case.text, case.ids))
    };
    let wrong: Vec<_> = cases().iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{} prompts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn typographic_quotes_are_read_as_plain_ones() {
    let tokenizer = Tokenizer::open(&golden("tokenizer"), &CLIP, Some("CLIPTokenizer"), None).unwrap();
    let plain = tokenizer.encode_plain("a cat's \"red\" hat", 77).unwrap();
    assert_eq!(tokenizer.encode_plain("a cat’s “red” hat", 77).unwrap(), plain);
}

/// The part of the original text from each of the given bytes of the new one.
fn rests<'a>(old: &'a str, new: &str, bytes: &[usize]) -> Vec<&'a str> {
    let mut text = NormalizedString::from(old);
    replace_text(&mut text, new);
    assert_eq!(text.get(), new);
    let original = |byte: usize| {
        let range = tokenizers::normalizer::Range::Normalized(byte..new.len());
        text.convert_offsets(range).map_or("", |range| &old[range.start..])
    };
    bytes.iter().map(|byte| original(*byte)).collect()
}

#[test]
fn a_cleaned_text_keeps_its_positions() {
    assert_eq!(
        rests("A Cat’s “hat”", "a cat's \"hat\"", &[0, 2, 8]),
        ["A Cat’s “hat”", "Cat’s “hat”", "“hat”"]
    );
    assert_eq!(rests("x &amp; End", "x & end", &[0, 4]), ["x &amp; End", "End"]);
    assert_eq!(rests("ﬂy Away", "fly away", &[4]), ["Away"]);
    assert_eq!(rests("  lead", "lead", &[0, 1]), ["lead", "ead"]);
    assert_eq!(rests("\u{feff}\u{feff}", "", &[]), [""; 0]);
    assert_eq!(rests("", "", &[]), [""; 0]);
    assert_eq!(rests("a", "bcd", &[0]), ["a"]);
    assert_eq!(rests("abcd", "x", &[0]), ["abcd"]);
}

mod any_text {
    use proptest::prelude::*;

    use super::super::{clean, replace_text};
    use tokenizers::NormalizedString;

    proptest! {
        #[test]
        fn is_cleaned_and_replaced(text in "[ -~À-ÿ€œ™“”’\u{80}-\u{9f}&#;<\n�Ã]{0,40}") {
            let mut normalized = NormalizedString::from(text.as_str());
            let cleaned = clean(&text);
            replace_text(&mut normalized, &cleaned);
            prop_assert_eq!(normalized.get(), cleaned);
        }
    }
}

#[test]
fn a_text_that_nests_entities_without_end_is_cleaned_in_bounded_time() {
    let nested = |levels: usize| format!("&{}lt;", "amp;".repeat(levels));
    assert_eq!(clean(&nested(90)), "<");
    assert_eq!(clean(&nested(1000)), nested(1000 - MAX_PASSES));
}
