//! Canny's edges (Canny 1986), as OpenCV finds them: `cv2.Canny(picture, 100, 200)` with a 3×3 Sobel filter and |dx| + |dy|
//! as the norm. Of a colour picture, each pixel has the gradient of the channel where it is largest.

/// A gradient above this is part of an edge that has one above [`HIGH`].
const LOW: i32 = 100;
/// A gradient above this begins an edge.
const HIGH: i32 = 200;
/// tan 22.5° in 15 bits after the point.
const TAN_22: i32 = 13573;
const CHANNELS: usize = 3;

/// Whether a pixel is no edge, an edge if another one leads there, or an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pixel {
    None,
    Weak,
    Edge,
}

/// Finds the edges of an RGB picture of 8 bits, row by row.
pub(super) fn canny(rgb: &[u8], width: usize, height: usize) -> Vec<bool> {
    let gradients: Vec<_> = (0..width * height).map(|i| gradient(rgb, width, height, i)).collect();
    let mut pixels = suppressed(&gradients, width, height);
    let mut pending: Vec<usize> = (0..pixels.len()).filter(|i| pixels[*i] == Pixel::Edge).collect();
    while let Some(i) = pending.pop() {
        let (x, y) = (i % width, i / width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for x in x.saturating_sub(1)..(x + 2).min(width) {
                let neighbour = y * width + x;
                if pixels[neighbour] == Pixel::Weak {
                    pixels[neighbour] = Pixel::Edge;
                    pending.push(neighbour);
                }
            }
        }
    }
    pixels.into_iter().map(|pixel| pixel == Pixel::Edge).collect()
}

/// Sobel's dx and dy. Outside of the picture are copies of its border.
fn gradient(rgb: &[u8], width: usize, height: usize, i: usize) -> (i32, i32) {
    let (x, y) = (i % width, i / width);
    let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
    let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
    let of_channel = |channel: usize| {
        let at = |row: usize, column: usize| {
            i32::from(rgb[(rows[row] * width + columns[column]) * CHANNELS + channel])
        };
        let dx = at(0, 2) - at(0, 0) + 2 * (at(1, 2) - at(1, 0)) + at(2, 2) - at(2, 0);
        let dy = at(2, 0) - at(0, 0) + 2 * (at(2, 1) - at(0, 1)) + at(2, 2) - at(0, 2);
        (dx, dy)
    };
    // The first of equals counts.
    (1..CHANNELS)
        .map(of_channel)
        .fold(of_channel(0), |largest, other| if norm(other) > norm(largest) { other } else { largest })
}

fn norm((dx, dy): (i32, i32)) -> i32 {
    dx.abs() + dy.abs()
}

/// Keeps the pixels whose gradient is the largest along its direction, which is one of four.
fn suppressed(gradients: &[(i32, i32)], width: usize, height: usize) -> Vec<Pixel> {
    let norm_at = |x: usize, y: usize, (right, down): (isize, isize)| {
        let (x, y) = (x.checked_add_signed(right), y.checked_add_signed(down));
        match (x.filter(|x| *x < width), y.filter(|y| *y < height)) {
            (Some(x), Some(y)) => norm(gradients[y * width + x]),
            _ => 0,
        }
    };
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        let (dx, dy) = gradients[i];
        let own = norm((dx, dy));
        if own <= LOW {
            return Pixel::None;
        }
        let at = |offset| norm_at(x, y, offset);
        let (across, along) = (i64::from(dx.abs()), i64::from(dy.abs()) << 15);
        let tan_22 = across * i64::from(TAN_22);
        let tan_67 = tan_22 + (across << 16);
        let is_largest = if along < tan_22 {
            own > at((-1, 0)) && own >= at((1, 0))
        } else if along > tan_67 {
            own > at((0, -1)) && own >= at((0, 1))
        } else {
            let side = if (dx ^ dy) < 0 { -1 } else { 1 };
            own > at((-side, -1)) && own > at((side, 1))
        };
        match (is_largest, own > HIGH) {
            (false, _) => Pixel::None,
            (true, false) => Pixel::Weak,
            (true, true) => Pixel::Edge,
        }
    };
    (0..gradients.len()).map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24×20 pixels of circles, lines and noise, and what OpenCV 5.0 finds in them (tests/golden/live/scripts/canny.py).
    #[test]
    fn edges_are_those_of_opencv() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/live/canny.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let found = canny(&case.rgb, case.width, case.height);
            let rows: Vec<String> = found
                .chunks(case.width)
                .map(|row| row.iter().map(|x| if *x { '#' } else { '.' }).collect())
                .collect();
            assert_eq!(rows, case.edges);
        }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        width: usize,
        height: usize,
        rgb: Vec<u8>,
        edges: Vec<String>,
    }
}
