//! `sample_size` of a network's configuration.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value as Json;

use super::BundleError;

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

impl fmt::Display for SampleSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Square(side) => write!(f, "{side}"),
            Self::Rectangle([height, width]) => write!(f, "[{height}, {width}]"),
        }
    }
}

/// A whole number from 1 to [`MAX_SIDE`], which may be written with a fraction of 0.
fn side(value: &Json) -> Option<usize> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 1.0)?;
    (number <= MAX_SIDE as f64).then_some(number as usize)
}

/// Checks the channels, or another number of this size, of a configuration.
pub(super) fn check_channels(path: &Path, key: &str, channels: Option<usize>) -> Result<(), BundleError> {
    match channels {
        Some(n) if !(1..=MAX_SIDE).contains(&n) => {
            let fault = format!("{key} is {n}, but must be a whole number from 1 to {MAX_SIDE}");
            Err(BundleError::Content { path: path.to_owned(), fault })
        }
        _ => Ok(()),
    }
}

/// The most values of one sample.
const MAX_VALUES: usize = 1 << 31;

/// Checks that a sample with these axes, which a graph may fix, can be held in memory.
pub(super) fn check_sample(graph: &Path, axes: &[usize]) -> Result<(), BundleError> {
    let values = axes.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    if values.is_some_and(|values| values <= MAX_VALUES) {
        return Ok(());
    }
    let fault = format!("its sample has the axes {axes:?}, more values than {MAX_VALUES}; export it again");
    Err(BundleError::Content { path: graph.to_owned(), fault })
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
    fn numbers_whose_product_overflows_are_refused() {
        let path = Path::new("unet/config.json");
        assert!(check_channels(path, "in_channels", Some(9)).is_ok());
        let error = check_channels(path, "in_channels", Some(1 << 62)).unwrap_err().to_string();
        assert!(error.starts_with("unet/config.json: in_channels is 4611686018427387904, but"), "{error}");
        assert!(check_sample(path, &[4, 1024, 1024]).is_ok());
        for axes in [&[4, 1 << 40, 1 << 40][..], &[1 << 16, 1 << 16], &[usize::MAX, 2]] {
            assert!(check_sample(path, axes).is_err(), "{axes:?}");
        }
    }

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
