//! NumPy arrays to samples.

use super::ImageError;
use super::array_fault::{Needed, TOLERANCE};
use super::decode::{Content, DecodeTarget};
use crate::bundle::SampleKind;

/// Takes an array of the target's shape, with or without a leading axis of length 1, and with the target's range. A mask
/// may have a single channel.
pub(super) fn decode_array(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    let DecodeTarget { shape, kind, range: [low, high], content, .. } = target;
    let fault = |reason: String| Err(ImageError::Decode(reason));
    let has_range = kind == SampleKind::Image || content == Content::Mask;
    let (subject, meanings) = match content {
        Content::Image => ("an image", ["black", "white"]),
        Content::Mask => ("a mask", ["kept", "repainted"]),
    };
    let [dark, light] = meanings;
    let plane = [&[1], shape.get(1..).unwrap_or_default()].concat();
    let needed = if content == Content::Mask { &plane } else { shape };
    let range = has_range.then_some(([low, high], meanings));
    let [needed, own] = [needed, shape].map(|shape| Needed { shape, range });
    let found = crate::npy::describe(bytes);
    let found = found.as_ref();
    // A mask may also have the channels of the image, if they are equal.
    if let Some(found) = found
        && let (Some(reason), Some(_)) = (needed.fault(found), own.fault(found))
    {
        return fault(reason);
    }
    let array = crate::npy::parse(bytes).map_err(|error| ImageError::Decode(error.to_string()))?;
    let values: Vec<f32> = array.iter().copied().collect();
    if !values.iter().all(|value| value.is_finite()) {
        return fault("the array contains NaN or infinity; use finite values".to_owned());
    }
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if has_range && (min < low - TOLERANCE || max > high + TOLERANCE) {
        let conversion = found.and_then(|found| needed.conversion(found, None));
        let advice = conversion.map_or_else(
            || "scale or clip them".to_owned(),
            |text| format!("convert it with {text}, or clip them"),
        );
        return fault(format!(
            "the array has values from {min} to {max}, but those of {subject} lie between {low} ({dark}) and {high} \
             ({light}); {advice}"
        ));
    }
    let plane_len = plane.iter().product::<usize>().max(1);
    if content == Content::Mask && values.chunks(plane_len).any(|other| other != &values[..plane_len]) {
        return fault(format!(
            "the channels of the mask differ; send one of them, as an array of shape {plane:?}"
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn fault(shape: &[usize], values: &[f32], range: [f32; 2], kind: SampleKind) -> Option<String> {
        let file = crate::npy::write(shape, values).unwrap();
        let target =
            DecodeTarget { shape: &[1, 1, 2], kind, range, max_pixels: 1000, content: Content::Image };
        decode(&file, target).err().map(|error| error.to_string())
    }

    #[test]
    fn an_array_of_another_scale_was_taken_for_a_picture() {
        let of_image = |values: &[f32]| fault(&[1, 1, 2], values, [-1.0, 1.0], SampleKind::Image);
        assert_eq!(
            of_image(&[0.0, 255.0]).as_deref(),
            Some(
                "the array has values from 0 to 255, but those of an image lie between -1 (black) and 1 (white); convert it with array / 127.5 - 1, or clip them"
            )
        );
        assert_eq!(
            fault(&[1, 1, 2], &[0.0, 255.0], [0.0, 1.0], SampleKind::Image).as_deref(),
            Some(
                "the array has values from 0 to 255, but those of an image lie between 0 (black) and 1 (white); convert it with array / 255, or clip them"
            )
        );
        assert_eq!(
            of_image(&[0.0, f32::NAN]).as_deref(),
            Some("the array contains NaN or infinity; use finite values")
        );
        // Points have no black and white.
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

    /// Values from -9 to 9 were taken for those of an image, and a mask of -1 to 2 was accepted.
    #[test]
    fn an_array_with_values_a_little_out_of_range_was_accepted() {
        let decoded = |values: &[f32], shape: &[usize], content| {
            let range = if content == Content::Mask { [0.0, 1.0] } else { [-1.0, 1.0] };
            let file = crate::npy::write(shape, values).unwrap();
            let target =
                DecodeTarget { shape: &[3, 1, 1], kind: SampleKind::Image, range, max_pixels: 1000, content };
            decode(&file, target).map_err(|error| error.to_string())
        };
        let (image, mask) = (Content::Image, Content::Mask);
        assert_eq!(
            decoded(&[0.0, 0.5, 1.01], &[3, 1, 1], image).unwrap_err(),
            "the array has values from 0 to 1.01, but those of an image lie between -1 (black) and 1 (white); scale or \
             clip them"
        );
        let of_mask = |min: &str, max: &str| {
            format!(
                "the array has values from {min} to {max}, but those of a mask lie between 0 (kept) and 1 (repainted); \
                 scale or clip them"
            )
        };
        assert_eq!(decoded(&[-1.0], &[1, 1, 1], mask).unwrap_err(), of_mask("-1", "-1"));
        // The shape of the image was reported as the fault.
        assert_eq!(decoded(&[0.0, 0.5, 2.0], &[3, 1, 1], mask).unwrap_err(), of_mask("0", "2"));
        assert_eq!(
            decoded(&[0.0; 2], &[2, 1, 1], mask).unwrap_err(),
            "the array has shape [2, 1, 1], but [1, 1, 1] is needed, with values from 0 (kept) to 1 (repainted)"
        );
        assert_eq!(decoded(&[1.0005, -1.0005, 0.0], &[1, 3, 1, 1], image), Ok(vec![1.0005, -1.0005, 0.0]));
        assert_eq!(decoded(&[-0.0005], &[1, 1, 1, 1], mask), Ok(vec![-0.0005]));
    }

    #[test]
    fn the_first_channel_of_a_mask_in_colour_was_taken_for_the_mask() {
        let decoded = |values: &[f32]| {
            let file = crate::npy::write(&[3, 1, 2], values).unwrap();
            let target = DecodeTarget {
                shape: &[3, 1, 2],
                kind: SampleKind::Image,
                range: [0.0, 1.0],
                max_pixels: 1000,
                content: Content::Mask,
            };
            decode(&file, target).map_err(|error| error.to_string())
        };
        assert_eq!(
            decoded(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).unwrap_err(),
            "the channels of the mask differ; send one of them, as an array of shape [1, 1, 2]"
        );
        assert!(decoded(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]).is_ok());
    }
}
