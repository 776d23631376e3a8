//! `ftfy.fix_text` with its default options.

use tokenizers::NormalizedString;

use super::characters::{
    break_ligatures, fix_line_breaks, fix_widths, remove_control_characters, remove_terminal_escapes,
    straighten_quotes,
};
use super::encoding::{fix_c1_controls, fix_encoding};
use super::entities::unescape;

/// How often a line is fixed. Each level of nested entities needs one pass, as does mojibake of mojibake, so that a long
/// line of them would take the square of its length. ftfy has no bound.
pub(super) const MAX_PASSES: usize = 100;

/// Fixes every line of a text on its own.
///
/// HTML entities are replaced up to the first line with a `<`, from which on the text may be HTML.
pub(super) fn fix_text(text: &str) -> String {
    let mut may_be_html = false;
    let lines = text.split_inclusive('\n').map(|line| {
        may_be_html |= line.contains('<');
        fix_line(line, !may_be_html)
    });
    lines.collect()
}

/// Applies all fixes until none of them changes anything, at most [`MAX_PASSES`] times.
fn fix_line(line: &str, unescape_entities: bool) -> String {
    let mut text = line.to_owned();
    for _ in 0..MAX_PASSES {
        let mut fixed = if unescape_entities { unescape(&text) } else { text.clone() };
        for fix in [
            fix_encoding,
            fix_c1_controls,
            break_ligatures,
            fix_widths,
            straighten_quotes,
            fix_line_breaks,
            remove_terminal_escapes,
            remove_control_characters,
            compose,
        ] {
            fixed = fix(&fixed);
        }
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

/// Unicode's normalization form C.
fn compose(text: &str) -> String {
    NormalizedString::from(text).nfc().get().to_owned()
}
