//! Figures: pictures in labelled rows, and arrows for a drift.

use image::{DynamicImage, GenericImage, GrayImage, Luma};

use super::{GAP, ImageError, SCATTER};

/// Rows of pictures of one size, each enlarged by a whole factor.
pub fn rows(rows: &[Vec<DynamicImage>], factor: u32) -> Result<DynamicImage, ImageError> {
    let Some(first) = rows.first().and_then(|row| row.first()) else {
        return Err(ImageError::Encode("there is no picture".to_owned()));
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let (w, h) = (first.width() * factor, first.height() * factor);
    let size = |n: u32, each: u32| n * (each + GAP) + GAP;
    let mut sheet = DynamicImage::new(size(columns, w), size(rows.len() as u32, h), first.color());
    for (y, row) in (0_u32..).zip(rows) {
        for (x, picture) in (0_u32..).zip(row) {
            let large = picture.resize_exact(w, h, image::imageops::FilterType::Nearest);
            sheet
                .copy_from(&large, GAP + x * (w + GAP), GAP + y * (h + GAP))
                .map_err(|error| ImageError::Encode(error.to_string()))?;
        }
    }
    Ok(sheet)
}

/// An arrow from each point along its drift, on white; the range is that of both axes.
///
/// The longest arrow spans a twelfth of the picture, for a step's drift is tiny.
pub fn arrows(points: &[f32], drift: &[f32], [low, high]: [f32; 2]) -> GrayImage {
    let mut picture = GrayImage::from_pixel(SCATTER, SCATTER, Luma([255]));
    let longest = drift.chunks_exact(2).map(|d| d[0].hypot(d[1])).fold(f32::MIN_POSITIVE, f32::max);
    let scale = SCATTER as f32 / 12.0 / longest;
    let to_pixel = |x: f32| (x - low) / (high - low) * SCATTER as f32;
    for (point, drift) in points.chunks_exact(2).zip(drift.chunks_exact(2)) {
        // The second axis points upwards.
        let (x, y) = (to_pixel(point[0]), SCATTER as f32 - to_pixel(point[1]));
        let (dx, dy) = (drift[0] * scale, -drift[1] * scale);
        line(&mut picture, (x, y), (x + dx, y + dy));
        for side in [0.4_f32, -0.4] {
            let (sin, cos) = side.sin_cos();
            let head = (-0.3 * (dx * cos - dy * sin), -0.3 * (dx * sin + dy * cos));
            line(&mut picture, (x + dx, y + dy), (x + dx + head.0, y + dy + head.1));
        }
    }
    picture
}

fn line(picture: &mut GrayImage, from: (f32, f32), to: (f32, f32)) {
    let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().min(4.0 * SCATTER as f32);
    for i in 0..=steps as u32 {
        let share = if steps > 0.0 { i as f32 / steps } else { 0.0 };
        let (x, y) = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
        if (0.0..SCATTER as f32).contains(&x) && (0.0..SCATTER as f32).contains(&y) {
            picture.put_pixel(x as u32, y as u32, Luma([40]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order() {
        let tile = |value| DynamicImage::from(GrayImage::from_pixel(2, 2, Luma([value])));
        let sheet = rows(&[vec![tile(10), tile(20)], vec![tile(30)]], 1).unwrap().to_luma8();
        assert_eq!(sheet.dimensions(), (10, 10));
        let at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 2), at(2, 6), at(6, 6)], [10, 20, 30, 0]);
    }

    #[test]
    fn arrows_point_along_the_drift_and_wild_ones_do_no_harm() {
        let picture =
            arrows(&[0.0, 0.0, f32::NAN, 1.0, 1e30, 0.0], &[0.1, 0.0, 0.0, 0.1, 0.0, 0.0], [-1.0, 1.0]);
        let dark = |x, y| picture.get_pixel(x, y).0[0] < 128;
        assert!(dark(128, 128) && dark(145, 128) && !dark(110, 128));
    }
}
