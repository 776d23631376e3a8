//! Chooses the tiles of an autoencoder by the memory budget.

use crate::inference::{EvaluationSize, SessionMemory};

/// The height and width in latents of the evaluation from which larger ones are predicted: 128×128 pixels for most
/// autoencoders.
pub(super) const CALIBRATION_SIDE: usize = 16;
/// The sides of tiles are multiples of this many latents.
const STEP: usize = 8;
/// Tiles smaller than this many latents take other sessions' memory rather than becoming smaller.
const MIN_SIDE_BESIDE_OTHERS: usize = 32;

/// The most working memory for one pixel of the picture, without attention. Stable Diffusion's decoder takes 5.4 KiB: two or
/// three maps of 256 channels in float32.
const MAX_BYTES_PER_PIXEL: u64 = 32 << 10;

/// A picture or a latent that an autoencoder processes, in latents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) height: usize,
    pub(super) width: usize,
    /// The values of the input for one position of the latent.
    pub(super) values: usize,
}

impl Extent {
    fn tile(self, side: usize) -> EvaluationSize {
        let positions = self.height.min(side) * self.width.min(side);
        EvaluationSize { values: (positions * self.values) as u64, batch: 1 }
    }
}

/// Returns the side in latents of the largest tiles that fit in the budget. `None` if the whole fits.
///
/// Tiles leave room for `others`, the memory of the denoiser, unless they would be small. If even the smallest tile does
/// not fit, it is returned all the same.
pub(super) fn largest_tile(memory: &SessionMemory, extent: Extent, batch: u64, others: u64) -> Option<usize> {
    let budget = memory.budget()?;
    let fits =
        |side: usize, room: u64| memory.required(EvaluationSize { batch, ..extent.tile(side) }) <= room;
    let longest = extent.height.max(extent.width);
    let largest = |room: u64, min: usize| {
        let whole = fits(longest, room).then_some(longest);
        whole.or_else(|| {
            (min / STEP..longest.div_ceil(STEP)).rev().map(|n| n * STEP).find(|side| fits(*side, room))
        })
    };
    let side =
        largest(budget.saturating_sub(others), MIN_SIDE_BESIDE_OTHERS).or_else(|| largest(budget, STEP));
    Some(side.unwrap_or(STEP)).filter(|side| *side < longest)
}

/// Whether the whole fits beside `others` by a bound that no autoencoder exceeds, so that none of its evaluations has to be
/// measured. A latent has `factor` pixels on each side.
pub(super) fn fits_unmeasured(
    memory: &SessionMemory,
    extent: Extent,
    factor: usize,
    batch: u64,
    others: u64,
) -> bool {
    let Some(budget) = memory.budget() else { return true };
    let pixels = (extent.height * extent.width * factor * factor) as u64 * batch;
    let size = EvaluationSize { batch, ..extent.tile(extent.height.max(extent.width)) };
    let bound = memory.required_at_most(size).saturating_add(pixels.saturating_mul(MAX_BYTES_PER_PIXEL));
    bound.saturating_add(others) <= budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_unmeasured_by_32_kib_for_each_pixel() {
        let fits = |budget: u64, others: u64| {
            let memory = SessionMemory::known(1000, Some(budget), &[]);
            fits_unmeasured(&memory, Extent { height: 32, width: 16, values: 4 }, 8, 2, others)
        };
        let bound = 1000 + 2 * (32 * 8) * (16 * 8) * (32 << 10);
        assert!(fits(bound, 0) && !fits(bound - 1, 0));
        assert!(fits(bound + 500, 500) && !fits(bound + 500, 501));
        let unlimited = SessionMemory::known(1000, None, &[]);
        assert!(fits_unmeasured(&unlimited, Extent { height: 32, width: 16, values: 4 }, 8, 2, 0));
    }

    /// An autoencoder with 1000 bytes of weights that needs 10 bytes for each value.
    fn tile(budget: Option<u64>, height: usize, width: usize, others: u64) -> Option<usize> {
        let memory =
            SessionMemory::known(1000, budget, &[(EvaluationSize { values: 1024, batch: 1 }, 10_240)]);
        largest_tile(&memory, Extent { height, width, values: 4 }, 1, others)
    }

    #[test]
    fn tiles_are_as_large_as_the_budget_allows() {
        assert_eq!(tile(None, 128, 128, 0), None);
        // The whole: 1000 + 40 · 128².
        assert_eq!(tile(Some(656_360), 128, 128, 0), None);
        assert_eq!(tile(Some(656_359), 128, 128, 0), Some(120));
        assert_eq!(tile(Some(1000 + 40 * 64 * 64), 128, 128, 0), Some(64));
        // A narrow picture has narrow tiles, which may be longer.
        assert_eq!(tile(Some(1000 + 40 * 64 * 64), 128, 32, 0), None);
        assert_eq!(tile(Some(1000 + 40 * 64 * 64), 256, 32, 0), Some(128));
        assert_eq!(tile(Some(10), 128, 128, 0), Some(8));
    }

    #[test]
    fn tiles_leave_room_for_the_denoiser_unless_they_would_be_small() {
        let room = |side: u64| 1000 + 40 * side * side;
        assert_eq!(tile(Some(5000 + room(64)), 128, 128, 5000), Some(64));
        assert_eq!(tile(Some(room(64)), 128, 128, 150_000), Some(64));
        assert_eq!(tile(Some(room(24)), 128, 128, 5000), Some(24));
    }
}
