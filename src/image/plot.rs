//! Plots of two-dimensional points: scatter plots and arrows.

use image::{GrayImage, Luma};

/// The width and height of a plot, in pixels.
const PLOT_SIZE: u32 = 256;

/// A plot of points as dark discs on white. `range` is that of both axes; the second one points upwards.
pub(super) fn scatter(points: &[f32], range: [f32; 2]) -> GrayImage {
    const RADIUS: f32 = 1.3;
    let mut plot = GrayImage::from_pixel(PLOT_SIZE, PLOT_SIZE, Luma([255]));
    for point in points.chunks_exact(2) {
        let (x, y) = to_pixel(point, range);
        if !(x.is_finite() && y.is_finite()) {
            continue;
        }
        let near = |centre: f32| (centre - 3.0) as i64..=(centre + 3.0) as i64;
        for (px, py) in near(y).flat_map(|py| near(x).map(move |px| (px, py))) {
            let inside = 0..i64::from(PLOT_SIZE);
            if inside.contains(&px) && inside.contains(&py) {
                let distance = (px as f32 + 0.5 - x).hypot(py as f32 + 0.5 - y);
                let ink = (RADIUS + 0.5 - distance).clamp(0.0, 1.0) * 0.7;
                let pixel = plot.get_pixel_mut(px as u32, py as u32);
                pixel.0[0] = (f32::from(pixel.0[0]) * (1.0 - ink)) as u8;
            }
        }
    }
    plot
}

/// A plot of an arrow from each point along its drift. `range` is that of both axes.
///
/// The drifts are scaled so that the longest arrow is a twelfth of the plot's width.
pub fn arrows(points: &[f32], drift: &[f32], range: [f32; 2]) -> GrayImage {
    let mut plot = GrayImage::from_pixel(PLOT_SIZE, PLOT_SIZE, Luma([255]));
    let longest = drift.chunks_exact(2).map(|d| d[0].hypot(d[1])).fold(f32::MIN_POSITIVE, f32::max);
    let scale = PLOT_SIZE as f32 / 12.0 / longest;
    for (point, drift) in points.chunks_exact(2).zip(drift.chunks_exact(2)) {
        let (x, y) = to_pixel(point, range);
        let (dx, dy) = (drift[0] * scale, -drift[1] * scale);
        line(&mut plot, (x, y), (x + dx, y + dy));
        for angle in [0.4_f32, -0.4] {
            let (sin, cos) = angle.sin_cos();
            let head = (-0.3 * (dx * cos - dy * sin), -0.3 * (dx * sin + dy * cos));
            line(&mut plot, (x + dx, y + dy), (x + dx + head.0, y + dy + head.1));
        }
    }
    plot
}

fn to_pixel(point: &[f32], [low, high]: [f32; 2]) -> (f32, f32) {
    let scaled = |x: f32| (x - low) / (high - low) * PLOT_SIZE as f32;
    (scaled(point[0]), PLOT_SIZE as f32 - scaled(point[1]))
}

fn line(plot: &mut GrayImage, from: (f32, f32), to: (f32, f32)) {
    let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().min(4.0 * PLOT_SIZE as f32);
    for i in 0..=steps as u32 {
        let share = if steps > 0.0 { i as f32 / steps } else { 0.0 };
        let (x, y) = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
        if (0.0..PLOT_SIZE as f32).contains(&x) && (0.0..PLOT_SIZE as f32).contains(&y) {
            plot.put_pixel(x as u32, y as u32, Luma([40]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scatter_plot_marks_its_points_and_ignores_non_finite_ones() {
        let picture = scatter(&[0.0, 0.0, f32::NAN, 1.0, 1e30, -1e30, 0.5, 0.5], [-1.0, 1.0]);
        let at = |x, y| picture.get_pixel(x, y).0[0];
        assert!(at(128, 128) < 128 && at(192, 64) < 128);
        assert_eq!(at(10, 10), 255);
    }

    #[test]
    fn arrows_point_along_the_drift_and_non_finite_ones_are_harmless() {
        let plot =
            arrows(&[0.0, 0.0, f32::NAN, 1.0, 1e30, 0.0], &[0.1, 0.0, 0.0, 0.1, 0.0, 0.0], [-1.0, 1.0]);
        let dark = |x, y| plot.get_pixel(x, y).0[0] < 128;
        assert!(dark(128, 128) && dark(145, 128) && !dark(110, 128));
    }
}
