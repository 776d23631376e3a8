//! Several images in one.

use image::DynamicImage;

use super::{ImageError, rows};

/// The space between the images of a grid, in pixels.
pub(super) const GAP: u32 = 2;

/// Arranges images of one size in a grid that is as square as possible, each enlarged by a whole factor.
pub fn grid(images: &[DynamicImage], factor: u32) -> Result<DynamicImage, ImageError> {
    let columns = (images.len() as f64).sqrt().ceil() as usize;
    rows(&images.chunks(columns.max(1)).map(<[_]>::to_vec).collect::<Vec<_>>(), factor)
}

#[cfg(test)]
mod tests {
    use image::GrayImage;

    use super::*;

    #[test]
    fn a_grid_holds_every_image_in_order() {
        let tile = |value| GrayImage::from_pixel(2, 2, image::Luma([value])).into();
        let sheet = grid(&[tile(10), tile(20), tile(30)], 1).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (10, 10));
        let gray = sheet.to_luma8();
        let at = |x, y| gray.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 2), at(2, 6), at(6, 6)], [10, 20, 30, 0]);
    }
}
