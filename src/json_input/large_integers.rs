//! Integers beyond 64 bits, which serde_json rounds to floats.

use super::value::Json;

/// The magnitude from which serde_json reads an integer as a float: that of the smallest i64.
const MIN_ROUNDED: f64 = (1_u64 << 63) as f64;

/// Restores the digits of integers beyond 64 bits. `text` is the JSON text of `value`; more may follow it.
pub(super) fn restore_digits(value: &mut Json, text: &str) {
    restore(value, &mut Numbers(text));
}

/// Replaces the rounded forms of integers beyond 64 bits in a message about a JSON text by their digits.
pub(super) fn with_digits(message: &str, text: &str) -> String {
    let mut message = message.to_owned();
    for digits in Numbers(text).filter(|number| !number.contains(['.', 'e', 'E'])) {
        let Some(rounded) = digits.parse::<f64>().ok().filter(|number| number.abs() >= MIN_ROUNDED) else {
            continue;
        };
        let scientific = format!("{rounded:e}");
        // As serde, Rust and serde_json write it.
        for form in [format!("{rounded}.0"), format!("{rounded}"), scientific.replace('e', "e+"), scientific]
        {
            message = message.replace(&form, digits);
        }
    }
    message
}

fn restore(value: &mut Json, numbers: &mut Numbers<'_>) {
    match value {
        Json::Integer(_) => {
            numbers.next();
        }
        Json::Float(number) => {
            let written = numbers.next();
            let is_rounded = number.abs() >= MIN_ROUNDED;
            if let Some(digits) = written.filter(|text| is_rounded && !text.contains(['.', 'e', 'E'])) {
                *value = Json::LargeInteger(digits.to_owned());
            }
        }
        Json::Array(array) => array.iter_mut().for_each(|element| restore(element, numbers)),
        Json::Object(object) => {
            object.iter_mut().for_each(|(_, value)| restore(value, numbers));
        }
        Json::Null | Json::Bool(_) | Json::String(_) | Json::LargeInteger(_) => {}
    }
}

/// The numbers of a JSON text, as they are written, in their order.
struct Numbers<'a>(&'a str);

impl<'a> Iterator for Numbers<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let start = self.0.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            let token = &self.0[start..];
            if let Some(string) = token.strip_prefix('"') {
                self.0 = after_string(string);
                continue;
            }
            let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            let end = token.find(|c| !is_part(c)).unwrap_or(token.len());
            let (number, rest) = token.split_at(end);
            self.0 = rest;
            return Some(number);
        }
    }
}

/// The text after the quote that ends a string.
fn after_string(text: &str) -> &str {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or("", |end| &text[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_that_are_rounded_keep_their_digits() {
        let text =
            r#"{"1\"2": [-0, 7, 1e300, 18446744073709551616], "3": {"x": -9223372036854775809}, "y": 1e2}"#;
        let mut value: Json = serde_json::from_str(text).unwrap();
        restore_digits(&mut value, text);
        let large = |digits: &str| Json::LargeInteger(digits.to_owned());
        let array =
            vec![Json::Float(-0.0), Json::Integer(7), Json::Float(1e300), large("18446744073709551616")];
        let object = vec![("x".to_owned(), large("-9223372036854775809"))];
        assert_eq!(
            value,
            Json::Object(vec![
                ("1\"2".to_owned(), Json::Array(array)),
                ("3".to_owned(), Json::Object(object)),
                ("y".to_owned(), Json::Float(100.0)),
            ])
        );
    }

    #[test]
    fn a_message_about_a_rounded_integer_has_its_digits() {
        let text = r#"{"a": [1, 18446744073709551617], "b": -9223372036854775809, "c": 7}"#;
        for (message, expected) in [
            (
                "number `18446744073709552000.0`, expected a string",
                "number `18446744073709551617`, expected a string",
            ),
            ("it is [1,1.8446744073709552e19]", "it is [1,18446744073709551617]"),
            ("it is 1.8446744073709552e+19", "it is 18446744073709551617"),
            ("it is -9.223372036854776e18", "it is -9223372036854775809"),
            ("it is 7", "it is 7"),
        ] {
            assert_eq!(with_digits(message, text), expected);
        }
    }
}
