//! Masks of OpenAI's API mark the part to draw by transparency; those of jobs mark it white.

use std::io::Cursor;

use image::{DynamicImage, GenericImageView, GrayImage, ImageDecoder, ImageFormat, ImageReader, Luma};

/// Returns a PNG file that is white where the picture is transparent; `None` if the picture has no transparency.
pub(crate) fn mask_of_transparency(file: &[u8], max_pixels: u64) -> Result<Option<Vec<u8>>, String> {
    let fault = |error: image::ImageError| format!("the picture cannot be read: {error}");
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let decoder = reader.map_err(|error| error.to_string())?.into_decoder().map_err(fault)?;
    if !decoder.color_type().has_alpha() {
        return Ok(None);
    }
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!(
            "the picture has {width}×{height} pixels, and at most {max_pixels} are accepted (limits.pixels)"
        ));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(fault)?;
    let mask = GrayImage::from_fn(width, height, |x, y| Luma([255 - picture.get_pixel(x, y).0[3]]));
    let mut png = Cursor::new(Vec::new());
    mask.write_to(&mut png, ImageFormat::Png).map_err(fault)?;
    Ok(Some(png.into_inner()))
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn file(picture: &DynamicImage) -> Vec<u8> {
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).unwrap();
        png.into_inner()
    }

    #[test]
    fn transparent_pixels_become_white() {
        let alpha = |x: u32| [0, 128, 255][x as usize];
        let picture = RgbaImage::from_fn(3, 1, |x, _| Rgba([9, 9, 9, alpha(x)]));
        let file = file(&picture.into());
        let mask = mask_of_transparency(&file, 3).unwrap().unwrap();
        let mask = image::load_from_memory(&mask).unwrap().into_luma8();
        assert_eq!(mask.into_raw(), [255, 127, 0]);
        let fault = mask_of_transparency(&file, 2).unwrap_err();
        assert_eq!(fault, "the picture has 3×1 pixels, and at most 2 are accepted (limits.pixels)");
    }

    #[test]
    fn a_mask_without_transparency_stays_as_it_is() {
        let file = file(&RgbImage::from_pixel(2, 2, Rgb([255, 255, 255])).into());
        assert_eq!(mask_of_transparency(&file, 1), Ok(None));
        assert!(mask_of_transparency(b"x", 1).is_err());
    }
}
