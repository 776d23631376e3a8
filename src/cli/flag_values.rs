//! Parsers of flags' values, with errors in the words of the errors for requests.

/// Parses a whole number, 0 or more.
pub(super) fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        let is_large = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_large {
            format!("expected a whole number of at most {}", u64::MAX)
        } else {
            "expected a whole number, 0 or more".to_owned()
        }
    })
}

/// Parses a number.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "expected a number".to_owned())
}

/// Parses two whole numbers with a comma between them.
pub(super) fn pair(text: &str) -> Result<[u64; 2], String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| <[u64; 2]>::try_from(numbers).ok());
    numbers.ok_or_else(|| "expected two whole numbers with a comma between them, such as 512,768".to_owned())
}

/// Parses a name and a number, as `NAME=NUMBER`.
pub(super) fn named_number(text: &str) -> Result<(String, f64), String> {
    let parts =
        text.split_once('=').and_then(|(name, value)| Some((name.trim(), number(value.trim()).ok()?)));
    let parts = parts.filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value))
        .ok_or_else(|| "expected a name and a number, such as difficulty=0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_other_text_is_refused_with_what_is_expected() {
        assert_eq!(whole_number("18446744073709551615"), Ok(u64::MAX));
        for text in ["abc", "-1", "1.5", "", "1e3"] {
            assert_eq!(whole_number(text).unwrap_err(), "expected a whole number, 0 or more", "{text}");
        }
        assert_eq!(
            whole_number("18446744073709551616").unwrap_err(),
            "expected a whole number of at most 18446744073709551615"
        );
        assert_eq!(number("-2.5e1"), Ok(-25.0));
        for text in ["nan", "inf", "x", "1,5"] {
            assert_eq!(number(text).unwrap_err(), "expected a number", "{text}");
        }
        assert_eq!(pair("512, 768"), Ok([512, 768]));
        assert!(pair("1").is_err() && pair("1,2,3").is_err() && pair("1,-2").is_err());
        assert_eq!(named_number("mood=0.25"), Ok(("mood".to_owned(), 0.25)));
        assert!(named_number("mood").is_err() && named_number("=1").is_err() && named_number("a=b").is_err());
    }
}
