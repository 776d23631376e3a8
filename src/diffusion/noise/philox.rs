//! torch's CUDA generator: Philox4x32-10 (Salmon et al. 2011) and Box–Muller, the first of each
//! thread's numbers. Draws larger than a GPU's threads at once are laid out by its size, which
//! no other machine can know; here every number has a thread of its own.

use super::NoiseSource;

/// Standard normal numbers as torch draws them on CUDA.
#[derive(Debug, Clone)]
pub struct Philox {
    key: [u32; 2],
    draw: u32,
}

impl Philox {
    /// Start at a seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], draw: 0 }
    }
}

impl NoiseSource for Philox {
    fn fill(&mut self, z: &mut [f32]) {
        for (thread, z) in z.iter_mut().enumerate() {
            let thread = thread as u64;
            let counter = [self.draw, 0, thread as u32, (thread >> 32) as u32];
            let [a, b, ..] = philox4x32_10(counter, self.key);
            *z = box_muller(a, b);
        }
        self.draw += 1;
    }
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9e37_79b9);
            key[1] = key[1].wrapping_add(0xbb67_ae85);
        }
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

fn box_muller(a: u32, b: u32) -> f32 {
    const UNIT: f64 = 1.0 / 4_294_967_296.0;
    let u = f64::from(a) * UNIT + UNIT / 2.0;
    let v = (f64::from(b) * UNIT + UNIT / 2.0) * std::f64::consts::TAU;
    ((-2.0 * libm::log(u)).sqrt() * libm::sin(v)) as f32
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// The known answers of Random123's `kat_vectors`.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }
}
