//! Runs the autoencoder in overlapping tiles, so that a large image takes the memory of one tile.
//!
//! Tiles overlap by a quarter, in which they are blended, as in diffusers' tiled autoencoder. The result differs a little
//! from that of the whole image.

use crate::tensor::Tensor;

/// How the autoencoder changes lengths.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// Multiplies lengths by this factor.
    Up(usize),
    /// Divides lengths by this factor.
    Down(usize),
}

impl Scale {
    pub(super) fn apply(self, length: usize) -> usize {
        match self {
            Self::Up(factor) => length * factor,
            Self::Down(factor) => length / factor,
        }
    }
}

/// Applies `run` to a tensor [C, H, W] in tiles whose sides have at most the length `side`.
pub(super) fn tiled<E>(
    whole: &Tensor,
    side: usize,
    scale: Scale,
    mut run: impl FnMut(&Tensor) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let (height, width) = (whole.shape[1], whole.shape[2]);
    let step = (side * 3 / 4).max(1);
    let blend = scale.apply(side) / 4;
    let stride = scale.apply(side) - blend;
    let mut result: Option<Tensor> = None;
    let mut above: Vec<Tensor> = Vec::new();
    for (row, top) in (0..height).step_by(step).enumerate() {
        let mut tiles: Vec<Tensor> = Vec::new();
        for (column, left) in (0..width).step_by(step).enumerate() {
            let mut tile = run(&crop(whole, top, left, side))?;
            if row > 0 {
                blend_edge(&above[column], &mut tile, blend, Edge::Top);
            }
            if column > 0 {
                blend_edge(&tiles[column - 1], &mut tile, blend, Edge::Left);
            }
            let result = result.get_or_insert_with(|| {
                Tensor::zeros([tile.shape[0], scale.apply(height), scale.apply(width)])
            });
            paste(&tile, result, row * stride, column * stride, stride);
            tiles.push(tile);
        }
        above = tiles;
    }
    Ok(result.unwrap_or_else(|| whole.clone()))
}

/// The square of this side at a corner of [C, H, W], or what of it is within the edges.
fn crop(whole: &Tensor, top: usize, left: usize, side: usize) -> Tensor {
    let [channels, height, width] = [whole.shape[0], whole.shape[1], whole.shape[2]];
    let (rows, columns) = (side.min(height - top), side.min(width - left));
    let mut data = Vec::with_capacity(channels * rows * columns);
    for channel in 0..channels {
        for row in top..top + rows {
            data.extend_from_slice(&whole.data[(channel * height + row) * width + left..][..columns]);
        }
    }
    Tensor::new([channels, rows, columns], data)
}

#[derive(Debug, Clone, Copy)]
enum Edge {
    Top,
    Left,
}

/// Blends the end of the tile before into the start of `tile`, over `blend` rows or columns.
fn blend_edge(before: &Tensor, tile: &mut Tensor, blend: usize, edge: Edge) {
    let [channels, rows, columns] = [tile.shape[0], tile.shape[1], tile.shape[2]];
    let axis = if matches!(edge, Edge::Top) { 1 } else { 2 };
    let blend = blend.min(before.shape[axis]).min(tile.shape[axis]);
    for channel in 0..channels {
        for row in 0..rows {
            for column in 0..columns {
                let (at, from_row, from_column) = match edge {
                    Edge::Top => (row, (before.shape[1] - blend + row), column),
                    Edge::Left => (column, row, (before.shape[2] - blend + column)),
                };
                if at >= blend || from_row >= before.shape[1] || from_column >= before.shape[2] {
                    continue;
                }
                let weight = at as f32 / blend as f32;
                let old = before.data[(channel * before.shape[1] + from_row) * before.shape[2] + from_column];
                let new = &mut tile.data[(channel * rows + row) * columns + column];
                *new = old * (1.0 - weight) + *new * weight;
            }
        }
    }
}

/// Copies at most `stride` rows and columns of a tile into the result.
fn paste(tile: &Tensor, result: &mut Tensor, top: usize, left: usize, stride: usize) {
    let [channels, rows, columns] = [tile.shape[0], tile.shape[1].min(stride), tile.shape[2].min(stride)];
    let (height, width) = (result.shape[1], result.shape[2]);
    let (rows, columns) = (rows.min(height.saturating_sub(top)), columns.min(width.saturating_sub(left)));
    for channel in 0..channels {
        for row in 0..rows {
            let from = (channel * tile.shape[1] + row) * tile.shape[2];
            let to = (channel * height + top + row) * width + left;
            result.data[to..to + columns].copy_from_slice(&tile.data[from..from + columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_of_the_identity_make_the_whole() {
        let whole = Tensor::new([2, 21, 13], (0..2 * 21 * 13).map(|i| i as f32).collect());
        let identity = |tile: &Tensor| Ok::<_, ()>(tile.clone());
        for side in [4, 8, 12, 64] {
            let tiled = tiled(&whole, side, Scale::Up(1), identity).unwrap();
            let difference =
                tiled.data.iter().zip(&whole.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(tiled.shape == whole.shape && difference < 1e-3, "{side}: {difference}");
        }
    }
}
