//! Says how to convert a NumPy array of another type, shape or scale to the one that is needed, in one expression.

use crate::npy::Description;

/// The array that is needed.
pub(super) struct Needed<'a> {
    /// The shape without a batch axis: channels, height, width.
    pub(super) shape: &'a [usize],
    /// The smallest and the largest value, with what they mean; `None` where any values are taken.
    pub(super) range: Option<([f32; 2], [&'static str; 2])>,
}

/// How far beyond the range the values of an array may lie: the rounding of floats.
pub(super) const TOLERANCE: f32 = 1e-3;

/// The largest value of pictures in 8 bits.
const MAX_BYTE: f32 = 255.0;
/// A picture in 8 bits has larger values than this one somewhere; one of another scale has not.
const MIN_OF_BYTES: f32 = 32.0;

impl Needed<'_> {
    /// Returns what is wrong with an array of another type or shape, and how to convert it. `None` if both are as needed.
    pub(super) fn fault(&self, found: &Description) -> Option<String> {
        let (dtype, shape) = (found.dtype.as_str(), &found.shape);
        let is_float = dtype == "float32";
        let has_shape = shape == self.shape || shape.split_first() == Some((&1, self.shape));
        let faults = match (is_float, has_shape) {
            (true, true) => return None,
            (true, false) => format!("shape {shape:?}, but {:?} is needed", self.shape),
            (false, true) => format!("dtype {dtype}, but float32 is needed"),
            (false, false) => {
                format!("dtype {dtype} and shape {shape:?}, but float32 and {:?} are needed", self.shape)
            }
        };
        let range = match self.range {
            Some(([low, high], [dark, light])) => {
                format!(", with values from {low} ({dark}) to {high} ({light})")
            }
            None => String::new(),
        };
        let order = if has_shape { None } else { self.order(shape) };
        // Without the axes, the rest is of no use.
        let advice = match (has_shape, &order) {
            (false, None) => String::new(),
            _ => self
                .conversion(found, order)
                .map_or_else(String::new, |text| format!("; convert it with {text}")),
        };
        Some(format!("the array has {faults}{range}{advice}"))
    }

    /// The expression that converts an array, with the one that puts its axes in order; `None` if nothing need be done.
    pub(super) fn conversion(&self, found: &Description, order: Option<String>) -> Option<String> {
        let mut text = "array".to_owned();
        if found.dtype != "float32" {
            text += ".astype(\"float32\")";
        }
        text += &order.unwrap_or_default();
        if let (Some([min, max]), Some(([low, high], _))) = (found.range, self.range)
            && self.is_of_bytes(&found.dtype, [min, max])
        {
            text += &format!(" / {}", MAX_BYTE / (high - low));
            if low != 0.0 {
                text += &format!(" {} {}", if low < 0.0 { '-' } else { '+' }, low.abs());
            }
        }
        Some(text).filter(|text| text != "array")
    }

    /// Whether values are those of a picture in 8 bits, whatever their type.
    fn is_of_bytes(&self, dtype: &str, [min, max]: [f32; 2]) -> bool {
        let Some(([low, high], _)) = self.range else { return false };
        match dtype {
            "uint8" => low < 0.0 || max > high,
            _ => min >= 0.0 && max > MIN_OF_BYTES && max <= MAX_BYTE,
        }
    }

    /// The expression that puts the axes of an array into the order channels, height, width.
    fn order(&self, found: &[usize]) -> Option<String> {
        let [channels, height, width] = *self.shape else { return None };
        let (batch, found) = match found {
            [1, rest @ ..] if rest.len() == 3 => ("[0]", rest),
            found => ("", found),
        };
        match *found {
            [h, w] if channels == 1 && [h, w] == [height, width] => Some("[None]".to_owned()),
            [h, w, c] if [h, w] == [height, width] && c == channels => {
                Some(format!("{batch}.transpose(2, 0, 1)"))
            }
            [h, w, 4] if [h, w] == [height, width] && channels == 3 => {
                Some(format!("{batch}[..., :3].transpose(2, 0, 1)"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(dtype: &str, shape: &[usize], range: [f32; 2], low: f32) -> Option<String> {
        let found = Description { dtype: dtype.to_owned(), shape: shape.to_vec(), range: Some(range) };
        Needed { shape: &[3, 32, 64], range: Some(([low, 1.0], ["black", "white"])) }.fault(&found)
    }

    /// The type, then the shape, then the scale were refused, each in an answer of its own.
    #[test]
    fn a_picture_as_an_array_was_converted_in_three_answers() {
        let needed = "float32 and [3, 32, 64] are needed, with values from -1 (black) to 1 (white); convert it with \
                      array";
        let of_bytes = |shape: &[usize]| fault("uint8", shape, [0.0, 255.0], -1.0);
        assert_eq!(
            of_bytes(&[32, 64, 3]).unwrap(),
            format!(
                "the array has dtype uint8 and shape [32, 64, 3], but \
                 {needed}.astype(\"float32\").transpose(2, 0, 1) / 127.5 - 1"
            )
        );
        assert_eq!(
            of_bytes(&[1, 32, 64, 4]).unwrap(),
            format!(
                "the array has dtype uint8 and shape [1, 32, 64, 4], but \
                 {needed}.astype(\"float32\")[0][..., :3].transpose(2, 0, 1) / 127.5 - 1"
            )
        );
        assert_eq!(
            fault("float32", &[32, 64, 3], [0.0, 255.0], 0.0).unwrap(),
            "the array has shape [32, 64, 3], but [3, 32, 64] is needed, with values from 0 (black) to 1 (white); convert \
             it with array.transpose(2, 0, 1) / 255"
        );
        assert_eq!(
            fault("float64", &[3, 32, 64], [-1.0, 1.0], -1.0).unwrap(),
            "the array has dtype float64, but float32 is needed, with values from -1 (black) to 1 (white); convert it with \
             array.astype(\"float32\")"
        );
        // A picture of another size is no matter of axes.
        assert!(of_bytes(&[16, 16, 3]).unwrap().ends_with("to 1 (white)"));
        assert_eq!(fault("float32", &[1, 3, 32, 64], [0.0, 9.0], -1.0), None);
    }

    #[test]
    fn a_mask_in_bytes_is_divided_by_255_unless_it_has_zeros_and_ones() {
        let needed = Needed { shape: &[1, 8, 8], range: Some(([0.0, 1.0], ["kept", "repainted"])) };
        let found =
            |max| Description { dtype: "uint8".to_owned(), shape: vec![8, 8], range: Some([0.0, max]) };
        let converted = |max| needed.fault(&found(max)).unwrap();
        assert!(
            converted(255.0).ends_with("with array.astype(\"float32\")[None] / 255"),
            "{}",
            converted(255.0)
        );
        assert!(converted(1.0).ends_with("with array.astype(\"float32\")[None]"), "{}", converted(1.0));
    }
}
