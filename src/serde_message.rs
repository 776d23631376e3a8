//! Error messages of serde without the names of Rust types.

/// The format of the document that serde read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentFormat {
    Json,
    Toml,
}

/// Rust's type names in serde's messages, and their meaning in JSON and in TOML.
const TYPES: [(&str, &str, &str); 15] = [
    ("u64", "an integer, 0 or more", "a whole number, 0 or more"),
    ("u32", "an integer, 0 or more", "a whole number, 0 or more"),
    ("u16", "an integer, 0 or more", "a whole number, 0 or more"),
    ("usize", "an integer, 0 or more", "a whole number, 0 or more"),
    ("i64", "an integer", "a whole number"),
    ("i32", "an integer", "a whole number"),
    ("f64", "a number", "a number"),
    ("f32", "a number", "a number"),
    ("a boolean", "true or false", "a boolean"),
    ("a sequence", "an array", "an array"),
    ("a map", "an object", "a table of keys and values"),
    ("map", "an object", "a table of keys and values"),
    ("path string", "a path", "a path"),
    ("a newtype struct", "a value", "a value"),
    ("unit", "null", "nothing"),
];

/// Words of serde's data model in its messages, and TOML's words.
const TOML_WORDS: [(&str, &str); 5] = [
    ("invalid type: unit variant, expected string only", "invalid type, expected a string"),
    ("unknown variant ", "unknown value "),
    (": map,", ": table,"),
    (": sequence,", ": array,"),
    (": floating point ", ": float "),
];

/// Words of serde's data model in its messages, and JSON's words.
const JSON_WORDS: [(&str, &str); 5] = [
    ("unknown variant ", "unknown value "),
    (": map,", ": object,"),
    (": sequence,", ": array,"),
    (": floating point ", ": number "),
    (": unit value,", ": null,"),
];

/// Returns what serde expected, in the words of the format.
pub(crate) fn plain_type(expected: &str, format: DocumentFormat) -> &str {
    let name = if expected.starts_with("struct ") { "map" } else { expected };
    match (TYPES.iter().find(|(rust, ..)| *rust == name), format) {
        (Some((_, json, _)), DocumentFormat::Json) => json,
        (Some((_, _, toml)), DocumentFormat::Toml) => toml,
        (None, _) => expected,
    }
}

/// Replaces the names of Rust's types and of serde's data model. The message may follow an excerpt of the document,
/// which stays as it is.
pub(crate) fn without_rust_types(message: &str, format: DocumentFormat) -> String {
    let start = message.rfind('\n').map_or(0, |end| end + 1);
    let (excerpt, message) = message.split_at(start);
    let plain = plain_expected(message, format);
    let words = match format {
        DocumentFormat::Json => &JSON_WORDS,
        DocumentFormat::Toml => &TOML_WORDS,
    };
    let plain = words.iter().fold(plain, |text, (serde, plain)| text.replacen(serde, plain, 1));
    format!("{excerpt}{plain}")
}

/// Replaces the name of a Rust type after the last `expected `, if there is one.
fn plain_expected(message: &str, format: DocumentFormat) -> String {
    let Some((before, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let end = expected.find(" at line ").unwrap_or(expected.len());
    let (expected, place) = expected.split_at(end);
    format!("{before}expected {}{place}", plain_type(expected, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_file_has_no_rust_types_below_its_excerpt() {
        let error =
            toml::from_str::<std::collections::BTreeMap<String, usize>>("steps = \"ten\"").unwrap_err();
        let plain = without_rust_types(error.to_string().trim_end(), DocumentFormat::Toml);
        assert!(plain.ends_with("string \"ten\", expected a whole number, 0 or more"), "{plain}");
        // The words of the excerpt are the user's.
        let text = "1 | kind = \"unknown variant : map,\"\n  |\nunknown variant `a`, expected `b`";
        let expected = "1 | kind = \"unknown variant : map,\"\n  |\nunknown value `a`, expected `b`";
        assert_eq!(without_rust_types(text, DocumentFormat::Toml), expected);
    }

    #[test]
    fn rust_types_are_replaced_and_other_messages_stay() {
        for (message, plain) in [
            (
                "invalid type: string \"ten\", expected u64 at line 1 column 9",
                "invalid type: string \"ten\", expected a whole number, 0 or more at line 1 column 9",
            ),
            (
                "invalid type: integer `3`, expected struct Request",
                "invalid type: integer `3`, expected a table of keys and values",
            ),
            ("unknown field `x`, expected `y` or `z`", "unknown field `x`, expected `y` or `z`"),
            (
                "invalid length 3, expected an array of length 2",
                "invalid length 3, expected an array of length 2",
            ),
            ("EOF while parsing", "EOF while parsing"),
        ] {
            assert_eq!(without_rust_types(message, DocumentFormat::Toml), plain);
        }
        for (message, plain) in [
            ("unknown variant `x`, expected `a` or `b`", "unknown value `x`, expected `a` or `b`"),
            ("invalid type: map, expected a sequence", "invalid type: table, expected an array"),
            ("invalid type: sequence, expected f64", "invalid type: array, expected a number"),
            (
                "invalid type: floating point `1.5`, expected i64",
                "invalid type: float `1.5`, expected a whole number",
            ),
        ] {
            assert_eq!(without_rust_types(message, DocumentFormat::Toml), plain);
        }
        for (message, plain) in [
            ("invalid type: sequence, expected a map", "invalid type: array, expected an object"),
            ("invalid type: map, expected a sequence", "invalid type: object, expected an array"),
            (
                "invalid type: floating point `1.5`, expected i64",
                "invalid type: number `1.5`, expected an integer",
            ),
        ] {
            assert_eq!(without_rust_types(message, DocumentFormat::Json), plain);
        }
        for message in ["expected a map", "expected map", "expected struct Request"] {
            assert_eq!(without_rust_types(message, DocumentFormat::Json), "expected an object");
        }
    }
}
