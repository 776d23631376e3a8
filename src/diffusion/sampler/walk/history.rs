//! The last few estimates of a multistep method, newest first, in buffers that take turns.

use std::collections::VecDeque;

/// The most that a sampler looks back.
pub(crate) const DEPTH: usize = 4;

/// The last estimates, newest first.
pub(crate) struct History {
    kept: VecDeque<Vec<f32>>,
}

impl History {
    /// Room for `depth` estimates of `len` values, all zero at first.
    pub(crate) fn new(depth: usize, len: usize) -> Self {
        Self { kept: (0..depth).map(|_| vec![0.0; len]).collect() }
    }

    /// Take an estimate in by swapping it with the oldest one's buffer.
    pub(crate) fn push(&mut self, newest: &mut Vec<f32>) {
        self.kept.rotate_right(1);
        std::mem::swap(&mut self.kept[0], newest);
    }

    /// The estimate of `age` pushes ago, less than the depth.
    pub(crate) fn estimate(&self, age: usize) -> &[f32] {
        &self.kept[age]
    }

    /// The estimates with these weights, newest first, as terms of a sum, then one more term.
    ///
    /// Weights of 0 are left out; the number of terms is told.
    pub(crate) fn terms<'a>(
        &'a self,
        weights: &[f64; DEPTH],
        further: Option<(f64, &'a [f32])>,
    ) -> ([(f64, &'a [f32]); DEPTH + 1], usize) {
        let mut terms: [(f64, &[f32]); DEPTH + 1] = [(0.0, &[]); DEPTH + 1];
        let mut count = 0;
        let kept = weights.iter().zip(&self.kept).map(|(w, v)| (*w, v.as_slice()));
        for term in kept.filter(|(w, _)| *w != 0.0).chain(further) {
            terms[count] = term;
            count += 1;
        }
        (terms, count)
    }
}
