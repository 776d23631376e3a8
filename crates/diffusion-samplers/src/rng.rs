//! Seeded noise: one generator an image, the same numbers on every machine.
//!
//! The logarithms and circular functions behind the normal numbers are written out here or come
//! from a library in pure Rust, never from the platform, whose last bits differ.

mod philox;
mod torch_mt19937;

use std::cell::Cell;
use std::rc::Rc;

pub use philox::Philox;
pub use torch_mt19937::TorchMt19937;

/// Where an image's noise comes from.
pub trait NoiseSource {
    /// Fill with independent standard normal numbers.
    fn fill(&mut self, z: &mut [f32]);

    /// Fill with standard normal numbers whose correlation with `beside` is `shared`, as two
    /// stretches of one Brownian motion that overlap have it.
    fn fill_beside(&mut self, shared: f64, beside: &[f32], z: &mut [f32]) {
        self.fill(z);
        if shared != 0.0 {
            let (kept, fresh) = (shared as f32, (1.0 - shared * shared).sqrt() as f32);
            for (z, beside) in z.iter_mut().zip(beside) {
                *z = kept * beside + fresh * *z;
            }
        }
    }
}

/// One image's noise.
pub type Noise = Box<dyn NoiseSource>;

/// The generator behind a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Generator {
    /// What `torch.Generator("cpu").manual_seed(seed)` gives on x86-64.
    #[default]
    Torch,
    /// What torch gives on CUDA.
    Philox,
}

impl Generator {
    /// The generators' names.
    pub const NAMES: [&str; 2] = ["torch", "philox"];

    /// The name that people type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => Self::NAMES[0],
            Self::Philox => Self::NAMES[1],
        }
    }

    /// The generator with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Torch, Self::Philox].into_iter().find(|generator| generator.name() == name)
    }

    /// A source that starts at this seed.
    pub fn seeded(self, seed: u64) -> Noise {
        match self {
            Self::Torch => Box::new(TorchMt19937::new(seed)),
            Self::Philox => Box::new(Philox::new(seed)),
        }
    }
}

/// Noise that was recorded beforehand, draw by draw.
#[derive(Debug)]
pub struct Recorded {
    draws: std::vec::IntoIter<Vec<f32>>,
    missing: Rc<Cell<usize>>,
}

impl Recorded {
    /// Play these draws in order. The counter tells how many draws were asked for beyond them;
    /// such a draw is filled with NaN.
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

    /// What was recorded already has the correlation that it had.
    fn fill_beside(&mut self, _: f64, _: &[f32], z: &mut [f32]) {
        self.fill(z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_noise_is_played_in_order_and_its_end_is_told() {
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

    #[test]
    fn seeds_give_standard_normal_numbers_that_differ() {
        for name in Generator::NAMES {
            let generator = Generator::from_name(name).unwrap();
            let draw = |seed| {
                let mut z = vec![0.0_f32; 100_000];
                generator.seeded(seed).fill(&mut z);
                z
            };
            let (one, again, other) = (draw(1), draw(1), draw(2));
            assert_eq!(one, again);
            assert_ne!(one, other);
            let mean = one.iter().sum::<f32>() / 1e5;
            let variance = one.iter().map(|z| z * z).sum::<f32>() / 1e5;
            assert!(mean.abs() < 0.02, "{name}: mean {mean}");
            assert!((variance - 1.0).abs() < 0.02, "{name}: variance {variance}");
        }
    }
}
