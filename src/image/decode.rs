//! Images and arrays to samples: the inverse of [`encode`](super::encode()).

use std::io::Cursor;

use image::ImageReader;

use super::ImageError;
use crate::bundle::SampleKind;

/// The sample that a file is decoded into.
#[derive(Debug, Clone, Copy)]
pub struct DecodeTarget<'a> {
    /// The sample's shape.
    pub shape: &'a [usize],
    /// The sample's kind.
    pub kind: SampleKind,
    /// The values of black and white.
    pub range: [f32; 2],
    /// An image that declares more pixels is refused before it is decompressed.
    pub max_pixels: u64,
}

/// Decodes a PNG or JPEG image, or a NumPy array of float32 values.
pub fn decode(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    if bytes.starts_with(b"\x93NUMPY") {
        decode_array(bytes, target.shape)
    } else {
        decode_image(bytes, target)
    }
}

/// Takes an array of this shape, with or without a leading axis of length 1.
fn decode_array(bytes: &[u8], shape: &[usize]) -> Result<Vec<f32>, ImageError> {
    let array = crate::npy::parse(bytes).map_err(|error| ImageError::Decode(error.to_string()))?;
    let leading_one = array.shape().first() == Some(&1) && &array.shape()[1..] == shape;
    if array.shape() != shape && !leading_one {
        let found = array.shape();
        return Err(ImageError::Decode(format!("the array has shape {found:?}, but {shape:?} is needed")));
    }
    Ok(array.iter().copied().collect())
}

fn decode_image(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    let fault = |reason: String| ImageError::Decode(reason);
    let DecodeTarget { shape, kind, range: [low, high], max_pixels } = target;
    let (SampleKind::Image, &[channels @ (1 | 3), height, width]) = (kind, shape) else {
        let message = format!("a sample of shape {shape:?} can't be decoded from an image; send a .npy file");
        return Err(fault(message));
    };
    let reader = || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        reader.map_err(|error| fault(error.to_string()))
    };
    // Checked before decompression: a small file may declare any size.
    let (w, h) = reader()?
        .into_dimensions()
        .map_err(|error| fault(format!("the file is neither PNG nor JPEG ({error})")))?;
    if u64::from(w) * u64::from(h) > max_pixels {
        return Err(fault(format!("the file declares {w}×{h} pixels, more than the limit of {max_pixels}")));
    }
    if (w as usize, h as usize) != (width, height) {
        return Err(fault(format!("the image has {w}×{h} pixels, but {width}×{height} are needed")));
    }
    let image = reader()?.decode().map_err(|error| fault(error.to_string()))?;
    let value = |byte: u8| low + f32::from(byte) / 255.0 * (high - low);
    if channels == 1 {
        return Ok(image.to_luma8().as_raw().iter().map(|byte| value(*byte)).collect());
    }
    let pixels = image.to_rgb8();
    Ok((0..3).flat_map(|channel| pixels.pixels().map(move |pixel| value(pixel.0[channel]))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{png, to_image};
    use super::*;
    use crate::bundle::SampleDescription;

    fn target(shape: &[usize]) -> DecodeTarget<'_> {
        DecodeTarget { shape, kind: SampleKind::Image, range: [-1.0, 1.0], max_pixels: 1000 }
    }

    fn encoded(sample: &[f32], shape: &[usize]) -> Vec<u8> {
        png(&to_image(sample, shape, &SampleDescription::default()).unwrap()).unwrap()
    }

    #[test]
    fn decoding_inverts_encoding_within_8_bits() {
        for shape in [[1, 2, 3], [3, 1, 2]] {
            let sample = [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0];
            let decoded = decode(&encoded(&sample, &shape), target(&shape)).unwrap();
            assert!(sample.iter().zip(&decoded).all(|(a, b)| (a - b).abs() < 1.001 / 255.0), "{decoded:?}");
        }
        let error = decode(&encoded(&[0.0; 2], &[1, 1, 2]), target(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("2×1 pixels, but 8×8"), "{error}");
    }

    #[test]
    fn an_image_that_declares_too_many_pixels_is_refused_before_decompression() {
        let mut bytes = encoded(&[0.0; 2], &[1, 1, 2]);
        // Width and height in the IHDR chunk, and the chunk's CRC.
        bytes[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let bit = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        let sum =
            bytes[12..29].iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |s, _| bit(s)));
        bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
        let error = decode(&bytes, target(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("declares 60000×60000 pixels, more than the limit of 1000"), "{error}");
        assert!(decode(b"GIF89a", target(&[1, 8, 8])).is_err());
    }
}
