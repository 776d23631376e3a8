//! Says which value of a JSON file has the wrong type, and what to do.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::large_integers::with_digits;
use super::value::shortened;
use crate::serde_message::{DocumentFormat, without_rust_types};

/// The longest string of a file that a message quotes, in characters.
const MAX_QUOTED: usize = 40;

/// Returns what is wrong with the value at a path in a JSON text, from serde's message about it.
pub(crate) fn type_fault(path: &Path, message: &str, text: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or_default();
    let plain = without_rust_types(message, DocumentFormat::Json);
    // "." is the whole file.
    let key = Some(path.to_string()).filter(|key| key != ".");
    let is_of_type = plain.starts_with("invalid type: ") || plain.starts_with("invalid value: ");
    let expected = plain.rsplit_once(", expected ").map(|(_, expected)| expected).filter(|_| is_of_type);
    let document: Option<Value> = serde_json::from_str(text).ok();
    let value = document.as_ref().and_then(|document| value_at(document, path));
    let fault = match (expected, value) {
        (Some(expected), Some(value)) => {
            let subject = key.as_deref().unwrap_or("the file");
            let advice = advice(value, expected);
            format!("{subject} is {}, but must be {expected}{advice}", described(value))
        }
        _ => format!("{}{plain}", key.map_or_else(String::new, |key| format!("{key}: "))),
    };
    with_digits(&fault, text)
}

fn value_at<'a>(document: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// A value as it is written, or its type if it has parts.
fn described(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", shortened(text, MAX_QUOTED)),
        other => other.to_string(),
    }
}

/// What to do about a value in quotes, or without them.
fn advice(value: &Value, expected: &str) -> &'static str {
    let is_number_expected = expected.contains("number") || expected.contains("integer");
    match value {
        Value::String(text) if is_number_expected && text.trim().parse::<f64>().is_ok() => {
            ": remove the quotes"
        }
        Value::String(text) if expected == "true or false" => match text.to_ascii_lowercase().as_str() {
            "true" => ": write true without quotes",
            "false" => ": write false without quotes",
            _ => "",
        },
        Value::Number(_) | Value::Bool(_) if expected == "a string" => ": put it in double quotes",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Config {
        factor: Option<f32>,
        channels: Option<Vec<usize>>,
        bias: Option<bool>,
        name: Option<String>,
    }

    /// It was `factor: invalid type: string "0.18215", expected a number`.
    #[test]
    fn a_number_in_quotes_had_the_message_of_serde() {
        for (text, expected) in [
            (r#"{"factor": "0.18215"}"#, "factor is \"0.18215\", but must be a number: remove the quotes"),
            (r#"{"factor": "half"}"#, "factor is \"half\", but must be a number"),
            (
                r#"{"channels": [1, "2"]}"#,
                "channels[1] is \"2\", but must be an integer, 0 or more: remove the quotes",
            ),
            (r#"{"channels": [-1]}"#, "channels[0] is -1, but must be an integer, 0 or more"),
            (r#"{"channels": {"a": 1}}"#, "channels is an object, but must be an array"),
            (r#"{"bias": "True"}"#, "bias is \"True\", but must be true or false: write true without quotes"),
            (r#"{"name": 5}"#, "name is 5, but must be a string: put it in double quotes"),
            ("5", "the file is 5, but must be an object"),
        ] {
            let mut json = serde_json::Deserializer::from_str(text);
            let error = serde_path_to_error::deserialize::<_, Config>(&mut json).unwrap_err();
            assert_eq!(type_fault(error.path(), &error.inner().to_string(), text), expected, "{text}");
        }
    }
}
