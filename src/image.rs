//! Samples become pictures: one image, a grid of several, or points as a scatter.

mod decode;
mod figure;

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use crate::bundle::{Manifest, SampleKind};

/// How a sample is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A PNG picture.
    #[default]
    Png,
    /// NumPy's format: the raw float32 values.
    Npy,
}

impl Format {
    /// The MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Npy => "application/x-npy",
        }
    }

    /// The file name's ending.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Npy => "npy",
        }
    }
}

/// A sample that can't be encoded so.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The shape is no picture.
    #[error("a sample of shape {0:?} is no picture of 1 or 3 channels; format npy holds any shape")]
    Shape(Vec<usize>),
    /// Bytes that are no such sample.
    #[error("{0}")]
    Read(String),
    /// The encoder's words.
    #[error("encoding failed: {0}")]
    Encode(String),
}

pub use decode::{Pixels, decode};
pub use figure::{arrows, rows};

/// The width and height of a scatter.
const SCATTER: u32 = 256;
/// The space between a grid's images.
const GAP: u32 = 2;

/// Whether samples of this kind and shape can be encoded so.
pub fn check(format: Format, kind: SampleKind, shape: &[usize]) -> Result<(), ImageError> {
    match (format, kind, shape) {
        (Format::Npy, ..)
        | (Format::Png, SampleKind::Image, [1 | 3, _, _])
        | (Format::Png, SampleKind::Points, [_, 2]) => Ok(()),
        _ => Err(ImageError::Shape(shape.to_owned())),
    }
}

/// A sample as bytes.
pub fn encode(
    format: Format,
    sample: &[f32],
    shape: &[usize],
    manifest: &Manifest,
) -> Result<Vec<u8>, ImageError> {
    match format {
        Format::Png => png(&picture(sample, shape, manifest)?),
        Format::Npy => {
            crate::npy::write(shape, sample).map_err(|error| ImageError::Encode(error.to_string()))
        }
    }
}

/// A sample as a picture.
pub fn picture(sample: &[f32], shape: &[usize], manifest: &Manifest) -> Result<DynamicImage, ImageError> {
    let range = manifest.sample.range;
    let wrong = || ImageError::Shape(shape.to_owned());
    if sample.len() != shape.iter().product::<usize>() {
        return Err(wrong());
    }
    match (manifest.sample.kind, shape) {
        (SampleKind::Image, &[1, h, w]) => {
            let pixels = sample.iter().map(|&x| byte(x, range)).collect();
            GrayImage::from_raw(w as u32, h as u32, pixels).map(DynamicImage::from).ok_or_else(wrong)
        }
        (SampleKind::Image, &[3, h, w]) => {
            let plane = h * w;
            let pixels = (0..3 * plane).map(|i| byte(sample[i % 3 * plane + i / 3], range)).collect();
            RgbImage::from_raw(w as u32, h as u32, pixels).map(DynamicImage::from).ok_or_else(wrong)
        }
        (SampleKind::Points, &[_, 2]) => Ok(scatter(sample, range).into()),
        _ => Err(wrong()),
    }
}

/// As PNG.
pub fn png(picture: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|error| ImageError::Encode(error.to_string()))?;
    Ok(bytes.into_inner())
}

/// Several pictures of one size in as square a grid as their number allows, each enlarged by a
/// whole factor.
pub fn grid(pictures: &[DynamicImage], factor: u32) -> Result<DynamicImage, ImageError> {
    let columns = (pictures.len() as f64).sqrt().ceil() as usize;
    rows(&pictures.chunks(columns.max(1)).map(<[_]>::to_vec).collect::<Vec<_>>(), factor)
}

/// A value of the range low..high as 0..255, rounded.
fn byte(x: f32, [low, high]: [f32; 2]) -> u8 {
    (((x - low) / (high - low)).clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Points as dark discs on white; the range is that of both axes.
fn scatter(points: &[f32], [low, high]: [f32; 2]) -> GrayImage {
    const RADIUS: f32 = 1.3;
    let mut picture = GrayImage::from_pixel(SCATTER, SCATTER, image::Luma([255]));
    let to_pixel = |x: f32| (x - low) / (high - low) * SCATTER as f32;
    for point in points.chunks_exact(2) {
        // The second axis points upwards.
        let (x, y) = (to_pixel(point[0]), SCATTER as f32 - to_pixel(point[1]));
        if !(x.is_finite() && y.is_finite()) {
            continue;
        }
        for py in (y - 3.0) as i64..=(y + 3.0) as i64 {
            for px in (x - 3.0) as i64..=(x + 3.0) as i64 {
                let inside = 0..i64::from(SCATTER);
                if !inside.contains(&px) || !inside.contains(&py) {
                    continue;
                }
                let distance = (px as f32 + 0.5 - x).hypot(py as f32 + 0.5 - y);
                let ink = (RADIUS + 0.5 - distance).clamp(0.0, 1.0) * 0.7;
                let pixel = picture.get_pixel_mut(px as u32, py as u32);
                pixel.0[0] = (f32::from(pixel.0[0]) * (1.0 - ink)) as u8;
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_map_to_bytes_at_both_ends_and_beyond() {
        let range = [-1.0, 1.0];
        let bytes = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|x| byte(x, range));
        assert_eq!(bytes, [0, 0, 128, 255, 255]);
        assert_eq!(byte(0.5, [0.0, 1.0]), 128);
    }

    #[test]
    fn channels_are_interleaved() {
        let manifest = Manifest::default();
        let planes = [1.0, 1.0, 0.0, 0.0, -1.0, -1.0];
        let picture = picture(&planes, &[3, 1, 2], &manifest).unwrap();
        assert_eq!(picture.as_bytes(), [255, 128, 0, 255, 128, 0]);
    }

    #[test]
    fn a_grid_holds_every_picture() {
        let tile = |value| GrayImage::from_pixel(2, 2, image::Luma([value])).into();
        let sheet = grid(&[tile(10), tile(20), tile(30)], 1).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (10, 10));
        let gray = sheet.to_luma8();
        let at = |x, y| gray.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 2), at(2, 6), at(6, 6)], [10, 20, 30, 0]);
    }

    #[test]
    fn a_scatter_marks_its_points_and_survives_wild_ones() {
        let picture = scatter(&[0.0, 0.0, f32::NAN, 1.0, 1e30, -1e30, 0.5, 0.5], [-1.0, 1.0]);
        let at = |x, y| picture.get_pixel(x, y).0[0];
        assert!(at(128, 128) < 128 && at(192, 64) < 128);
        assert_eq!(at(10, 10), 255);
    }

    #[test]
    fn what_is_no_picture_is_refused_with_the_way_out() {
        let error = check(Format::Png, SampleKind::Image, &[4, 8, 8]).unwrap_err();
        assert!(error.to_string().contains("npy"), "{error}");
        assert!(check(Format::Npy, SampleKind::Image, &[4, 8, 8]).is_ok());
    }
}
