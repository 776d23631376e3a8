//! Repairs mojibake: UTF-8 that was read in a single-byte encoding.

use super::charmaps::{CHARMAPS, Encoding, c1_as_windows_1252};
use super::fix_text::MAX_PASSES;
use super::patterns::{LOSSY_UTF8, UTF8_WITH_SPACES, is_suspicious, split_at_utf8_sequences};

/// Repairs an encoding until nothing changes, at most [`MAX_PASSES`] times: text may have been misread several times.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_PASSES {
        match fix_encoding_once(&text).filter(|fixed| *fixed != text) {
            Some(fixed) => text = fixed,
            None => break,
        }
    }
    text
}

fn fix_encoding_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_suspicious(text) {
        return None;
    }
    let mut is_latin_1 = false;
    for charmap in CHARMAPS.iter() {
        let Some(mut bytes) = charmap.encode(text) else { continue };
        is_latin_1 |= charmap.encoding == Encoding::Latin1;
        // In MacRoman, an en dash before a space would match.
        if charmap.encoding != Encoding::MacRoman {
            bytes = restore_no_break_spaces(&bytes);
        }
        if charmap.encoding == Encoding::Windows {
            bytes = LOSSY_UTF8.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        if let Some(fixed) = decode_utf8_variants(&bytes) {
            return Some(fixed);
        }
    }
    let fixed = fix_parts(text);
    if fixed != text {
        return Some(fixed);
    }
    if is_latin_1 && let Some(fixed) = latin_1_as_windows_1252(text).filter(|fixed| *fixed != text) {
        return Some(fixed);
    }
    Some(fix_c1_controls(text))
}

/// Repairs the parts of a text that look like UTF-8 in another encoding.
fn fix_parts(text: &str) -> String {
    let fix = |(part, is_utf8): (&str, bool)| match is_utf8 && part.len() < text.len() && is_suspicious(part)
    {
        true => fix_encoding(part),
        false => part.to_owned(),
    };
    split_at_utf8_sequences(text).into_iter().map(fix).collect()
}

/// Replaces C1 control characters by those of windows-1252.
pub(super) fn fix_c1_controls(text: &str) -> String {
    text.chars().map(c1_as_windows_1252).collect()
}

/// Reads Latin-1 as windows-1252. Returns `None` if that leaves a control character.
fn latin_1_as_windows_1252(text: &str) -> Option<String> {
    let is_c1 = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
    text.chars().map(|c| Some(c1_as_windows_1252(c)).filter(|fixed| !is_c1(*fixed))).collect()
}

/// Restores the bytes 0xa0 of UTF-8 that became spaces.
fn restore_no_break_spaces(bytes: &[u8]) -> Vec<u8> {
    if !UTF8_WITH_SPACES.is_match(bytes) {
        return bytes.to_owned();
    }
    let bytes = separate_a_grave(bytes);
    let restore = |found: &regex::bytes::Captures<'_>| -> Vec<u8> {
        found[0].iter().map(|byte| if *byte == b' ' { 0xa0 } else { *byte }).collect()
    };
    UTF8_WITH_SPACES.replace_all(&bytes, restore).into_owned()
}

/// Keeps the space after an `à` that is a word of its own, but not in Portuguese `às`, `àquele`, `àquela` and `àquilo`.
fn separate_a_grave(bytes: &[u8]) -> Vec<u8> {
    const A_GRAVE: &[u8] = b"\xc3 ";
    const CONTRACTIONS: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut separated = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        match rest.strip_prefix(A_GRAVE) {
            Some(after) if !CONTRACTIONS.iter().any(|word| after.starts_with(word)) => {
                separated.extend(b"\xc3\xa0 ");
                rest = after;
            }
            _ => {
                separated.push(*first);
                rest = &rest[1..];
            }
        }
    }
    separated
}

/// Decodes UTF-8, which may have pairs of surrogates (CESU-8) and a long null as Java writes it.
fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = bytes;
    loop {
        let special = rest
            .windows(2)
            .position(|pair| pair == [0xc0, 0x80] || (pair[0] == 0xed && (0xa0..=0xbf).contains(&pair[1])));
        let (plain, variant) = rest.split_at(special.unwrap_or(rest.len()));
        text.push_str(std::str::from_utf8(plain).ok()?);
        match *variant {
            [] => return Some(text),
            [0xc0, 0x80, ..] => {
                text.push('\0');
                rest = &variant[2..];
            }
            [
                0xed,
                high @ 0xa0..=0xaf,
                middle @ 0x80..=0xbf,
                0xed,
                low @ 0xb0..=0xbf,
                last @ 0x80..=0xbf,
                ..,
            ] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code =
                    bits(high, 0x0f, 16) + bits(middle, 0x3f, 10) + bits(low, 0x0f, 6) + bits(last, 0x3f, 0);
                text.push(char::from_u32(code + 0x1_0000)?);
                rest = &variant[6..];
            }
            _ => return None,
        }
    }
}
