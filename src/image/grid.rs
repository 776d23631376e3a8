//! Several images in one.

use image::imageops::FilterType;
use image::{DynamicImage, GenericImage};

use super::ImageError;

/// The space between the images, in pixels.
const GAP: u32 = 2;

/// Arranges images of one size in a grid that is as square as possible, each enlarged by a whole factor.
pub fn grid(images: &[DynamicImage], factor: u32) -> Result<DynamicImage, ImageError> {
    rows(&images.chunks(columns(images.len())).map(<[_]>::to_vec).collect::<Vec<_>>(), factor)
}

/// The width and height of a [`grid`] of this many images of one size.
pub fn grid_size(count: usize, [width, height]: [u32; 2]) -> [u32; 2] {
    let columns = columns(count);
    [sheet_side(columns, width), sheet_side(count.div_ceil(columns), height)]
}

fn columns(count: usize) -> usize {
    ((count as f64).sqrt().ceil() as usize).max(1)
}

/// The length of a sheet with this many images beside each other.
fn sheet_side(count: usize, each: u32) -> u32 {
    let side = count as u64 * (u64::from(each) + u64::from(GAP)) + u64::from(GAP);
    u32::try_from(side).unwrap_or(u32::MAX)
}

/// Rows of images of the same size, each enlarged by `factor`.
pub fn rows(rows: &[Vec<DynamicImage>], factor: u32) -> Result<DynamicImage, ImageError> {
    let Some(first) = rows.first().and_then(|row| row.first()) else {
        return Err(ImageError::Encode("there is no image".to_owned()));
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (w, h) = (first.width() * factor, first.height() * factor);
    let mut sheet = DynamicImage::new(sheet_side(columns, w), sheet_side(rows.len(), h), first.color());
    for (y, row) in (0_u32..).zip(rows) {
        for (x, image) in (0_u32..).zip(row) {
            let large = image.resize_exact(w, h, FilterType::Nearest);
            sheet
                .copy_from(&large, GAP + x * (w + GAP), GAP + y * (h + GAP))
                .map_err(|error| ImageError::Encode(error.to_string()))?;
        }
    }
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use image::GrayImage;

    use super::*;

    #[test]
    fn a_grid_holds_every_image_in_order() {
        let tile = |value| GrayImage::from_pixel(2, 2, image::Luma([value])).into();
        let sheet = grid(&[tile(10), tile(20), tile(30)], 1).unwrap();
        assert_eq!(grid_size(3, [2, 2]), [sheet.width(), sheet.height()]);
        assert_eq!(grid_size(16, [28, 30]), [4 * 30 + 2, 4 * 32 + 2]);
        assert_eq!((sheet.width(), sheet.height()), (10, 10));
        let gray = sheet.to_luma8();
        let at = |x, y| gray.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 2), at(2, 6), at(6, 6)], [10, 20, 30, 0]);
    }

    #[test]
    fn rows_keep_their_order() {
        let tile = |value| DynamicImage::from(GrayImage::from_pixel(2, 2, image::Luma([value])));
        let sheet = rows(&[vec![tile(10), tile(20)], vec![tile(30)]], 1).unwrap().to_luma8();
        assert_eq!(sheet.dimensions(), (10, 10));
        let at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 2), at(2, 6), at(6, 6)], [10, 20, 30, 0]);
    }
}
