//! HTML entities, as ftfy replaces them: only those that end in a semicolon.

use std::sync::LazyLock;

use html_escape::NAMED_ENTITIES;
use regex::{Captures, Regex};

use super::charmaps::c1_as_windows_1252;
use super::patterns::regex;

static ENTITY: LazyLock<Regex> = LazyLock::new(|| regex("&(#?[0-9A-Za-z]{1,24});"));

/// The names in capitals that HTML reads without a semicolon. A longer name that starts with one is ambiguous.
const CAPITALS_WITHOUT_SEMICOLON: [&str; 8] = ["AMP", "COPY", "ETH", "GT", "LT", "QUOT", "REG", "THORN"];

/// Replaces entities by their characters.
pub(super) fn unescape(text: &str) -> String {
    let replacement = |found: &Captures<'_>| {
        let character = match found[1].strip_prefix('#') {
            Some(number) => numeric(number),
            None => named(&found[1]),
        };
        character.unwrap_or_else(|| found[0].to_owned())
    };
    ENTITY.replace_all(text, replacement).into_owned()
}

fn named(name: &str) -> Option<String> {
    let find = |name: &str| {
        let index = NAMED_ENTITIES.binary_search_by(|(known, _)| (*known).cmp(name.as_bytes())).ok()?;
        Some(NAMED_ENTITIES[index].1)
    };
    if let Some(character) = find(name) {
        return Some(character.to_owned());
    }
    // A name in capitals means the capital letter.
    let is_capital = !name.bytes().any(|byte| byte.is_ascii_lowercase());
    if !is_capital || CAPITALS_WITHOUT_SEMICOLON.iter().any(|short| name.starts_with(short)) {
        return None;
    }
    Some(find(&name.to_ascii_lowercase())?.to_uppercase())
}

/// The character of a reference such as `#233` or `#xe9`, as HTML5 reads it; nothing for a control character.
fn numeric(number: &str) -> Option<String> {
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    // More digits than a u32 has are beyond Unicode, too.
    let code = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    let text = match code {
        0 => "\u{fffd}".to_owned(),
        0x80..=0x9f => char::from_u32(code).map(c1_as_windows_1252).map_or_else(String::new, String::from),
        // ftfy leaves a semicolon as it is, because it takes it for the end of an entity.
        0x3b => return None,
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        _ if code & 0xfffe == 0xfffe && code <= 0x10_ffff => String::new(),
        _ => char::from_u32(code).unwrap_or('\u{fffd}').to_string(),
    };
    Some(text)
}
