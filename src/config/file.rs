//! Finds all errors of a configuration file, each with its line and key.

use std::path::Path;

use serde_path_to_error::{Path as KeyPath, Segment};
use toml::{Table, Value};

use super::Config;
use super::known_keys::{Meant, meant_by};
use super::layers::{ConfigFault, deserialize, whole_floats_to_integers};
use crate::serde_message::{DocumentFormat, without_rust_types};
use crate::toml_document::{Fault, SyntaxFault, array_for_section, huge_integers, syntax_fault};

/// Collects all errors of a file, and returns what is valid.
pub(super) fn check_file(path: &Path, text: &str, faults: &mut Vec<ConfigFault>) -> Table {
    let location = |line: usize| format!("{}:{line}", path.display());
    let at = |fault: Fault| ConfigFault {
        location: location(find_line(text, &fault.keys)),
        key: fault.keys.join("."),
        message: fault.message,
    };
    let mut table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let found = faults.len();
            faults.extend(huge_integers(text).into_iter().map(at));
            if faults.len() == found {
                faults.push(not_toml(path, text, &error));
            }
            return Table::new();
        }
    };
    while let Some(fault) = array_for_section::<Config>(&table) {
        remove(&mut table, &fault.keys);
        faults.push(at(fault));
    }
    whole_floats_to_integers(&mut table);
    while let Err(error) = deserialize(&table) {
        let keys = keys(error.path());
        faults.push(ConfigFault {
            location: location(find_line(text, &keys)),
            key: error.path().to_string(),
            message: message(error.inner().message(), value_at(&table, error.path())) + &meant(&keys, &error),
        });
        if !remove(&mut table, &keys) {
            break;
        }
    }
    table
}

/// Returns the fault of a text that is not TOML.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigFault {
    let SyntaxFault { line, column, message } = syntax_fault(text, error);
    ConfigFault { location: format!("{}:{line}:{column}", path.display()), key: String::new(), message }
}

/// Returns which key was meant by one of several that a section does not have.
fn meant(keys: &[String], error: &serde_path_to_error::Error<toml::de::Error>) -> String {
    let message = error.inner().message();
    let is_unclear = message.starts_with("unknown field") && message.contains("expected one of");
    match meant_by(keys).filter(|_| is_unclear) {
        Some(Meant::Key(key)) => format!("; did you mean {}?", key.join(".")),
        _ => String::new(),
    }
}

/// Returns serde's message in TOML's words. For a key that takes one of several words, serde does not say which value of
/// another type it found.
fn message(serde: &str, value: Option<&Value>) -> String {
    let is_not_a_word =
        serde.starts_with("invalid type: unit variant") || serde.starts_with("wanted exactly 1 element");
    let found = match value {
        Some(Value::Integer(number)) => format!("integer `{number}`"),
        Some(Value::Float(number)) => format!("float `{number}`"),
        Some(Value::Boolean(value)) => format!("boolean `{value}`"),
        Some(Value::Datetime(time)) => format!("time `{time}`"),
        Some(Value::Array(_)) => "array".to_owned(),
        Some(Value::Table(_)) => "table".to_owned(),
        Some(Value::String(_)) | None => return without_rust_types(serde, DocumentFormat::Toml),
    };
    if is_not_a_word {
        format!("invalid type: {found}, expected a string")
    } else {
        without_rust_types(serde, DocumentFormat::Toml)
    }
}

/// Returns the value at which an error was found.
fn value_at<'a>(table: &'a Table, path: &KeyPath) -> Option<&'a Value> {
    let mut segments = path.iter();
    let Segment::Map { key } = segments.next()? else { return None };
    segments.try_fold(table.get(key)?, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        // A word that is no string.
        _ => Some(value),
    })
}

/// The table keys that lead to an error, up to the first list.
fn keys(path: &KeyPath) -> Vec<String> {
    path.iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        })
        .collect()
}

fn remove(table: &mut Table, keys: &[String]) -> bool {
    match keys {
        [] => false,
        [last] => table.remove(last).is_some(),
        [first, rest @ ..] => match table.get_mut(first) {
            Some(Value::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// Returns the line of a key, from 1, or the line of its nearest ancestor that is found.
pub(super) fn find_line(text: &str, keys: &[String]) -> usize {
    let Ok(document) = toml::de::DeTable::parse(text) else {
        return 1;
    };
    let mut table = document.get_ref();
    let mut offset = 0;
    for key in keys {
        let Some((found, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        offset = found.span().start;
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    line_of(text, offset)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_one_of_the_words_was_not_shown() {
        for (text, expected) in [
            ("[engine]\nkind = 3", "c.toml:2: engine.kind: invalid type: integer `3`, expected a string"),
            ("[engine]\nkind = []", "c.toml:2: engine.kind: invalid type: array, expected a string"),
            ("[engine]\nkind = {}", "c.toml:2: engine.kind: invalid type: table, expected a string"),
            (
                "[engine]\nkind = { a = 1, b = 2 }",
                "c.toml:2: engine.kind: invalid type: table, expected a string",
            ),
            (
                "[engine]\nproviders = [true]",
                "c.toml:2: engine.providers[0]: invalid type: boolean `true`, expected a string",
            ),
        ] {
            let mut faults = Vec::new();
            check_file(Path::new("c.toml"), text, &mut faults);
            assert_eq!(faults.iter().map(ConfigFault::to_string).collect::<Vec<_>>(), [expected]);
        }
    }
}
