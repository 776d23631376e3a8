//! ftfy's patterns of mojibake.
//!
//! A text is suspicious if it has a sequence of characters that is much more likely to be mojibake than to be meant, such
//! as an accented lower-case letter before a currency sign.

use std::sync::LazyLock;

use regex::{Regex, bytes};

// The characters that occur in mojibake, as parts of a character class.

const COMMON: &str = "\u{a0}\u{ad}·´–—―…’";
const C1: &str = "\u{80}-\u{9f}";
const BAD: &str = "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊�ªº";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
const START_PUNCTUATION: &str = "¡«¿©΄΅‘‚“„•‹\u{f8ff}";
const END_PUNCTUATION: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";

/// Characters that are the first of two, three or four bytes of UTF-8 in another encoding.
const UTF8_FIRST_OF_2: &str = "ĂÂÄĀÅÃÆĆČÇĎĐÉĚÊËĖÈĒĘÐĞĢÍÎÏİÌĪĶĹĻŁŃŇŅÑÓÔÖŐÒŌØÕŘŚŠŞŢÞÚÛÜŰÙŪŲŮÝŹŽŻß×ΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫάέήίВГ\
    ДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ";
const UTF8_FIRST_OF_3: &str = "áăâäàāąåãæćčçďéěêëėèēęęģíîïìīįķĺļŕźΰαβγδεζηθικλμνξοабвгдежзийклмноп";
const UTF8_FIRST_OF_4: &str = "đðğóšπσру";
/// Characters that are later bytes of UTF-8 in another encoding, with the space in place of the no-break space.
const UTF8_CONTINUATION: &str = "\u{80}-¿ ĄÆĽŁØŖŚŠŞŤŸŹŽŻŒąæƒľłøŗśšşťźžżœˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁЂЃЄЅІЇЈЉЊЋЌЎЏёђѓєѕіїјљњћќўџҐґ–—―‘’‚“”„†‡•\
    …‰‹›€№™";
/// The ones among them that are rarely correct next to mojibake.
const UTF8_CONTINUATION_STRICT: &str =
    "\u{80}-¿ĄÆĽŁØŖŚŠŞŤŸŹŽŻŒąæƒľłøŗśšşťźžżœˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁЂЃЄЅІЇЈЉЊЋЌЎЏёђѓєѕіїјљњћќўџҐґ†‡‰‹›€№™";

/// Sequences that hardly occur in text that was read correctly.
static SUSPICIOUS: LazyLock<Regex> = LazyLock::new(|| {
    let accented = format!("{LOWER_ACCENTED}{UPPER_ACCENTED}");
    let punctuation = format!("{START_PUNCTUATION}{END_PUNCTUATION}");
    let beside_bad = format!("{accented}{BOX}{punctuation}{CURRENCY}{NUMERIC}{LAW}");
    let arabic = format!("[ØÙ][{COMMON}{CURRENCY}{BAD}{NUMERIC}{START_PUNCTUATION}ŸŠ®°µ»]");
    let between_capitals = format!("{C1}{BAD}{punctuation}{CURRENCY}");
    let alternatives = [
        format!("[{C1}]"),
        format!("[{BAD}{beside_bad}][{BAD}]"),
        format!("[a-zA-Z][{LOWER_COMMON}{UPPER_COMMON}][{BAD}]"),
        format!("[{BAD}][{beside_bad}]"),
        format!(
            "[{LOWER_ACCENTED}{LOWER_COMMON}{BOX}{END_PUNCTUATION}{CURRENCY}{NUMERIC}][{UPPER_ACCENTED}]"
        ),
        format!("[{BOX}{END_PUNCTUATION}{CURRENCY}{NUMERIC}][{LOWER_ACCENTED}]"),
        format!("[{LOWER_ACCENTED}{BOX}{END_PUNCTUATION}][{CURRENCY}]"),
        // Python's \s has the separators 0x1c to 0x1f.
        format!(r"[\s\x1c-\x1f][{UPPER_ACCENTED}][{CURRENCY}]"),
        format!("[{UPPER_ACCENTED}{BOX}][{NUMERIC}{LAW}]"),
        format!("[{accented}{BOX}{CURRENCY}{END_PUNCTUATION}][{START_PUNCTUATION}][{NUMERIC}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{BOX}{LAW}][{END_PUNCTUATION}][{START_PUNCTUATION}]"),
        format!("[{CURRENCY}{NUMERIC}{BOX}][{START_PUNCTUATION}]"),
        format!("[a-z][{UPPER_ACCENTED}][{START_PUNCTUATION}{CURRENCY}]"),
        format!("[{BOX}][{KAOMOJI}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{punctuation}{LAW}][{BOX}]"),
        format!("[{BOX}][{END_PUNCTUATION}]"),
        // Python's \w has no combining marks.
        format!(r"[{accented}][{punctuation}][\p{{L}}\p{{N}}_]"),
        "[Œœ][^A-Za-z]".to_owned(),
        format!("[{UPPER_ACCENTED}]°"),
        // Two characters of windows-1252 that the rules above lack.
        format!("[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{punctuation}–—´]"),
        "×[²³]".to_owned(),
        format!("{arabic}{arabic}"),
        // South Asian scripts.
        "à[²µ¹¼½¾]".to_owned(),
        // MacRoman.
        "√[±∂†≠®™´≤≥¥µø]".to_owned(),
        "≈[°¢]".to_owned(),
        "‚Ä[ìîïòôúùû†°¢π]".to_owned(),
        "‚[âó][àä°ê]".to_owned(),
        // Windows-1251.
        "вЂ".to_owned(),
        format!("[ВГРС][{between_capitals}°µ][ВГРС]"),
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        // à, á and the no-break space in windows-1252.
        "Ã[\u{a0}¡]".to_owned(),
        r"[a-z][\s\x1c-\x1f]?[ÃÂ] ".to_owned(),
        "^[ÃÂ] ".to_owned(),
        format!("[a-z.,?!{END_PUNCTUATION}]Â[ {punctuation}]"),
        // Windows-1253.
        "β€[™\u{a0}Ά\u{ad}®°]".to_owned(),
        format!("[ΒΓΞΟ][{between_capitals}°][ΒΓΞΟ]"),
        // Windows-1257.
        "ā€".to_owned(),
    ];
    regex(&alternatives.join("|"))
});

/// Sequences that look like UTF-8 in another encoding, at the start of a text.
static UTF8_SEQUENCES: LazyLock<Regex> = LazyLock::new(|| {
    let sequence = |first: &str, later: usize| format!("[{first}][{UTF8_CONTINUATION}]{{{later}}}");
    let [two, three, four] =
        [sequence(UTF8_FIRST_OF_2, 1), sequence(UTF8_FIRST_OF_3, 2), sequence(UTF8_FIRST_OF_4, 3)];
    regex(&format!("^(?:{two}|{three}|{four})+"))
});

static STRICT_CONTINUATION: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!("^[{UTF8_CONTINUATION_STRICT}]$")));

/// UTF-8 in which a byte 0xa0 became a space.
pub(super) static UTF8_WITH_SPACES: LazyLock<bytes::Regex> = LazyLock::new(|| {
    byte_regex(&[
        r"[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
        r"[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
        r"[\xf0][ ][\x80-\xbf][\x80-\xbf]",
        r"[\xf0][\x80-\xbf][ ][\x80-\xbf]",
        r"[\xf0][\x80-\xbf][\x80-\xbf][ ]",
    ])
});

/// UTF-8 in which bytes became the replacement character, which is byte 0x1a here, or a question mark.
pub(super) static LOSSY_UTF8: LazyLock<bytes::Regex> = LazyLock::new(|| {
    byte_regex(&[
        r"[\xc2-\xdf][\x1a]",
        r"[\xc2-\xc3][?]",
        r"\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"\x1a",
    ])
});

/// Returns whether a text seems to contain mojibake.
pub(super) fn is_suspicious(text: &str) -> bool {
    SUSPICIOUS.is_match(text)
}

/// Splits a text into parts that look like UTF-8 in another encoding, and the rest: the parts with `true`, in order.
pub(super) fn split_at_utf8_sequences(text: &str) -> Vec<(&str, bool)> {
    let mut parts = Vec::new();
    let (mut start, mut position) = (0, 0);
    let mut after_continuation = false;
    while let Some(c) = text[position..].chars().next() {
        // After a continuation, only a part of the garbled characters would be found.
        let found = if after_continuation { None } else { UTF8_SEQUENCES.find(&text[position..]) };
        let length = match found {
            Some(found) => {
                parts.push((&text[start..position], false));
                parts.push((found.as_str(), true));
                start = position + found.len();
                found.len()
            }
            None => c.len_utf8(),
        };
        position += length;
        after_continuation = text[..position].chars().next_back().is_some_and(is_strict_continuation);
    }
    parts.push((&text[start..], false));
    parts
}

fn is_strict_continuation(c: char) -> bool {
    !c.is_ascii() && STRICT_CONTINUATION.is_match(c.encode_utf8(&mut [0; 4]))
}

#[expect(clippy::expect_used, reason = "the patterns are constants, which the tests compile")]
pub(super) fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is valid")
}

#[expect(clippy::expect_used, reason = "the patterns are constants, which the tests compile")]
fn byte_regex(alternatives: &[&str]) -> bytes::Regex {
    bytes::RegexBuilder::new(&alternatives.join("|")).unicode(false).build().expect("the pattern is valid")
}
