//! Samples to images and arrays.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::plot::scatter;
use super::{Format, ImageError};
use crate::bundle::{SampleDescription, SampleKind};

/// Checks that samples of this kind and shape can be encoded in this format.
pub fn check_format(format: Format, kind: SampleKind, shape: &[usize]) -> Result<(), ImageError> {
    match (format, kind, shape) {
        (Format::Npy, ..)
        | (Format::Png, SampleKind::Image, [1 | 3, _, _])
        | (Format::Png, SampleKind::Points, [_, 2]) => Ok(()),
        _ => Err(ImageError::Shape(shape.to_owned())),
    }
}

/// Encodes a sample in this format.
pub fn encode(
    format: Format,
    sample: &[f32],
    shape: &[usize],
    description: &SampleDescription,
) -> Result<Vec<u8>, ImageError> {
    match format {
        Format::Png => png(&to_image(sample, shape, description)?),
        Format::Npy => {
            crate::npy::write(shape, sample).map_err(|error| ImageError::Encode(error.to_string()))
        }
    }
}

/// Converts a sample to an 8-bit image; points become a scatter plot.
pub fn to_image(
    sample: &[f32],
    shape: &[usize],
    description: &SampleDescription,
) -> Result<DynamicImage, ImageError> {
    let range = description.range;
    let wrong_shape = || ImageError::Shape(shape.to_owned());
    if sample.len() != shape.iter().product::<usize>() {
        return Err(wrong_shape());
    }
    match (description.kind, shape) {
        (SampleKind::Image, &[1, h, w]) => {
            let pixels = sample.iter().map(|&x| to_byte(x, range)).collect();
            GrayImage::from_raw(w as u32, h as u32, pixels).map(DynamicImage::from).ok_or_else(wrong_shape)
        }
        (SampleKind::Image, &[3, h, w]) => {
            let plane = h * w;
            let pixels = (0..3 * plane).map(|i| to_byte(sample[i % 3 * plane + i / 3], range)).collect();
            RgbImage::from_raw(w as u32, h as u32, pixels).map(DynamicImage::from).ok_or_else(wrong_shape)
        }
        (SampleKind::Points, &[_, 2]) => Ok(scatter(sample, range).into()),
        _ => Err(wrong_shape()),
    }
}

/// Encodes an image as PNG.
pub fn png(image: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|error| ImageError::Encode(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// Maps low..high to 0..255, rounded and clamped.
fn to_byte(x: f32, [low, high]: [f32; 2]) -> u8 {
    (((x - low) / (high - low)).clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_map_to_bytes_at_both_ends_and_beyond() {
        let range = [-1.0, 1.0];
        let bytes = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|x| to_byte(x, range));
        assert_eq!(bytes, [0, 0, 128, 255, 255]);
        assert_eq!(to_byte(0.5, [0.0, 1.0]), 128);
    }

    #[test]
    fn channels_are_interleaved() {
        let planes = [1.0, 1.0, 0.0, 0.0, -1.0, -1.0];
        let image = to_image(&planes, &[3, 1, 2], &SampleDescription::default()).unwrap();
        assert_eq!(image.as_bytes(), [255, 128, 0, 255, 128, 0]);
    }

    #[test]
    fn a_shape_that_png_cannot_hold_is_an_error_that_names_npy() {
        let error = check_format(Format::Png, SampleKind::Image, &[4, 8, 8]).unwrap_err();
        assert!(error.to_string().contains("npy"), "{error}");
        assert!(check_format(Format::Npy, SampleKind::Image, &[4, 8, 8]).is_ok());
    }
}
