//! PyTorch's CPU generator: MT19937 (Matsumoto & Nishimura 1998) and the Box–Muller transform, of 16 numbers at a time
//! in single precision, or one by one in double precision for draws of fewer than 16 numbers.
//!
//! PyTorch computes the logarithm, sine and cosine with the single-precision polynomials of the Cephes library
//! (Moshier). This module uses the same polynomials, with a fused multiply-add where PyTorch's build has one.

use super::NoiseSource;
use crate::simd::dispatch;

const N: usize = 624;
const M: usize = 397;

#[derive(Debug, Clone)]
struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    /// PyTorch uses the low 32 bits of the seed.
    fn new(seed: u64) -> Self {
        let mut state = [0; N];
        state[0] = seed as u32;
        for i in 1..N {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn twist(&mut self) {
        let state = &mut self.state;
        let twisted = |high: u32, low: u32| {
            let y = (high & 0x8000_0000) | (low & 0x7fff_ffff);
            (y >> 1) ^ ((y & 1).wrapping_neg() & 0x9908_b0df)
        };
        for i in 0..N - M {
            state[i] = state[i + M] ^ twisted(state[i], state[i + 1]);
        }
        for i in N - M..N - 1 {
            state[i] = state[i + M - N] ^ twisted(state[i], state[i + 1]);
        }
        state[N - 1] = state[M - 1] ^ twisted(state[N - 1], state[0]);
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let y = self.state[self.next];
        self.next += 1;
        tempered(y)
    }

    /// Fills `u` with uniform numbers, 0 ≤ u < 1, of 24 bits.
    fn uniforms_f32(&mut self, mut u: &mut [f32]) {
        while !u.is_empty() {
            if self.next == N {
                self.twist();
            }
            let ready = &self.state[self.next..];
            let (now, later) = u.split_at_mut(ready.len().min(u.len()));
            self.next += now.len();
            dispatch(
                #[inline(always)]
                move || {
                    for (u, y) in now.iter_mut().zip(ready) {
                        *u = (tempered(*y) & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0);
                    }
                },
            );
            u = later;
        }
    }

    /// A uniform number, 0 ≤ u < 1, of 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        let bits = ((high << 32) | low) & ((1 << 53) - 1);
        bits as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// The generator's output for a word of its state.
#[inline(always)]
fn tempered(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    y ^ (y >> 18)
}

#[derive(Debug, Clone)]
pub(super) struct TorchMt19937 {
    twister: Mt19937,
    /// The second number of a double-precision pair, for the next short draw.
    spare: Option<f64>,
}

impl TorchMt19937 {
    pub(super) fn new(seed: u64) -> Self {
        Self { twister: Mt19937::new(seed), spare: None }
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.twister.uniform_f64(), self.twister.uniform_f64());
        let radius = (-2.0 * libm::log1p(-u2)).sqrt();
        let theta = std::f64::consts::TAU * u1;
        self.spare = Some(radius * libm::sin(theta));
        radius * libm::cos(theta)
    }
}

impl NoiseSource for TorchMt19937 {
    fn fill(&mut self, z: &mut [f32]) {
        if z.len() < 16 {
            for z in z {
                *z = self.normal_f64() as f32;
            }
            return;
        }
        self.twister.uniforms_f32(z);
        let (blocks, rest) = z.as_chunks_mut::<16>();
        box_muller_all(blocks);
        if !rest.is_empty() {
            // PyTorch draws the last 16 numbers again.
            if let Some(tail) = z.last_chunk_mut::<16>() {
                self.twister.uniforms_f32(tail);
                box_muller_all(std::slice::from_mut(tail));
            }
        }
    }
}

fn box_muller_all(blocks: &mut [[f32; 16]]) {
    dispatch(
        #[inline(always)]
        move || {
            for block in blocks {
                box_muller(block);
            }
        },
    );
}

/// Transforms eight pairs of uniform numbers to sixteen normal ones.
#[inline(always)]
fn box_muller(block: &mut [f32; 16]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * log(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * *b);
        *a = radius * cos;
        *b = radius * sin;
    }
}

/// c₀·xⁿ + c₁·xⁿ⁻¹ + …, by Horner's rule.
#[inline(always)]
fn polynomial<const K: usize>(x: f32, coefficients: [f32; K]) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, c| sum.mul_add(x, *c))
}

/// The natural logarithm of a positive number.
#[allow(clippy::excessive_precision)] // the constants as Cephes prints them
#[inline(always)]
fn log(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut exponent = (bits >> 23) as i32 - 126;
    let mut x = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    if x < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1;
        x = x - 1.0 + x;
    } else {
        x -= 1.0;
    }
    let exponent = exponent as f32;
    let z = x * x;
    let p = polynomial(
        x,
        [
            7.037_683_629_2e-2,
            -1.151_461_031_0e-1,
            1.167_699_874_0e-1,
            -1.242_014_084_6e-1,
            1.424_932_278_7e-1,
            -1.666_805_766_5e-1,
            2.000_071_476_5e-1,
            -2.499_999_399_3e-1,
            3.333_333_117_4e-1,
        ],
    );
    let y = (p * x).mul_add(z, exponent * -2.121_944_40e-4);
    let y = z.mul_add(-0.5, y);
    exponent.mul_add(0.693_359_375, x + y)
}

/// Sine and cosine of a number between 0 and 2π.
#[allow(clippy::excessive_precision)] // the constants as Cephes prints them
#[inline(always)]
fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * 1.273_239_544_735_16) as i32 + 1) & !1;
    let y = octant as f32;
    let x = y.mul_add(-0.785_156_25, x);
    let x = y.mul_add(-2.418_756_484_985_351_562_5e-4, x);
    let x = y.mul_add(-3.774_894_977_445_941_08e-8, x);
    let z = x * x;
    let c = polynomial(z, [2.443_315_711_809_948e-5, -1.388_731_625_493_765e-3, 4.166_664_568_298_827e-2]);
    let c = (c * z).mul_add(z, -0.5 * z) + 1.0;
    let s = polynomial(z, [-1.951_529_589_1e-4, 8.332_160_873_6e-3, -1.666_665_461_1e-1]);
    let s = (s * z).mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}
