//! PyTorch's CUDA generator: Philox4x32-10 (Salmon et al. 2011) and the Box–Muller transform.
//!
//! Each GPU thread generates one number. For a draw that is larger than the number of threads, PyTorch's order depends
//! on the GPU; here every number has a thread of its own.

use super::NoiseSource;
use crate::simd::dispatch;

#[derive(Debug, Clone)]
pub(super) struct Philox {
    key: [u32; 2],
    draw: u32,
}

impl Philox {
    pub(super) fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], draw: 0 }
    }
}

impl NoiseSource for Philox {
    fn fill(&mut self, z: &mut [f32]) {
        let (key, draw) = (self.key, self.draw);
        dispatch(
            #[inline(always)]
            move || {
                for (thread, z) in z.iter_mut().enumerate() {
                    let thread = thread as u64;
                    let counter = [draw, 0, thread as u32, (thread >> 32) as u32];
                    let [a, b, ..] = philox4x32_10(counter, key);
                    *z = box_muller(a, b);
                }
            },
        );
        self.draw += 1;
    }
}

#[inline(always)]
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

/// √(−2·ln u)·sin 2πv, where u and v are uniform numbers made of the words `a` and `b`.
#[inline(always)]
fn box_muller(a: u32, b: u32) -> f32 {
    const UNIT: f64 = 1.0 / 4_294_967_296.0;
    let u = f64::from(a) * UNIT + UNIT / 2.0;
    let v = f64::from(b) * UNIT + UNIT / 2.0;
    ((-2.0 * log(u)).sqrt() * sin_turns(v)) as f32
}

/// c₀·xⁿ + c₁·xⁿ⁻¹ + …, by Horner's rule.
#[inline(always)]
fn polynomial<const K: usize>(x: f64, coefficients: [f64; K]) -> f64 {
    coefficients[1..].iter().fold(coefficients[0], |sum, c| sum * x + c)
}

/// The natural logarithm of a normal number below 1, by the series of 2·artanh((m − 1)/(m + 1)) for its mantissa m.
#[inline(always)]
fn log(x: f64) -> f64 {
    const ROOT: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    // The exponent is relative to 1/sqrt 2, so that the mantissa is between 1/sqrt 2 and sqrt 2.
    let above = x.to_bits().wrapping_sub(ROOT);
    let exponent = (above as i64 >> 52) as i32;
    let m = f64::from_bits((above & 0x000f_ffff_ffff_ffff).wrapping_add(ROOT));
    let s = (m - 1.0) / (m + 1.0);
    let series = std::array::from_fn::<f64, 11, _>(|k| 2.0 / (2 * (10 - k) + 1) as f64);
    f64::from(exponent) * std::f64::consts::LN_2 + s * polynomial(s * s, series)
}

/// sin 2πv for 0 < v < 1, by the Taylor series at the nearest quarter of a turn.
#[inline(always)]
fn sin_turns(v: f64) -> f64 {
    let quarter = (4.0 * v + 0.5).floor();
    let x = (v - 0.25 * quarter) * std::f64::consts::TAU;
    let z = x * x;
    let sin = x * polynomial(
        z,
        [
            1.0 / 6_227_020_800.0,
            -1.0 / 39_916_800.0,
            1.0 / 362_880.0,
            -1.0 / 5040.0,
            1.0 / 120.0,
            -1.0 / 6.0,
            1.0,
        ],
    );
    let cos = polynomial(
        z,
        [
            -1.0 / 87_178_291_200.0,
            1.0 / 479_001_600.0,
            -1.0 / 3_628_800.0,
            1.0 / 40_320.0,
            -1.0 / 720.0,
            1.0 / 24.0,
            -0.5,
            1.0,
        ],
    );
    let quarter = quarter as i32;
    let value = if quarter & 1 == 0 { sin } else { cos };
    if quarter & 2 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::{box_muller, philox4x32_10};

    #[test]
    fn box_muller_agrees_with_exact_functions() {
        const UNIT: f64 = 1.0 / 4_294_967_296.0;
        let edges = [0, 1, 1 << 29, (1 << 30) - 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX - 1, u32::MAX];
        let words = || edges.into_iter().chain((0..200).map(|i: u32| i.wrapping_mul(2_654_435_761)));
        for (a, b) in words().flat_map(|a| words().map(move |b| (a, b))) {
            let (u, v) = (f64::from(a) * UNIT + UNIT / 2.0, f64::from(b) * UNIT + UNIT / 2.0);
            let exact = (-2.0 * libm::log(u)).sqrt() * libm::sin(v * std::f64::consts::TAU);
            let found = f64::from(box_muller(a, b));
            assert!((found - exact).abs() <= 1e-7 * exact.abs() + 1e-12, "{a} {b}: {found}, not {exact}");
        }
    }

    /// The test vectors `kat_vectors` of Random123.
    #[test]
    fn philox_passes_the_published_test_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }
}
