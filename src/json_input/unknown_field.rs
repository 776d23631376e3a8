//! Says that a field is unknown, and which one may be meant.

use super::value::{MAX_SHOWN, shortened};

/// How similar a name must be to be suggested, in thousandths.
const MIN_SIMILARITY: u32 = 800;

/// The message about a field that is none of `expected`. `meant_by` knows what other programs' names mean.
pub(crate) fn unknown_field(
    field: &str,
    expected: &[&'static str],
    meant_by: impl Fn(&str) -> Option<&'static str>,
) -> String {
    // A longer name resembles no field, and the comparison takes time for each of its characters.
    let lower = shortened(field, MAX_SHOWN).to_lowercase();
    let similarity = |known: &&&str| (strsim::jaro_winkler(&lower, known) * 1000.0) as u32;
    let meant = meant_by(&lower).filter(|meant| expected.contains(meant));
    let nearest = meant.or_else(|| {
        expected.iter().max_by_key(similarity).filter(|known| similarity(known) >= MIN_SIMILARITY).copied()
    });
    let hint = nearest.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
    let shown = shortened(field, MAX_SHOWN);
    let shown = shown.escape_debug();
    format!("unknown field `{shown}`{hint} (the fields are: {})", expected.join(", "))
}
