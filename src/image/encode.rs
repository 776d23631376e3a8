//! Samples to images and arrays.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::plot::scatter;
use super::{Format, ImageError};
use crate::bundle::{SampleDescription, SampleKind};

/// Little loss, at about a quarter of a PNG's size.
const JPEG_QUALITY: u8 = 95;

/// Checks that samples of this kind and shape can be encoded in this format.
pub fn check_format(format: Format, kind: SampleKind, shape: &[usize]) -> Result<(), ImageError> {
    match (format, kind, shape) {
        (Format::Npy, ..) | (_, SampleKind::Points, [_, 2]) => Ok(()),
        (_, SampleKind::Image, &[1 | 3, height, width]) => {
            let pixels = |length| u32::try_from(length).unwrap_or(u32::MAX);
            check_size(format, [pixels(width), pixels(height)])
        }
        _ => Err(ImageError::Shape(shape.to_owned())),
    }
}

/// Checks that the format holds an image of this width and height.
pub fn check_size(format: Format, [width, height]: [u32; 2]) -> Result<(), ImageError> {
    match format.max_side() {
        Some(max) if width.max(height) > max => Err(ImageError::Side { format, width, height, max }),
        _ => Ok(()),
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
        Format::Npy => {
            crate::npy::write(shape, sample).map_err(|error| ImageError::Encode(error.to_string()))
        }
        _ => encode_image(format, &to_image(sample, shape, description)?),
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

/// Encodes an image. An array can't be made of it.
pub fn encode_image(format: Format, image: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    check_size(format, [image.width(), image.height()])?;
    let mut bytes = Cursor::new(Vec::new());
    match format {
        Format::Png => image.write_to(&mut bytes, ImageFormat::Png),
        Format::Jpeg => image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)),
        Format::Webp => image.write_with_encoder(WebPEncoder::new_lossless(&mut bytes)),
        Format::Npy => return Err(ImageError::Encode("an image is no array".to_owned())),
    }
    .map_err(|error| ImageError::Encode(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// Encodes an image as PNG.
pub fn png(image: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    encode_image(Format::Png, image)
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
    fn a_shape_that_no_image_can_hold_is_an_error_that_names_npy() {
        let error = check_format(Format::Png, SampleKind::Image, &[4, 8, 8]).unwrap_err();
        assert!(error.to_string().contains("npy"), "{error}");
        assert!(check_format(Format::Npy, SampleKind::Image, &[4, 8, 8]).is_ok());
    }

    #[test]
    fn a_side_that_a_format_cannot_hold_is_an_error_that_names_png() {
        let error = check_format(Format::Webp, SampleKind::Image, &[3, 8, 16_384]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an image of 16384×8 pixels can't be encoded as webp, which takes sides of up to 16383 pixels; use the \
             format png"
        );
        assert!(check_format(Format::Png, SampleKind::Image, &[3, 8, 16_384]).is_ok());
        assert!(check_format(Format::Webp, SampleKind::Image, &[3, 16_383, 8]).is_ok());
    }

    #[test]
    fn each_format_is_what_its_name_says() {
        let sample: Vec<f32> = (0..3 * 16).map(|i| i as f32 / 24.0 - 1.0).collect();
        let encoded = |format| encode(format, &sample, &[3, 4, 4], &SampleDescription::default()).unwrap();
        let pixels = |format| image::load_from_memory(&encoded(format)).unwrap().to_rgb8();
        for (format, expected) in [
            (Format::Png, ImageFormat::Png),
            (Format::Jpeg, ImageFormat::Jpeg),
            (Format::Webp, ImageFormat::WebP),
        ] {
            assert_eq!(image::guess_format(&encoded(format)).unwrap(), expected);
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(pixels(Format::Webp), pixels(Format::Png));
        let difference = |(a, b): (&u8, &u8)| a.abs_diff(*b);
        let (jpeg, png) = (pixels(Format::Jpeg), pixels(Format::Png));
        let largest = jpeg.as_raw().iter().zip(png.as_raw()).map(difference).max();
        assert!(largest < Some(25), "{largest:?}");
        assert!(crate::npy::parse(&encoded(Format::Npy)).is_ok());
        assert_eq!((Format::from_name("JPG"), Format::from_name("gif")), (Some(Format::Jpeg), None));
    }
}
