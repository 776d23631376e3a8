//! Seeded Gaussian noise: one generator per image, with the same numbers on every machine.
//!
//! The logarithms and trigonometric functions are implemented here or come from `libm`. The platform's own functions
//! differ in the last bits.

mod philox;
mod recorded;
mod torch_mt19937;

use philox::Philox;
pub use recorded::Recorded;
use torch_mt19937::TorchMt19937;

/// The noise of one image. A sampler draws from it in a fixed order.
pub trait NoiseSource {
    /// Fills `z` with independent standard normal numbers.
    fn fill(&mut self, z: &mut [f32]);

    /// Fills `z` with standard normal numbers that have the given `correlation`, between −1 and 1, with `other`, as
    /// two overlapping increments of one Brownian motion have.
    ///
    /// `other` has at least the length of `z`, unless the correlation is 0.
    fn fill_correlated(&mut self, correlation: f64, other: &[f32], z: &mut [f32]) {
        self.fill(z);
        if correlation != 0.0 {
            let (common, fresh) = (correlation as f32, (1.0 - correlation * correlation).sqrt() as f32);
            for (z, other) in z.iter_mut().zip(other) {
                *z = common * other + fresh * *z;
            }
        }
    }
}

/// The noise of one image.
pub type Noise = Box<dyn NoiseSource>;

/// A pseudorandom number generator of PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Generator {
    /// MT19937: the numbers of `torch.randn` with `torch.Generator("cpu").manual_seed(seed)` on x86-64.
    #[default]
    Torch,
    /// Philox4x32-10: the numbers of `torch.randn` with `torch.Generator("cuda").manual_seed(seed)`, for draws that are
    /// no larger than the number of GPU threads.
    Philox,
}

impl Generator {
    /// The names that [`from_name`](Self::from_name) knows.
    pub const NAMES: [&str; 2] = ["torch", "philox"];

    /// The generator's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => Self::NAMES[0],
            Self::Philox => Self::NAMES[1],
        }
    }

    /// The generator with this name, or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Torch, Self::Philox].into_iter().find(|generator| generator.name() == name)
    }

    /// The generator's noise from this seed. [`Torch`](Self::Torch) uses the low 32 bits of the seed, as PyTorch does.
    pub fn seeded(self, seed: u64) -> Noise {
        match self {
            Self::Torch => Box::new(TorchMt19937::new(seed)),
            Self::Philox => Box::new(Philox::new(seed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_has_its_own_standard_normal_numbers() {
        for name in Generator::NAMES {
            let generator = Generator::from_name(name).unwrap();
            let draw = |seed| {
                let mut z = vec![0.0_f32; 100_000];
                generator.seeded(seed).fill(&mut z);
                z
            };
            let (first, repeated, other) = (draw(1), draw(1), draw(2));
            assert_eq!(first, repeated);
            assert_ne!(first, other);
            let mean = first.iter().sum::<f32>() / 1e5;
            let variance = first.iter().map(|z| z * z).sum::<f32>() / 1e5;
            assert!(mean.abs() < 0.02, "{name}: mean {mean}");
            assert!((variance - 1.0).abs() < 0.02, "{name}: variance {variance}");
        }
    }

    #[test]
    fn correlated_noise_is_standard_normal_and_has_its_correlation() {
        let mut noise = Generator::Torch.seeded(1);
        let (mut other, mut z) = (vec![0.0; 100_000], vec![0.0; 100_000]);
        noise.fill(&mut other);
        noise.fill_correlated(0.6, &other, &mut z);
        let correlation = z.iter().zip(&other).map(|(a, b)| a * b).sum::<f32>() / 1e5;
        let variance = z.iter().map(|z| z * z).sum::<f32>() / 1e5;
        assert!((correlation - 0.6).abs() < 0.02, "{correlation}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }
}
