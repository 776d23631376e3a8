//! Says what is wrong with a file that is not valid JSON: where, and what to do.

use serde_json::Value;

use super::syntax::SyntaxFault;
use super::value::shortened;
use crate::file_kind::unexpected_text;

/// The longest beginning of a file that a message quotes, in characters.
const MAX_QUOTED: usize = 40;

/// Words of Python and of JavaScript that JSON lacks, and what to write.
const WORDS: [(&str, &str); 10] = [
    ("True", "write true"),
    ("False", "write false"),
    ("None", "write null"),
    ("undefined", "write null"),
    ("NaN", NO_NUMBER),
    ("nan", NO_NUMBER),
    ("Infinity", NO_NUMBER),
    ("-Infinity", NO_NUMBER),
    ("inf", NO_NUMBER),
    ("-inf", NO_NUMBER),
];
const NO_NUMBER: &str = "write a number";

/// What to do about a file where nothing else is known.
const ADVICE: &str = "correct it, or copy or export the file again";

/// Returns what is wrong with the text of a file that is not valid JSON, with its line and column and what to do.
pub(crate) fn file_fault(text: &str) -> String {
    if text.starts_with('\u{feff}') {
        return "it begins with a byte order mark (BOM), which JSON files must not have; save it as UTF-8 without one"
            .to_owned();
    }
    if let Some(other) = unexpected_text(text) {
        return other.to_owned();
    }
    let begin = text.trim_start();
    if !begin.starts_with(['{', '[', '"', '/', '#', '\'']) {
        let line = begin.lines().next().unwrap_or_default().trim_end();
        return format!(
            "it is not JSON: it begins with {:?}; copy or download the file itself again",
            shortened(line, MAX_QUOTED)
        );
    }
    match serde_json::from_str::<Value>(text) {
        Ok(_) => ADVICE.to_owned(),
        Err(error) => {
            let fault = SyntaxFault::new(&error, text);
            let advice = advice(&fault, text);
            let SyntaxFault { reason, line, character, .. } = fault;
            format!("line {line}, column {character}: {reason}; {advice}")
        }
    }
}

fn advice(fault: &SyntaxFault, text: &str) -> &'static str {
    let token = fault.token.as_str();
    let is_key = fault.reason.starts_with("a key of");
    if fault.is_early_end {
        return "the file is cut off; copy or export it again";
    }
    if let Some((_, advice)) = WORDS.iter().find(|(word, _)| *word == token) {
        return advice;
    }
    if token.starts_with("//") || token.starts_with("/*") || token.starts_with('#') {
        return "JSON has no comments; remove it";
    }
    if token.starts_with('\'') {
        return "put it in double quotes in place of single ones";
    }
    if follows_comma(fault, text) && matches!(token, "}" | "]") {
        return "remove the comma before it";
    }
    match token {
        "," => "remove the comma, or write a value before it",
        "\"" if fault.reason.starts_with("a comma") => "write a comma before it",
        _ if is_key => "put the key in double quotes",
        _ => ADVICE,
    }
}

/// Whether a comma is the last character before the fault that is no space.
fn follows_comma(fault: &SyntaxFault, text: &str) -> bool {
    let lines = text.split('\n');
    let before: usize = lines.take(fault.line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    let line = text.get(before..).unwrap_or_default();
    let end = line.char_indices().nth(fault.character.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    text[..before + end].trim_end().ends_with(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of them had the message of the parser, such as "key must be a string at line 1 column 2".
    #[test]
    fn a_file_that_is_not_json_had_the_message_of_the_parser() {
        for (text, expected) in [
            ("", "this file is empty; copy or download it again"),
            (" \n", "this file is empty; copy or download it again"),
            (
                "\u{feff}{}",
                "it begins with a byte order mark (BOM), which JSON files must not have; save it as UTF-8 without one",
            ),
            ("<!DOCTYPE html>\n<html>", "this is a web page, not the file; download the file itself"),
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
                "this is a pointer of Git LFS, not the file; run `git lfs pull` in the folder",
            ),
            (
                "Entry not found",
                "it is not JSON: it begins with \"Entry not found\"; copy or download the file itself again",
            ),
            (
                "{\"a\": 1,\n\"b",
                "line 2, column 2: it ends before a string is closed by `\"`; the file is cut off; copy or export it \
                 again",
            ),
            (
                "{\"a\":\n[1, 2",
                "line 2, column 5: it ends before an array is closed by `]`; the file is cut off; copy or export it again",
            ),
            (
                "{\n  \"a\": 1,\n}",
                "line 3, column 1: a comma must be followed by another value, not `}`; remove the comma before it",
            ),
            (
                "{\"a\": [1,]}",
                "line 1, column 10: a comma must be followed by another value, not `]`; remove the comma before it",
            ),
            (
                "{'a': 1}",
                "line 1, column 2: a key of an object must be a string in double quotes, not `'a'`; put it in double \
                 quotes in place of single ones",
            ),
            (
                "{\"a\": 'x'}",
                "line 1, column 7: no JSON value begins with `'x'`; put it in double quotes in place of single ones",
            ),
            (
                "{a: 1}",
                "line 1, column 2: a key of an object must be a string in double quotes, not `a`; put the key in double \
                 quotes",
            ),
            ("{\"a\": True}", "line 1, column 7: no JSON value begins with `True`; write true"),
            ("{\"a\": None}", "line 1, column 7: no JSON value begins with `None`; write null"),
            ("{\"a\": NaN}", "line 1, column 7: no JSON value begins with `NaN`; write a number"),
            ("{\"a\": -Infinity}", "line 1, column 7: `-Infinity` is not a JSON number; write a number"),
            (
                "{\"a\": 1 // one\n}",
                "line 1, column 9: a comma or `}` must follow a member of an object, not `//`; JSON has no comments; \
                 remove it",
            ),
            (
                "{\"a\": 1\n \"b\": 2}",
                "line 2, column 2: a comma or `}` must follow a member of an object, not `\"`; write a comma before it",
            ),
            (
                "{} {}",
                "line 1, column 4: nothing may follow the JSON value, but `{` does; correct it, or copy or export the \
                 file again",
            ),
        ] {
            assert_eq!(file_fault(text), expected, "{text:?}");
        }
    }
}
