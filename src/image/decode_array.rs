//! NumPy arrays to samples.

use super::ImageError;
use super::decode::DecodeTarget;
use crate::bundle::SampleKind;

/// How far beyond black and white the values of an image may lie, in multiples of their distance: samples exceed the range
/// a little, but levels from 0 to 255 are those of another scale.
const TOLERANCE: f32 = 4.0;

/// Takes an array of the target's shape, with or without a leading axis of length 1, and with the target's range.
pub(super) fn decode_array(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    let DecodeTarget { shape, kind, range: [low, high], .. } = target;
    let array = crate::npy::parse(bytes).map_err(|error| ImageError::Decode(error.to_string()))?;
    let is_image = kind == SampleKind::Image;
    let leading_one = array.shape().first() == Some(&1) && &array.shape()[1..] == shape;
    if array.shape() != shape && !leading_one {
        let found = array.shape();
        let range = match is_image {
            true => format!(", with values from {low} (black) to {high} (white)"),
            false => String::new(),
        };
        return Err(ImageError::Decode(format!(
            "the array has shape {found:?}, but {shape:?} is needed{range}"
        )));
    }
    let values: Vec<f32> = array.iter().copied().collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(ImageError::Decode("the array contains NaN or infinity; use finite values".to_owned()));
    }
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let margin = TOLERANCE * (high - low);
    if is_image && (min < low - margin || max > high + margin) {
        return Err(ImageError::Decode(format!(
            "the array has values from {min} to {max}, but those of an image lie between {low} (black) and {high} (white); \
             scale them"
        )));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn fault(shape: &[usize], values: &[f32], range: [f32; 2], kind: SampleKind) -> Option<String> {
        let file = crate::npy::write(shape, values).unwrap();
        let target = DecodeTarget { shape: &[1, 1, 2], kind, range, max_pixels: 1000 };
        decode(&file, target).err().map(|error| error.to_string())
    }

    #[test]
    fn an_array_of_another_scale_was_taken_for_a_picture() {
        let of_image = |values: &[f32]| fault(&[1, 1, 2], values, [-1.0, 1.0], SampleKind::Image);
        assert_eq!(
            of_image(&[0.0, 255.0]).as_deref(),
            Some(
                "the array has values from 0 to 255, but those of an image lie between -1 (black) and 1 (white); scale them"
            )
        );
        assert_eq!(
            fault(&[1, 1, 2], &[0.0, 255.0], [0.0, 1.0], SampleKind::Image).as_deref(),
            Some(
                "the array has values from 0 to 255, but those of an image lie between 0 (black) and 1 (white); scale them"
            )
        );
        assert_eq!(
            of_image(&[0.0, f32::NAN]).as_deref(),
            Some("the array contains NaN or infinity; use finite values")
        );
        // A sample that was not clipped, and points, which have no black and white.
        assert_eq!(of_image(&[-1.5, 4.0]), None);
        assert_eq!(fault(&[1, 1, 2], &[0.0, 255.0], [-1.0, 1.0], SampleKind::Points), None);
    }

    #[test]
    fn an_array_of_another_shape_was_refused_without_its_range() {
        assert_eq!(
            fault(&[2], &[0.0, 1.0], [-1.0, 1.0], SampleKind::Image).as_deref(),
            Some(
                "the array has shape [2], but [1, 1, 2] is needed, with values from -1 (black) to 1 (white)"
            )
        );
        assert_eq!(
            fault(&[2], &[0.0, 1.0], [-1.0, 1.0], SampleKind::Points).as_deref(),
            Some("the array has shape [2], but [1, 1, 2] is needed")
        );
    }
}
