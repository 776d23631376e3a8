//! Pictures that steer a job through a ControlNet.

use std::borrow::Cow;

use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};

use super::ImageError;
use super::canny::canny;
use super::decode::{Content, DecodeTarget, decode, decode_rgb, luma};
use crate::bundle::SampleKind;
use crate::tensor::Tensor;

/// How a picture is changed before a ControlNet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preprocess {
    /// White edges on black, found as `cv2.Canny(picture, 100, 200)` finds them.
    Canny,
    /// The grey level of each pixel (ITU-R BT.601).
    Grey,
}

/// The picture that a ControlNet takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPicture {
    /// The width and height in pixels.
    pub size: (usize, usize),
    /// How the picture is changed, after it was resized.
    pub preprocess: Option<Preprocess>,
    /// Whether a picture of another size is resized, with Lanczos' filter as in diffusers.
    pub resize: bool,
    /// An image that declares more pixels is refused before it is decompressed.
    pub max_pixels: u64,
}

impl ControlPicture {
    /// Decodes a PNG, JPEG or WebP image, or a NumPy array of float32 values, to [3, height, width] in 0..1.
    pub fn decode(self, bytes: &[u8]) -> Result<Tensor, ImageError> {
        let (width, height) = self.size;
        let shape = [3, height, width];
        if bytes.starts_with(b"\x93NUMPY") {
            if self.resize || self.preprocess.is_some() {
                let fault = "resize and preprocess take a picture and no array; send PNG, JPEG or WebP";
                return Err(ImageError::Decode(fault.to_owned()));
            }
            let target = DecodeTarget {
                content: Content::Image,
                shape: &shape,
                kind: SampleKind::Image,
                range: [0.0, 1.0],
                max_pixels: self.max_pixels,
            };
            return Ok(Tensor::new(shape, decode(bytes, target)?));
        }
        let size = Some(self.size).filter(|_| !self.resize);
        let decoded = decode_rgb(bytes, size, self.max_pixels)?;
        let picture = self.resized(&decoded);
        let plane = width * height;
        let data = match self.preprocess {
            None => {
                let channel = |channel: usize| picture.pixels().map(move |pixel| level(pixel.0[channel]));
                (0..3).flat_map(channel).collect()
            }
            Some(Preprocess::Grey) => {
                picture.pixels().map(|pixel| level(luma(pixel.0))).collect::<Vec<_>>().repeat(3)
            }
            Some(Preprocess::Canny) => {
                let edges = canny(picture.as_raw(), width, height);
                edges.into_iter().map(|is_edge| f32::from(u8::from(is_edge))).collect::<Vec<_>>().repeat(3)
            }
        };
        debug_assert_eq!(data.len(), 3 * plane);
        Ok(Tensor::new(shape, data))
    }

    fn resized(self, picture: &RgbImage) -> Cow<'_, RgbImage> {
        let (width, height) = (self.size.0 as u32, self.size.1 as u32);
        match picture.dimensions() == (width, height) {
            true => Cow::Borrowed(picture),
            false => Cow::Owned(imageops::resize(picture, width, height, FilterType::Lanczos3)),
        }
    }
}

fn level(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

#[cfg(test)]
mod tests {
    use super::super::{png, to_image};
    use super::*;
    use crate::bundle::SampleDescription;

    const PICTURE: ControlPicture =
        ControlPicture { size: (2, 1), preprocess: None, resize: false, max_pixels: 1000 };

    /// Red and white.
    fn file() -> Vec<u8> {
        let sample = [1.0, 1.0, -1.0, 1.0, -1.0, 1.0];
        png(&to_image(&sample, &[3, 1, 2], &SampleDescription::default()).unwrap()).unwrap()
    }

    #[test]
    fn a_picture_becomes_levels_from_0_to_1() {
        assert_eq!(
            PICTURE.decode(&file()).unwrap(),
            Tensor::new([3, 1, 2], vec![1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
        );
        let grey = ControlPicture { preprocess: Some(Preprocess::Grey), ..PICTURE };
        let red = 76.0 / 255.0;
        assert_eq!(grey.decode(&file()).unwrap().data, [red, 1.0, red, 1.0, red, 1.0]);
        let canny = ControlPicture { preprocess: Some(Preprocess::Canny), ..PICTURE };
        assert_eq!(canny.decode(&file()).unwrap().data.len(), 6);
    }

    #[test]
    fn another_size_is_refused_or_resized() {
        let other = ControlPicture { size: (4, 2), ..PICTURE };
        assert!(other.decode(&file()).unwrap_err().to_string().contains("2×1 pixels, but 4×2 are needed"));
        let resized = ControlPicture { resize: true, ..other }.decode(&file()).unwrap();
        assert_eq!(resized.shape, [3, 2, 4]);
        // Each row is the same, and the red channel is white.
        assert!(resized.data[..8].iter().all(|x| *x == 1.0));
        assert_eq!(resized.data[8..12], resized.data[12..16]);
    }

    #[test]
    fn an_array_is_taken_as_it_is() {
        let values = [0.0, 0.25, 0.5, 0.75, 1.0, 0.0];
        let array = crate::npy::write(&[3, 1, 2], &values).unwrap();
        assert_eq!(PICTURE.decode(&array).unwrap().data, values);
        let resize = ControlPicture { resize: true, ..PICTURE };
        assert!(resize.decode(&array).unwrap_err().to_string().contains("take a picture and no array"));
    }
}
