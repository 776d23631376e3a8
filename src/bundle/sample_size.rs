//! `sample_size` of a network's configuration.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value as Json;

/// One side of a square, or height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleSize {
    Square(usize),
    Rectangle([usize; 2]),
}

/// A longer side than any network takes. Products of two sides and the channels stay far below an overflow.
const MAX_SIDE: usize = 1 << 16;

impl SampleSize {
    /// Height and width.
    pub(super) fn height_and_width(self) -> (usize, usize) {
        match self {
            Self::Square(n) => (n, n),
            Self::Rectangle([height, width]) => (height, width),
        }
    }

    fn from_json(value: &Json) -> Option<Self> {
        match value {
            Json::Array(sides) => match sides.as_slice() {
                [height, width] => Some(Self::Rectangle([side(height)?, side(width)?])),
                _ => None,
            },
            value => side(value).map(Self::Square),
        }
    }
}

/// A whole number from 1 to [`MAX_SIDE`], which may be written with a fraction of 0.
fn side(value: &Json) -> Option<usize> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 1.0)?;
    (number <= MAX_SIDE as f64).then_some(number as usize)
}

impl<'de> Deserialize<'de> for SampleSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Json::deserialize(deserializer)?;
        Self::from_json(&value).ok_or_else(|| {
            D::Error::custom(format!(
                "it is {value}, but must be a whole number from 1 to {MAX_SIDE}, or a height and a width such as [32, 48]"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_size_that_no_network_has_is_an_error_in_plain_words() {
        for (text, expected) in [
            ("64", Some(SampleSize::Square(64))),
            ("64.0", Some(SampleSize::Square(64))),
            ("[16, 24.0]", Some(SampleSize::Rectangle([16, 24]))),
            ("1099511627776", None),
            ("[16, 1e30]", None),
            ("0", None),
            ("-1", None),
            ("3.7", None),
            ("\"x\"", None),
            ("[1, 2, 3]", None),
            ("true", None),
        ] {
            let found = serde_json::from_str::<SampleSize>(text);
            match expected {
                Some(expected) => assert_eq!(found.unwrap(), expected),
                None => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(", but must be a whole number from 1 to 65536"), "{error}");
                }
            }
        }
    }
}
