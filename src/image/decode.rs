//! Pictures become samples: what [`super::picture`] does, the other way.

use std::io::Cursor;

use image::ImageReader;
use ndarray_npy::ReadNpyExt;

use super::{ImageError, SampleKind};

/// What a file's values are to become.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// A sample's axes.
    pub shape: &'a [usize],
    /// What a sample is.
    pub kind: SampleKind,
    /// The values of black and white.
    pub range: [f32; 2],
    /// The most pixels that a file may claim to have.
    pub most: u64,
}

/// A sample from a PNG or JPEG file's bytes, or from the raw values of a `.npy`.
pub fn decode(bytes: &[u8], pixels: Pixels<'_>) -> Result<Vec<f32>, ImageError> {
    let fault = |reason: String| ImageError::Read(reason);
    let shape = pixels.shape;
    if bytes.starts_with(b"\x93NUMPY") {
        let array = ndarray::ArrayD::<f32>::read_npy(Cursor::new(bytes))
            .map_err(|error| fault(format!("{error}; a float32 array is needed")))?;
        let leading_one = array.shape().first() == Some(&1) && &array.shape()[1..] == shape;
        if array.shape() != shape && !leading_one {
            return Err(fault(format!("it has shape {:?}, but {shape:?} is needed", array.shape())));
        }
        return Ok(array.as_standard_layout().iter().copied().collect());
    }
    let (SampleKind::Image, &[channels @ (1 | 3), height, width]) = (pixels.kind, shape) else {
        return Err(fault(format!("samples of shape {shape:?} are no pictures; give a .npy")));
    };
    let reader = || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        reader.map_err(|error| fault(error.to_string()))
    };
    // Read before a byte is unpacked: a small file may claim any size.
    let (w, h) = reader()?
        .into_dimensions()
        .map_err(|error| fault(format!("it is neither PNG nor JPEG ({error})")))?;
    if u64::from(w) * u64::from(h) > pixels.most {
        return Err(fault(format!("it claims {w}×{h} pixels, more than the {} that are taken", pixels.most)));
    }
    if (w as usize, h as usize) != (width, height) {
        return Err(fault(format!("it is {w}×{h} pixels, but {width}×{height} are needed")));
    }
    let picture = reader()?.decode().map_err(|error| fault(error.to_string()))?;
    let [low, high] = pixels.range;
    let value = |byte: u8| low + f32::from(byte) / 255.0 * (high - low);
    if channels == 1 {
        return Ok(picture.to_luma8().as_raw().iter().map(|byte| value(*byte)).collect());
    }
    let pixels = picture.to_rgb8();
    Ok((0..3).flat_map(|channel| pixels.pixels().map(move |pixel| value(pixel.0[channel]))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Manifest, picture, png};
    use super::*;

    fn pixels(shape: &[usize]) -> Pixels<'_> {
        Pixels { shape, kind: SampleKind::Image, range: [-1.0, 1.0], most: 1000 }
    }

    #[test]
    fn a_picture_read_is_the_sample_that_was_drawn() {
        let manifest = Manifest::default();
        for shape in [[1, 2, 3], [3, 1, 2]] {
            let sample = [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0];
            let bytes = png(&picture(&sample, &shape, &manifest).unwrap()).unwrap();
            let again = decode(&bytes, pixels(&shape)).unwrap();
            assert!(sample.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1.001 / 255.0), "{again:?}");
        }
        let bytes = png(&picture(&[0.0; 2], &[1, 1, 2], &manifest).unwrap()).unwrap();
        let error = decode(&bytes, pixels(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("2×1 pixels, but 8×8"), "{error}");
    }

    #[test]
    fn a_picture_that_claims_too_much_is_refused_before_it_is_unpacked() {
        let manifest = Manifest::default();
        let mut bytes = png(&picture(&[0.0; 2], &[1, 1, 2], &manifest).unwrap()).unwrap();
        // The width and height of a PNG's first chunk, and the sum over that.
        bytes[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let bit = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        let sum =
            bytes[12..29].iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |s, _| bit(s)));
        bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
        let error = decode(&bytes, pixels(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("it claims 60000×60000 pixels, more than the 1000"), "{error}");
        assert!(decode(b"GIF89a", pixels(&[1, 8, 8])).is_err());
    }
}
