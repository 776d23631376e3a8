//! Parses a JSON text, and says in plain words why it is not one.

use super::large_integers::restore_digits;
use super::value::{Json, shortened};

/// serde_json's messages, and what they mean. `{}` is the text at the fault.
const FAULTS: [(&str, &str); 19] = [
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
        return Err("it is empty".to_owned());
    }
    let mut value = serde_json::from_str(text).map_err(|error| describe(&error, text))?;
    restore_digits(&mut value, text);
    Ok(value)
}

fn describe(error: &serde_json::Error, text: &str) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if message == "recursion limit exceeded" {
        return "its arrays and objects are nested more than 127 deep".to_owned();
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    // A word that is not complete, such as `nul`, is noticed at the character after it.
    let column = error.column() - usize::from(message == "expected ident" && error.column() > 1);
    let (character, quoted) = token(line, column);
    let plain = FAULTS.iter().find(|(fault, _)| *fault == message).map_or(message, |(_, plain)| plain);
    let plain = plain.replace("{}", &quoted);
    if error.is_eof() {
        return plain;
    }
    let place = match text.trim_ascii_end().contains('\n') {
        true => format!("line {}, character {character}", error.line()),
        false => format!("character {character}"),
    };
    format!("{plain} ({place})")
}

/// Returns the number of the first character of the token at this column, both from 1, and the token in quotes.
fn token(line: &str, column: usize) -> (usize, String) {
    let is_delimiter = |c: char| c.is_whitespace() || ",:[]{}\"".contains(c);
    let fault = line.floor_char_boundary(column.saturating_sub(1));
    let start = match line[fault..].chars().next() {
        Some(c) if is_delimiter(c) => fault,
        _ => line[..fault].rfind(is_delimiter).map_or(0, |before| before + 1),
    };
    let first = line[start..].chars().next().map_or(0, char::len_utf8);
    let length = line[start + first..].find(is_delimiter).map_or(line.len() - start, |length| first + length);
    let length = if line[start..].starts_with(is_delimiter) { first } else { length };
    let quoted = match &line[start..start + length] {
        "" => "the end of the line".to_owned(),
        token => format!("`{}`", shortened(token, MAX_QUOTED)),
    };
    (line[..start].chars().count() + 1, quoted)
}
