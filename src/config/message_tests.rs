//! Tests that the errors of values are written in TOML's words.

use super::load;

/// Returns the error of a file; empty if there is none.
fn message(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let message = load(Some(file.path()), []).err().map_or_else(String::new, |error| error.to_string());
    message.replace(&file.path().display().to_string(), "c.toml")
}

#[test]
fn errors_name_the_types_of_toml() {
    for (text, expected) in [
        ("mqtt = 3", "c.toml:1: mqtt: invalid type: integer `3`, expected a table of keys and values"),
        ("node = {}", "c.toml:1: node: invalid type: table, expected a string"),
        ("node = []", "c.toml:1: node: invalid type: array, expected a string"),
        ("node = 1.5", "c.toml:1: node: invalid type: float `1.5`, expected a string"),
        (
            "[limits]\nsteps = 1.5",
            "c.toml:2: limits.steps: invalid type: float `1.5`, expected a whole number",
        ),
        ("[limits]\nsteps = []", "c.toml:2: limits.steps: invalid type: array, expected a whole number"),
        (
            "[engine]\nproviders = \"cpu\"",
            "c.toml:2: engine.providers: invalid type: string \"cpu\", expected an array",
        ),
        ("[spool]\npath = 1", "c.toml:2: spool.path: invalid type: integer `1`, expected a path"),
        (
            "[engine]\nkind = \"fast\"",
            "c.toml:2: engine.kind: unknown value `fast`, expected one of `auto`, `onnxruntime`, `embedded`",
        ),
        ("[log]\nlevle = \"info\"", "c.toml:2: log.levle: unknown field `levle`, expected `level`"),
    ] {
        assert_eq!(message(text), expected);
    }
}

#[test]
fn no_value_of_a_wrong_type_is_reported_with_a_rust_type() {
    let values = ["true", "-1", "1e300", "nan", "\"x\"", "[1]", "[[]]", "{ a = 1 }", "1979-05-27"];
    let rust = [
        "u8",
        "u16",
        "u32",
        "u64",
        "i64",
        "f64",
        "usize",
        "struct ",
        "enum ",
        "variant",
        "sequence",
        "map,",
        "Option",
        "expected unit",
        "newtype",
    ];
    for key in super::known_keys::known_keys() {
        let (last, section) = key.split_last().unwrap();
        let header = if section.is_empty() { String::new() } else { format!("[{}]\n", section.join(".")) };
        for value in values {
            let message = message(&format!("{header}{last} = {value}\n"));
            for word in rust {
                assert!(!message.contains(word), "{message}: {word}");
            }
            assert!(message.is_empty() || message.contains(&key.join(".")), "{message}");
        }
    }
}
