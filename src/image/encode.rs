//! Samples to images and arrays.

use image::{DynamicImage, GrayImage, RgbImage};

use super::embedded_text::EmbeddedText;
use super::plot::scatter;
use super::{Format, ImageError, picture_file};
use crate::bundle::{SampleDescription, SampleKind};

/// The quality of JPEG images: little loss, at about a quarter of a PNG's size.
pub const DEFAULT_QUALITY: u8 = 95;

/// A format with its quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// The format.
    pub format: Format,
    /// 1 to 100. Only JPEG has one: the other formats lose nothing.
    pub quality: u8,
}

impl From<Format> for Encoding {
    /// The format with the default quality.
    fn from(format: Format) -> Self {
        Self { format, quality: DEFAULT_QUALITY }
    }
}

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

/// Encodes a sample. `text` is written into pictures, not into arrays.
pub fn encode(
    encoding: impl Into<Encoding>,
    sample: &[f32],
    shape: &[usize],
    description: &SampleDescription,
    text: Option<&EmbeddedText>,
) -> Result<Vec<u8>, ImageError> {
    let encoding = encoding.into();
    match encoding.format {
        Format::Npy => {
            crate::npy::write(shape, sample).map_err(|error| ImageError::Encode(error.to_string()))
        }
        _ => encode_image(encoding, &to_image(sample, shape, description)?, text),
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
            let pixels = interleaved(&sample.iter().map(|&x| to_byte(x, range)).collect::<Vec<_>>());
            RgbImage::from_raw(w as u32, h as u32, pixels).map(DynamicImage::from).ok_or_else(wrong_shape)
        }
        (SampleKind::Points, &[_, 2]) => Ok(scatter(sample, range).into()),
        _ => Err(wrong_shape()),
    }
}

/// Encodes an image of 8 bits with a text about how it was made. An array can't be made of it.
pub fn encode_image(
    encoding: impl Into<Encoding>,
    image: &DynamicImage,
    text: Option<&EmbeddedText>,
) -> Result<Vec<u8>, ImageError> {
    let Encoding { format, quality } = encoding.into();
    check_size(format, [image.width(), image.height()])?;
    match format {
        Format::Png => picture_file::png(image, text),
        Format::Jpeg => picture_file::jpeg(image, quality, text),
        Format::Webp => picture_file::webp(image, text),
        Format::Npy => Err("an image is no array".to_owned()),
    }
    .map_err(ImageError::Encode)
}

/// Encodes an image as PNG.
pub fn png(image: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    encode_image(Format::Png, image, None)
}

/// Converts three planes to pixels of three bytes.
fn interleaved(planes: &[u8]) -> Vec<u8> {
    let (red, rest) = planes.split_at(planes.len() / 3);
    let (green, blue) = rest.split_at(red.len());
    let mut pixels = vec![0; planes.len()];
    for (((pixel, red), green), blue) in pixels.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
        pixel.copy_from_slice(&[*red, *green, *blue]);
    }
    pixels
}

/// Maps low..high to 0..255, rounded and clamped.
///
/// `f32::round` is a call for each value on processors without an instruction for it. Twice the value as an integer,
/// plus one, halved, is the same number, and compiles to vector instructions.
fn to_byte(x: f32, [low, high]: [f32; 2]) -> u8 {
    let twice = (((x - low) / (high - low)).clamp(0.0, 1.0) * 255.0 * 2.0) as i32;
    ((twice + 1) >> 1) as u8
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    #[test]
    fn values_map_to_bytes_at_both_ends_and_beyond() {
        let range = [-1.0, 1.0];
        let bytes = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|x| to_byte(x, range));
        assert_eq!(bytes, [0, 0, 128, 255, 255]);
        assert_eq!(to_byte(0.5, [0.0, 1.0]), 128);
    }

    #[test]
    fn bytes_are_rounded_as_f32_round_does_it() {
        let halves = (0..255).map(|byte| byte as f32 + 0.5);
        let near = halves.flat_map(|half| [half.next_down(), half, half.next_up()]);
        for value in near.chain([f32::NAN, 0.0, -0.0, 255.0, f32::INFINITY, f32::NEG_INFINITY]) {
            assert_eq!(to_byte(value, [0.0, 255.0]), value_by_round(value), "{value}");
        }
        fn value_by_round(value: f32) -> u8 {
            ((value / 255.0).clamp(0.0, 1.0) * 255.0).round() as u8
        }
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
        let encoded =
            |format| encode(format, &sample, &[3, 4, 4], &SampleDescription::default(), None).unwrap();
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
        let small = Encoding { format: Format::Jpeg, quality: 5 };
        let small = encode(small, &sample, &[3, 4, 4], &SampleDescription::default(), None).unwrap();
        assert!(small.len() < encoded(Format::Jpeg).len());
        assert!(crate::npy::parse(&encoded(Format::Npy)).is_ok());
        assert_eq!((Format::from_name("JPG"), Format::from_name("gif")), (Some(Format::Jpeg), None));
    }
}
