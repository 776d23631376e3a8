//! Numbers with their units: bounded numbers and byte sizes in a configuration, and counts in a message.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Bounded<const MIN: u64, const MAX: u64>(pub u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = i64::deserialize(deserializer)?;
        match u64::try_from(n) {
            Ok(n) if (MIN..=MAX).contains(&n) => Ok(Self(n)),
            _ => Err(D::Error::custom(format!("{n} must lie between {MIN} and {MAX}"))),
        }
    }
}

/// A number of bytes, written as a whole number or as a text such as "256 MiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` times 2²⁰ bytes.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_size = || format!("{text:?} is not a size; write one such as \"512 MiB\"");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let number: u64 = digits.trim().parse().map_err(|_| no_size())?;
        let unit: u64 = match text[digits.len()..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            other => {
                return Err(format!(
                    "{other:?} in {text:?} is not a unit; use B, KiB, MiB, GiB, kB, MB or GB, as in \"512 MiB\""
                ));
            }
        };
        match number.checked_mul(unit) {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(format!("{text:?} must be more than 0 and less than 2^64 bytes")),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"256 MiB\" or a number of bytes")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<ByteSize, E> {
                match u64::try_from(n) {
                    Ok(n) if n > 0 => Ok(ByteSize(n)),
                    _ => Err(E::invalid_value(Unexpected::Signed(n), &self)),
                }
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Size)
    }
}

/// A count with its noun, which takes an `s` unless the count is 1.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The multiples of `step` below and above a length, as in "496 or 504". 0 is none of them.
pub(crate) fn nearest_multiples(length: usize, step: usize) -> String {
    let below = length / step * step;
    match (below, below.checked_add(step)) {
        (0, _) => step.to_string(),
        (below, Some(above)) => format!("{below} or {above}"),
        (below, None) => below.to_string(),
    }
}

/// A number of bytes as a message has it: in GiB with one digit, or in the largest unit below of which it has a whole one.
pub(crate) fn binary_size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        0..0x400 => counted(bytes, "byte"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..GIB => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_a_fitting_unit() {
        let sizes = [(1 << 30) - 1, 1 << 30, 5 << 29].map(binary_size);
        assert_eq!(sizes, ["1023 MiB", "1.0 GiB", "2.5 GiB"]);
    }

    #[test]
    fn a_size_below_one_mebibyte_was_shown_as_0() {
        let sizes = [0, 1, 1023, 1024, (1 << 20) - 1, 1 << 20].map(binary_size);
        assert_eq!(sizes, ["0 bytes", "1 byte", "1023 bytes", "1 KiB", "1023 KiB", "1 MiB"]);
    }

    #[test]
    fn a_noun_agrees_with_its_count() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "job")), ["0 jobs", "1 job", "2 jobs"]);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("5 kB", 5000), ("256 MiB", 256 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "0", "MiB", "1 MB/s", "-5", "99999999999 GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    /// The message was `"abc" is not a unit`.
    #[test]
    fn a_text_without_a_number_was_called_a_unit() {
        for (text, message) in [
            ("abc", r#""abc" is not a size; write one such as "512 MiB""#),
            ("", r#""" is not a size; write one such as "512 MiB""#),
            ("MiB", r#""MiB" is not a size; write one such as "512 MiB""#),
            ("1.5 GiB", r#""1.5 GiB" is not a size; write one such as "512 MiB""#),
            (
                "512 megs",
                r#""megs" in "512 megs" is not a unit; use B, KiB, MiB, GiB, kB, MB or GB, as in "512 MiB""#,
            ),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(message.to_owned()));
        }
    }
}
