//! Scatter plots of two-dimensional points.

use image::{GrayImage, Luma};

/// The width and height of a plot, in pixels.
pub(super) const SIDE: u32 = 256;

/// Draws points as dark discs on white; `low` and `high` bound both axes.
pub(super) fn scatter(points: &[f32], [low, high]: [f32; 2]) -> GrayImage {
    const RADIUS: f32 = 1.3;
    let mut plot = GrayImage::from_pixel(SIDE, SIDE, Luma([255]));
    let to_pixel = |x: f32| (x - low) / (high - low) * SIDE as f32;
    for point in points.chunks_exact(2) {
        // The second axis points upwards.
        let (x, y) = (to_pixel(point[0]), SIDE as f32 - to_pixel(point[1]));
        if !(x.is_finite() && y.is_finite()) {
            continue;
        }
        for py in (y - 3.0) as i64..=(y + 3.0) as i64 {
            for px in (x - 3.0) as i64..=(x + 3.0) as i64 {
                let inside = 0..i64::from(SIDE);
                if !inside.contains(&px) || !inside.contains(&py) {
                    continue;
                }
                let distance = (px as f32 + 0.5 - x).hypot(py as f32 + 0.5 - y);
                let ink = (RADIUS + 0.5 - distance).clamp(0.0, 1.0) * 0.7;
                let pixel = plot.get_pixel_mut(px as u32, py as u32);
                pixel.0[0] = (f32::from(pixel.0[0]) * (1.0 - ink)) as u8;
            }
        }
    }
    plot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_drawn_and_non_finite_or_distant_ones_are_skipped() {
        let plot = scatter(&[0.0, 0.0, f32::NAN, 1.0, 1e30, -1e30, 0.5, 0.5], [-1.0, 1.0]);
        let at = |x, y| plot.get_pixel(x, y).0[0];
        assert!(at(128, 128) < 128 && at(192, 64) < 128);
        assert_eq!(at(10, 10), 255);
    }
}
