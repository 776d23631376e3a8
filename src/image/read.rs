//! Pictures become samples: what [`super::picture`] does, the other way.

use std::path::Path;

use super::{ImageError, Manifest, SampleKind};

/// A sample of this shape from a PNG, or from the raw values of a `.npy`.
pub fn read(path: &Path, shape: &[usize], manifest: &Manifest) -> Result<Vec<f32>, ImageError> {
    let fault = |reason: String| ImageError::Read { path: path.display().to_string(), reason };
    if path.extension().is_some_and(|ending| ending == "npy") {
        let array = crate::npy::read(path).map_err(|error| fault(error.to_string()))?;
        let leading_one = array.shape().first() == Some(&1) && &array.shape()[1..] == shape;
        if array.shape() != shape && !leading_one {
            return Err(fault(format!("it has shape {:?}, but {shape:?} is needed", array.shape())));
        }
        return Ok(array.iter().copied().collect());
    }
    let (SampleKind::Image, &[channels @ (1 | 3), height, width]) = (manifest.sample.kind, shape) else {
        return Err(fault(format!("samples of shape {shape:?} are no pictures; give a .npy")));
    };
    let picture = image::open(path).map_err(|error| fault(error.to_string()))?;
    if (picture.width() as usize, picture.height() as usize) != (width, height) {
        let (w, h) = (picture.width(), picture.height());
        return Err(fault(format!("it is {w}×{h} pixels, but {width}×{height} are needed")));
    }
    let [low, high] = manifest.sample.range;
    let value = |byte: u8| low + f32::from(byte) / 255.0 * (high - low);
    if channels == 1 {
        return Ok(picture.to_luma8().as_raw().iter().map(|byte| value(*byte)).collect());
    }
    let pixels = picture.to_rgb8();
    Ok((0..3).flat_map(|channel| pixels.pixels().map(move |pixel| value(pixel.0[channel]))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{picture, png};
    use super::*;

    #[test]
    fn a_picture_read_is_the_sample_that_was_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.png");
        let manifest = Manifest::default();
        for shape in [[1, 2, 3], [3, 1, 2]] {
            let sample = [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0];
            std::fs::write(&file, png(&picture(&sample, &shape, &manifest).unwrap()).unwrap()).unwrap();
            let again = read(&file, &shape, &manifest).unwrap();
            assert!(sample.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1.001 / 255.0), "{again:?}");
        }
        let error = read(&file, &[1, 8, 8], &manifest).unwrap_err().to_string();
        assert!(error.contains("x.png") && error.contains("2×1 pixels, but 8×8"), "{error}");
    }
}
