//! ftfy's replacements of single characters.

use std::sync::LazyLock;

use regex::Regex;
use tokenizers::NormalizedString;

use super::patterns::regex;

/// Latin ligatures and digraphs, and their letters.
const LIGATURES: [(char, &str); 22] = [
    ('Ĳ', "IJ"),
    ('ĳ', "ij"),
    ('ŉ', "ʼn"),
    ('Ǳ', "DZ"),
    ('ǲ', "Dz"),
    ('ǳ', "dz"),
    ('Ǆ', "DŽ"),
    ('ǅ', "Dž"),
    ('ǆ', "dž"),
    ('Ǉ', "LJ"),
    ('ǈ', "Lj"),
    ('ǉ', "lj"),
    ('Ǌ', "NJ"),
    ('ǋ', "Nj"),
    ('ǌ', "nj"),
    ('ﬀ', "ff"),
    ('ﬁ', "fi"),
    ('ﬂ', "fl"),
    ('ﬃ', "ffi"),
    ('ﬄ', "ffl"),
    ('ﬅ', "ſt"),
    ('ﬆ', "st"),
];

/// The colours and other commands that terminals obey.
static TERMINAL_ESCAPE: LazyLock<Regex> = LazyLock::new(|| regex(r"\x1b\[(?:\d|;)*[a-zA-Z]"));

/// Replaces ligatures by their letters.
pub(super) fn break_ligatures(text: &str) -> String {
    let mut broken = String::with_capacity(text.len());
    for c in text.chars() {
        match LIGATURES.iter().find(|(ligature, _)| *ligature == c) {
            Some((_, letters)) => broken.push_str(letters),
            None => broken.push(c),
        }
    }
    broken
}

/// Replaces full-width and half-width forms by the usual ones.
pub(super) fn fix_widths(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{3000}' => fixed.push(' '),
            // The halfwidth and fullwidth forms.
            '\u{ff01}'..='\u{ffef}' => {
                fixed.push_str(NormalizedString::from(c.to_string()).nfkc().get());
            }
            _ => fixed.push(c),
        }
    }
    fixed
}

/// Replaces curly quotation marks by straight ones.
pub(super) fn straighten_quotes(text: &str) -> String {
    let straight = |c| match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => c,
    };
    text.chars().map(straight).collect()
}

/// Replaces every kind of line break by `\n`.
pub(super) fn fix_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Removes the commands of terminals.
pub(super) fn remove_terminal_escapes(text: &str) -> String {
    TERMINAL_ESCAPE.replace_all(text, "").into_owned()
}

/// Removes control characters and the byte order mark, but not those that mojibake contains, join emoji or mark the
/// direction of a script.
pub(super) fn remove_control_characters(text: &str) -> String {
    let is_removed = |c: char| {
        matches!(
            c,
            '\0'..='\u{8}'
                | '\u{b}'
                | '\u{e}'..='\u{1f}'
                | '\u{7f}'
                | '\u{206a}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffc}'
        )
    };
    text.chars().filter(|c| !is_removed(*c)).collect()
}
