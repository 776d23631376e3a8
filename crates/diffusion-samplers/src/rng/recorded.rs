use std::cell::Cell;
use std::rc::Rc;

use super::NoiseSource;

/// Noise that was recorded before, draw by draw, for a comparison with another implementation.
#[derive(Debug)]
pub struct Recorded {
    draws: std::vec::IntoIter<Vec<f32>>,
    missing: Rc<Cell<usize>>,
}

impl Recorded {
    /// Returns the `draws` in their order, and the number of draws that had no recorded one of their length. Such a
    /// draw is filled with NaN.
    pub fn new(draws: Vec<Vec<f32>>) -> (Self, Rc<Cell<usize>>) {
        let missing = Rc::new(Cell::new(0));
        let recorded = Self { draws: draws.into_iter(), missing: Rc::clone(&missing) };
        (recorded, missing)
    }
}

impl NoiseSource for Recorded {
    fn fill(&mut self, z: &mut [f32]) {
        match self.draws.next() {
            Some(draw) if draw.len() == z.len() => z.copy_from_slice(&draw),
            _ => {
                self.missing.set(self.missing.get() + 1);
                z.fill(f32::NAN);
            }
        }
    }

    /// A recorded draw already has its correlation.
    fn fill_correlated(&mut self, _: f64, _: &[f32], z: &mut [f32]) {
        self.fill(z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_noise_is_replayed_in_order_and_missing_draws_are_counted() {
        let (mut noise, missing) = Recorded::new(vec![vec![1.0], vec![2.0]]);
        let mut z = [0.0];
        noise.fill(&mut z);
        assert_eq!(z, [1.0]);
        noise.fill(&mut z);
        assert_eq!((z, missing.get()), ([2.0], 0));
        noise.fill(&mut z);
        assert!(z[0].is_nan());
        assert_eq!(missing.get(), 1);
    }
}
