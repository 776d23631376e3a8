//! Parses a JSON text, and says in plain words why it is not one.

use super::large_integers::restore_digits;
use super::value::{Json, shortened};

/// serde_json's messages, and what they mean. `{}` is the text at the fault.
const FAULTS: [(&str, &str); 20] = [
    ("recursion limit exceeded", TOO_DEEP),
    ("EOF while parsing an object", "it ends before an object is closed by `}`"),
    ("EOF while parsing a list", "it ends before an array is closed by `]`"),
    ("EOF while parsing a string", "it ends before a string is closed by `\"`"),
    ("EOF while parsing a value", "it ends where a value must follow"),
    ("expected `:`", "a colon must follow a key, not {}"),
    ("expected `,` or `]`", "a comma or `]` must follow an element of an array, not {}"),
    ("expected `,` or `}`", "a comma or `}` must follow a member of an object, not {}"),
    ("expected ident", "no JSON value begins with {}; a word must be true, false or null"),
    ("expected value", "no JSON value begins with {}"),
    ("key must be a string", "a key of an object must be a string in double quotes, not {}"),
    ("trailing comma", "a comma must be followed by another value, not {}"),
    ("trailing characters", "nothing may follow the JSON value, but {} does"),
    ("invalid number", "{} is not a JSON number"),
    ("number out of range", "{} is too large for a number"),
    ("invalid escape", "a string has an invalid escape sequence at {}"),
    ("invalid unicode code point", "a string has an invalid escape sequence at {}"),
    ("lone leading surrogate in hex escape", "a string has half of a surrogate pair at {}"),
    ("unexpected end of hex escape", "a string has half of a surrogate pair at {}"),
    (
        "control character (\\u0000-\\u001F) found while parsing a string",
        "a string has a control character; escape it",
    ),
];

/// What is wrong with a text that is nested too deep.
const TOO_DEEP: &str = "its arrays and objects are nested more than 127 deep";

/// The longest piece of the text that an error message quotes, in characters.
const MAX_QUOTED: usize = 24;

/// Parses a JSON text in UTF-8. A byte order mark at its start is ignored, as RFC 8259 permits.
pub(super) fn parse(bytes: &[u8]) -> Result<Json, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let position = error.valid_up_to();
        let byte = bytes.get(position).copied().unwrap_or_default();
        format!("it is not UTF-8 text: byte {} is 0x{byte:02x}", position + 1)
    })?;
    if text.trim_ascii().is_empty() {
        return Err("it is empty; write a JSON object".to_owned());
    }
    let mut value =
        serde_json::from_str(text).map_err(|error| SyntaxFault::new(&error, text).to_message(text))?;
    restore_digits(&mut value, text);
    Ok(value)
}

/// Why a text is not JSON.
pub(super) struct SyntaxFault {
    /// The rule that it breaks.
    pub(super) reason: String,
    /// The line of the fault, from 1.
    pub(super) line: usize,
    /// The number of the fault's first character in its line, from 1.
    pub(super) character: usize,
    /// The text at the fault, which may be empty.
    pub(super) token: String,
    /// Whether the text ends too early.
    pub(super) is_early_end: bool,
}

impl SyntaxFault {
    /// The fault of a text that serde_json refuses with an error.
    pub(super) fn new(error: &serde_json::Error, text: &str) -> Self {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
        // A word that is not complete, such as `nul`, is noticed at the character after it.
        let column = error.column() - usize::from(message == "expected ident" && error.column() > 1);
        let (character, token) = token(line, column);
        let quoted = match token {
            "" => "the end of the line".to_owned(),
            token => format!("`{}`", shortened(token, MAX_QUOTED)),
        };
        let plain = FAULTS.iter().find(|(fault, _)| *fault == message).map_or(message, |(_, plain)| plain);
        Self {
            reason: plain.replace("{}", &quoted),
            line: error.line(),
            character,
            token: token.to_owned(),
            is_early_end: error.is_eof(),
        }
    }

    fn to_message(&self, text: &str) -> String {
        let Self { reason, line, character, .. } = self;
        if self.is_early_end || reason == TOO_DEEP {
            return reason.clone();
        }
        match text.trim_ascii_end().contains('\n') {
            true => format!("{reason} (line {line}, character {character})"),
            false => format!("{reason} (character {character})"),
        }
    }
}

/// Returns the number of the first character of the token at this column, both from 1, and the token.
fn token(line: &str, column: usize) -> (usize, &str) {
    let is_delimiter = |c: char| c.is_whitespace() || ",:[]{}\"".contains(c);
    let fault = line.floor_char_boundary(column.saturating_sub(1));
    let start = match line[fault..].chars().next() {
        Some(c) if is_delimiter(c) => fault,
        _ => line[..fault].rfind(is_delimiter).map_or(0, |before| before + 1),
    };
    let first = line[start..].chars().next().map_or(0, char::len_utf8);
    let length = line[start + first..].find(is_delimiter).map_or(line.len() - start, |length| first + length);
    let length = if line[start..].starts_with(is_delimiter) { first } else { length };
    (line[..start].chars().count() + 1, &line[start..start + length])
}
