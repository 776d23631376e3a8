//! Seeds in JSON: a number, or a string of digits where a client's numbers are too small.
//!
//! Most JSON clients hold numbers as 64-bit floats, which round integers from 2^53 on. A new seed is below that, and so
//! are the seeds of all images of its job. A requester may still choose any seed below 2^64.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::json_input::MAX_EXACT_INTEGER;

/// Returns a new seed from random bits. All seeds of the job's images are below 2^53.
pub(crate) fn seed_from_random_bits(bits: u64) -> u64 {
    bits % (MAX_EXACT_INTEGER / 2 + 1)
}

/// Returns the largest seed of a job with `count` images, of which image i has seed + i.
pub(super) fn largest(count: usize) -> u64 {
    u64::MAX - (count as u64).saturating_sub(1)
}

/// Returns the seed as a string, if clients that hold numbers as 64-bit floats would round it.
pub(super) fn to_exact_text(seed: u64) -> Option<String> {
    (seed > MAX_EXACT_INTEGER).then(|| seed.to_string())
}

/// Deserializes an optional seed.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Seed>::deserialize(deserializer)?.map(|Seed(seed)| seed))
}

struct Seed(u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SeedVisitor)
    }
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = Seed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an integer from 0 to {}, as a number or as a string of all of its digits", u64::MAX)
    }

    fn visit_u64<E: Error>(self, seed: u64) -> Result<Seed, E> {
        Ok(Seed(seed))
    }

    fn visit_f64<E: Error>(self, seed: f64) -> Result<Seed, E> {
        if seed.fract() == 0.0 && (0.0..=MAX_EXACT_INTEGER as f64).contains(&seed) {
            return Ok(Seed(seed as u64));
        }
        let is_in_range = seed.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&seed);
        if is_in_range {
            return Err(E::custom(format!(
                "a number with an exponent or a fraction is exact up to {MAX_EXACT_INTEGER} only, and this one is \
                 larger; write all digits of the seed, as a number or as a string"
            )));
        }
        Err(E::invalid_value(Unexpected::Float(seed), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seed, E> {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let seed = text.parse().ok().filter(|_| is_digits);
        seed.map(Seed).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parse;

    #[test]
    fn a_seed_is_a_number_or_a_string_of_digits() {
        for (json, seed) in [
            ("7", 7),
            ("7.0", 7),
            ("-0.0", 0),
            ("1e3", 1000),
            ("16872412031690390026", 16_872_412_031_690_390_026),
            ("\"16872412031690390026\"", 16_872_412_031_690_390_026),
            ("18446744073709551615", u64::MAX),
            ("\"18446744073709551615\"", u64::MAX),
            ("\"0\"", 0),
        ] {
            let request = parse(format!("{{\"seed\": {json}}}").as_bytes()).unwrap();
            assert_eq!(request.seed, Some(seed), "{json}");
            // The spool keeps a request as a JSON value.
            let spooled = serde_json::to_value(&request).unwrap();
            assert_eq!(serde_json::from_value::<crate::job::Request>(spooled).unwrap(), request);
        }
        assert_eq!(parse(b"{\"seed\": null}").unwrap().seed, None);
    }

    #[test]
    fn an_impossible_seed_is_reported_with_the_range() {
        for (json, found) in [
            ("-1", "-1"),
            ("1.5", "1.5"),
            ("18446744073709552000", "18446744073709552000"),
            ("\"18446744073709551616\"", "the string \"18446744073709551616\""),
            ("\"+1\"", "the string \"+1\""),
            ("\"\"", "the string \"\""),
            ("true", "true"),
        ] {
            let (_, error) = parse(format!("{{\"seed\": {json}}}").as_bytes()).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("seed"), "{json}");
            let expected = format!(
                "seed is {found}, but must be an integer from 0 to 18446744073709551615, as a number or as a string of \
                 all of its digits"
            );
            assert_eq!(error.message, expected);
        }
    }

    /// It lies in the range that the message named.
    #[test]
    fn a_float_that_is_not_exact_was_reported_with_a_range_that_it_is_in() {
        for json in ["1e18", "9007199254740992.0", "1.6872412031690390e19"] {
            let (_, error) = parse(format!("{{\"seed\": {json}}}").as_bytes()).unwrap_err();
            assert_eq!(
                error.message,
                "seed: a number with an exponent or a fraction is exact up to 9007199254740991 only, and this one is \
                 larger; write all digits of the seed, as a number or as a string"
            );
        }
    }

    #[test]
    fn the_seed_of_the_last_image_does_not_wrap() {
        assert_eq!(largest(1), u64::MAX);
        assert_eq!(largest(2), u64::MAX - 1);
        assert_eq!(largest(10_000), u64::MAX - 9_999);
    }

    #[test]
    fn seeds_from_random_bits_are_exact_in_a_json_client() {
        for bits in [0, 1, u64::MAX, 1 << 63, (1 << 53) + 1, 0x9e37_79b9_7f4a_7c15] {
            let last_image = seed_from_random_bits(bits) + 100_000;
            assert_eq!(last_image as f64 as u64, last_image);
            assert!(last_image <= MAX_EXACT_INTEGER);
            assert_eq!(to_exact_text(last_image), None);
        }
        assert_eq!(to_exact_text(1 << 53).as_deref(), Some("9007199254740992"));
    }
}
