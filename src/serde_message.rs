//! Error messages of serde without the names of Rust types.

/// The format of the document that serde read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentFormat {
    Json,
    Toml,
}

impl DocumentFormat {
    /// The format's word for a map.
    fn map(self) -> &'static str {
        match self {
            Self::Json => "an object",
            Self::Toml => "a table of keys and values",
        }
    }
}

/// Rust's type names in serde's messages, and their meaning in JSON and TOML.
const TYPES: [(&str, &str); 12] = [
    ("u64", "a whole number, 0 or more"),
    ("u32", "a whole number, 0 or more"),
    ("u16", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("i64", "a whole number"),
    ("i32", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a sequence", "a list"),
    ("path string", "a path"),
    ("a newtype struct", "a value"),
    ("unit", "nothing"),
];

/// Replaces the name of a Rust type after the last `expected `, if there is one.
pub(crate) fn without_rust_types(message: &str, format: DocumentFormat) -> String {
    let Some((before, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let end = expected.find(" at line ").unwrap_or(expected.len());
    let (expected, place) = expected.split_at(end);
    let plain = match TYPES.iter().find(|(name, _)| *name == expected) {
        Some((_, plain)) => plain,
        None if matches!(expected, "a map" | "map") || expected.starts_with("struct ") => format.map(),
        None => expected,
    };
    format!("{before}expected {plain}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for message in ["expected a map", "expected map", "expected struct Request"] {
            assert_eq!(without_rust_types(message, DocumentFormat::Json), "expected an object");
        }
    }
}
