//! Compares the token ids of many forms of tokenizer folders with those that transformers gives for them.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Tokenizer, TokenizerError, Tokens};
use crate::bundle::{CLIP, FramedPrompt, GEMMA, PipelineKind, QWEN};

fn open(
    directory: &Path,
    class: Option<&str>,
    positions: Option<usize>,
) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::open(directory, &CLIP, class, positions)
}

fn plain(prompt: &str) -> FramedPrompt<'_> {
    FramedPrompt { before: "".into(), prompt: prompt.into(), after: "" }
}

impl Tokenizer {
    pub(in crate::model) fn encode_plain(&self, prompt: &str, length: usize) -> Result<Tokens, String> {
        self.encode(&plain(prompt), length)
    }
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// Writes the folder of a case of `tests/golden/tokenizers/make.py`.
fn folder(case: &Json) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = golden("latent/bundles").join(case["bundle"].as_str().unwrap());
    for name in case["copied"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
        std::fs::copy(source.join(name), directory.path().join(name)).unwrap();
    }
    for (name, text) in case["files"].as_object().unwrap() {
        std::fs::write(directory.path().join(name), text.as_str().unwrap()).unwrap();
    }
    directory
}

#[test]
fn every_form_of_a_tokenizer_is_read_as_transformers_reads_it() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for file in ["cases-4.json", "cases-5.json"] {
        let text = std::fs::read_to_string(golden("tokenizers").join(file)).unwrap();
        let cases: Json = serde_json::from_str(&text).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let (directory, name) = (folder(case), case["name"].as_str().unwrap());
            let tokenizer = open(directory.path(), case["class"].as_str(), None)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let length = case["length"].as_u64().unwrap() as usize;
            for (prompt, ids) in
                cases["prompts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap())
            {
                let prompt = prompt.as_str().unwrap();
                // transformers has no id for a piece that neither the vocabulary nor unk_token covers.
                let expected: Option<Vec<i64>> = ids.as_array().unwrap().iter().map(Json::as_i64).collect();
                let found = tokenizer.encode_plain(prompt, length).map(|tokens| tokens.ids).ok();
                if found != expected {
                    wrong.push(format!("{name}: {prompt:?}: {found:?} instead of {expected:?}"));
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 270, "{compared}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn error(config: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden("latent/bundles/sd/tokenizer").join(name), directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
    open(directory.path(), None, None).err().map_or_else(String::new, |error| error.to_string())
}

#[test]
fn a_tokenizer_that_cannot_pad_is_refused_by_the_name_of_its_key() {
    assert_eq!(error("{}"), "");
    let null = error(r#"{"pad_token": null}"#);
    assert!(null.contains("tokenizer_config.json: pad_token is null"), "{null}");
    let left = error(r#"{"padding_side": "left"}"#);
    assert!(left.contains("tokenizer_config.json: padding_side is \"left\""), "{left}");
    let token = error(r#"{"added_tokens_decoder": {"x": {"content": "y"}}}"#);
    for length in ["\"x\"", "3.7", "1", "true", "-4", "[77]"] {
        let error = error(&format!(r#"{{"model_max_length": {length}}}"#));
        assert!(
            error.contains(&format!("tokenizer_config.json: model_max_length is {length}, but")),
            "{error}"
        );
    }
    assert_eq!(error(r#"{"model_max_length": 1000000000000000019884624838656}"#), "");
    assert_eq!(error(r#"{"model_max_length": 16.0}"#), "");
    assert!(token.contains("added_tokens_decoder has the key \"x\""), "{token}");
}

#[test]
fn an_added_token_without_content_is_nowhere_in_a_prompt() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden("latent/bundles/sd/tokenizer").join(name), directory.path().join(name)).unwrap();
    }
    let ids = |added: &str| {
        let config = format!(r#"{{"added_tokens_decoder": {{{added}}}}}"#);
        std::fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
        open(directory.path(), None, None).unwrap().encode_plain("the red fox", 12).unwrap().ids
    };
    assert_eq!(ids(r#""5": {"content": ""}"#), ids(""));
}

#[test]
fn an_error_in_tokenizer_json_names_the_file_and_no_type() {
    let directory = tempfile::tempdir().unwrap();
    let model = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "Nothing"}}"#;
    std::fs::write(directory.path().join("tokenizer.json"), model).unwrap();
    let error = open(directory.path(), Some("T5TokenizerFast"), None).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: a part of it has a form that is not known"), "{error}");
    let model = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}}"#;
    std::fs::write(directory.path().join("tokenizer.json"), model).unwrap();
    let error = open(directory.path(), Some("T5TokenizerFast"), None).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json: unk_id is larger than the vocabulary; create"), "{error}");
}

#[test]
fn the_length_is_the_file_s_or_else_the_text_encoder_s() {
    let directory = golden("latent/bundles/sd/tokenizer");
    let length = |directory: &Path, positions| open(directory, None, positions).unwrap().length;
    assert_eq!(length(&directory, Some(100)), 77);
    let without = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(directory.join(name), without.path().join(name)).unwrap();
    }
    assert_eq!([None, Some(16)].map(|positions| length(without.path(), positions)), [77, 16]);
}

#[test]
fn the_part_that_is_truncated_is_reported_on_the_side_where_it_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden("latent/bundles/sd/tokenizer").join(name), directory.path().join(name)).unwrap();
    }
    let truncated = |config: &str| {
        std::fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = open(directory.path(), None, None).unwrap();
        tokenizer.encode_plain("the red fox", 4).unwrap().truncated
    };
    assert_eq!(truncated("{}").as_deref(), Some("fox"));
    assert_eq!(truncated(r#"{"truncation_side": "left"}"#).as_deref(), Some("the"));
}

/// Prompts were tokenized to nothing, or failed in the first job.
#[test]
fn an_empty_vocabulary_was_found_while_drawing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let error = || open(directory.path(), None, None).err().unwrap().to_string();
    std::fs::copy(golden("latent/bundles/sd/tokenizer/merges.txt"), path("merges.txt")).unwrap();
    std::fs::write(path("vocab.json"), "{}").unwrap();
    let reason = "the vocabulary is empty; create the file again in Python with save_pretrained";
    assert_eq!(error(), format!("{}: {reason}", path("vocab.json").display()));
    std::fs::remove_file(path("vocab.json")).unwrap();
    let json = r#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
    std::fs::write(path("tokenizer.json"), json).unwrap();
    assert_eq!(error(), format!("{}: {reason}", path("tokenizer.json").display()));
}

/// Token ids that the tokenizers of Gemma and Qwen give in transformers, for prompts as the pipelines frame them.
#[test]
fn language_models_read_framed_prompts_as_in_transformers() {
    let text = std::fs::read_to_string(golden("language_models/reference/tokens.json")).unwrap();
    let file: Json = serde_json::from_str(&text).unwrap();
    let ids = |value: &Json| -> Vec<i64> {
        value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
    };
    let instruction = ids(&file["instruction_ids"]);
    let tokenizer = |folder: &str, model, class| {
        Tokenizer::open(&golden("language_models").join(folder).join("tokenizer"), model, Some(class), None)
            .unwrap()
    };
    let gemma = tokenizer("sana", &GEMMA, "GemmaTokenizerFast");
    let qwen = tokenizer("zimage", &QWEN, "Qwen2Tokenizer");
    let template = |kind: PipelineKind| kind.facts().text_encoders[0].template;
    let unpadded = |tokens: Tokens| tokens.ids[..tokens.unpadded_len].to_vec();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let prompt = case["prompt"].as_str().unwrap();
        let sana = template(PipelineKind::Sana);
        let negative = gemma.encode(&sana.frame(prompt, true), 4096).unwrap();
        assert_eq!(unpadded(negative), ids(&case["sana"]["untruncated"]), "{prompt:?}");
        let framed = sana.frame(prompt, false);
        assert_eq!(gemma.count(&framed.before).unwrap(), instruction.len());
        let found = unpadded(gemma.encode(&framed, instruction.len() + 298).unwrap());
        let (head, tail) = found.split_at(instruction.len() - 2);
        assert_eq!(head, &instruction[..instruction.len() - 2], "{prompt:?}");
        assert_eq!(tail, ids(&case["sana"]["with_instruction_tail"]), "{prompt:?}");
        let chat = template(PipelineKind::ZImage).frame(prompt, false);
        let text = [&*chat.before, &*chat.prompt, chat.after].concat();
        assert_eq!(text, case["zimage"]["text"].as_str().unwrap());
        assert_eq!(unpadded(qwen.encode(&chat, 512).unwrap()), ids(&case["zimage"]["ids512"]), "{prompt:?}");
    }
}

#[test]
fn a_byte_level_vocabulary_is_read_without_tokenizer_json() {
    let source = golden("language_models/zimage/tokenizer");
    let directory = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(source.join(name), directory.path().join(name)).unwrap();
    }
    let open = |directory: &Path| Tokenizer::open(directory, &QWEN, Some("Qwen2Tokenizer"), None).unwrap();
    let (whole, parts) = (open(&source), open(directory.path()));
    let text = std::fs::read_to_string(golden("language_models/reference/tokens.json")).unwrap();
    let file: Json = serde_json::from_str(&text).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let prompt = plain(case["zimage"]["text"].as_str().unwrap());
        assert_eq!(parts.encode(&prompt, 600).unwrap(), whole.encode(&prompt, 600).unwrap());
    }
}

#[test]
fn only_the_prompt_s_own_part_is_reported_as_truncated() {
    let qwen = Tokenizer::open(&golden("language_models/zimage/tokenizer"), &QWEN, None, None).unwrap();
    let framed = PipelineKind::ZImage.facts().text_encoders[0].template.frame("fox", false);
    let count = qwen.count(&[&*framed.before, "fox", framed.after].concat()).unwrap();
    let truncated = |length: usize| qwen.encode(&framed, length).unwrap().truncated;
    let before = qwen.count(&framed.before).unwrap();
    assert_eq!([count, count - 1].map(truncated), [None, None]);
    assert_eq!(truncated(before).as_deref(), Some("fox"));
}
