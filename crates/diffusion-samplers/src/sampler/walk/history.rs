//! The last few estimates of a multistep method, newest first, in buffers that take turns.

use std::collections::VecDeque;

/// The most that a sampler looks back.
pub(crate) const DEPTH: usize = 4;

/// The last estimates, newest first.
pub(crate) struct History {
    kept: VecDeque<Vec<f32>>,
}

impl History {
    /// Room for `depth` estimates in buffers of `len` values, all zero at first.
    pub(crate) fn new(depth: usize, len: usize) -> Self {
        Self { kept: (0..depth).map(|_| vec![0.0; len]).collect() }
    }

    /// Let every estimate be one older; the oldest one's buffer is the newest one's.
    pub(crate) fn push(&mut self) -> &mut [f32] {
        self.kept.rotate_right(1);
        &mut self.kept[0]
    }

    /// The estimate of `age` pushes ago, less than the depth.
    pub(crate) fn estimate(&self, age: usize) -> &[f32] {
        &self.kept[age]
    }

    /// The estimates with these weights, newest first, as terms of a sum.
    pub(crate) fn terms(&self, weights: &[f64; DEPTH]) -> impl Iterator<Item = (f64, &[f32])> {
        weights.iter().zip(&self.kept).map(|(weight, estimate)| (*weight, estimate.as_slice()))
    }
}
