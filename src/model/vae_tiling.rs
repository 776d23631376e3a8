//! Large pictures in overlapping tiles, so that the autoencoder's memory stays that of one tile.
//!
//! Tiles overlap by a quarter, over which each fades into the next; the same as diffusers' tiled autoencoder,
//! whose results differ a little from those of the whole picture at once.

use crate::inference::session::Tensor;

/// How long a side becomes on the other side of the autoencoder.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ratio {
    /// So many times as long.
    Times(usize),
    /// A so manieth.
    Over(usize),
}

impl Ratio {
    pub(crate) fn of(self, length: usize) -> usize {
        match self {
            Self::Times(factor) => length * factor,
            Self::Over(factor) => length / factor,
        }
    }
}

/// What `work` makes of [C, H, W], in tiles whose sides are at most `side` long.
pub(crate) fn tiled<E>(
    whole: &Tensor,
    side: usize,
    ratio: Ratio,
    mut work: impl FnMut(&Tensor) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let (height, width) = (whole.shape[1], whole.shape[2]);
    let step = (side * 3 / 4).max(1);
    let blend = ratio.of(side) / 4;
    let kept = ratio.of(side) - blend;
    let mut result: Option<Tensor> = None;
    let mut above: Vec<Tensor> = Vec::new();
    for (row, top) in (0..height).step_by(step).enumerate() {
        let mut tiles: Vec<Tensor> = Vec::new();
        for (column, left) in (0..width).step_by(step).enumerate() {
            let mut tile = work(&cut(whole, top, left, side))?;
            if row > 0 {
                fade(&above[column], &mut tile, blend, Edge::Top);
            }
            if column > 0 {
                fade(&tiles[column - 1], &mut tile, blend, Edge::Left);
            }
            let result = result
                .get_or_insert_with(|| Tensor::zeros([tile.shape[0], ratio.of(height), ratio.of(width)]));
            paste(&tile, result, row * kept, column * kept, kept);
            tiles.push(tile);
        }
        above = tiles;
    }
    Ok(result.unwrap_or_else(|| whole.clone()))
}

/// The part of [C, H, W] from a corner on, of this side or up to the edge.
fn cut(whole: &Tensor, top: usize, left: usize, side: usize) -> Tensor {
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

/// Let the end of one tile fade into the beginning of the next.
fn fade(before: &Tensor, tile: &mut Tensor, blend: usize, edge: Edge) {
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
                let share = at as f32 / blend as f32;
                let old = before.data[(channel * before.shape[1] + from_row) * before.shape[2] + from_column];
                let new = &mut tile.data[(channel * rows + row) * columns + column];
                *new = old * (1.0 - share) + *new * share;
            }
        }
    }
}

/// Put a tile's first rows and columns into the result.
fn paste(tile: &Tensor, result: &mut Tensor, top: usize, left: usize, kept: usize) {
    let [channels, rows, columns] = [tile.shape[0], tile.shape[1].min(kept), tile.shape[2].min(kept)];
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
    fn tiles_of_what_has_no_edges_make_the_whole() {
        let whole = Tensor::new([2, 21, 13], (0..2 * 21 * 13).map(|i| i as f32).collect());
        let work = |tile: &Tensor| Ok::<_, ()>(tile.clone());
        for side in [4, 8, 12, 64] {
            let tiled = tiled(&whole, side, Ratio::Times(1), work).unwrap();
            let difference =
                tiled.data.iter().zip(&whole.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(tiled.shape == whole.shape && difference < 1e-3, "{side}: {difference}");
        }
    }
}
