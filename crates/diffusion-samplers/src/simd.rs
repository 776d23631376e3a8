//! Loops over samples, compiled for the vector instructions of the processor at hand.
//!
//! The results have the same bits on every processor: the compiler neither contracts a multiplication and an addition
//! into one operation nor reorders a sum.

use std::ops::Range;

/// Runs a loop that is compiled for several instruction sets, with the best one that the processor has.
///
/// The closure and every function that it calls must be `#[inline(always)]`; other functions are compiled for the
/// baseline instruction set. The closure must own its slices (`move`) and truncate them to one length; otherwise each
/// iteration loads the slices again or checks their bounds.
#[inline(always)]
pub(crate) fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Replaces `x[i]` by `formula(x[i], [slices[0][i], slices[1][i], …])` for every `i`, in one pass.
///
/// Use a `move` closure: the compiler must assume that a number that the closure borrows could change with `x`.
///
/// # Panics
///
/// If one of the slices is shorter than `x`.
///
/// ```
/// use diffusion_samplers::simd::update;
///
/// let (mut x, noise, sigma) = ([1.0, 2.0], [0.5, -0.5], 2.0);
/// update(&mut x, [&noise], move |x, [z]| x + sigma * z);
/// assert_eq!(x, [2.0, 1.0]);
/// ```
#[inline(always)]
pub fn update<'a, const N: usize>(
    x: &mut [f32],
    slices: [&'a [f32]; N],
    formula: impl Fn(f32, [f32; N]) -> f32,
) where
    [&'a [f32]; N]: Slices<N>,
{
    dispatch(
        #[inline(always)]
        move || {
            let slices = slices.truncate(x.len());
            for (i, x) in x.iter_mut().enumerate() {
                *x = formula(*x, slices.at(i));
            }
        },
    );
}

/// The slices that [`update`] reads: an array of up to five.
///
/// There is one implementation for each number of slices, because the compiler does not unroll a loop over an array of
/// slices within the loop over their values.
pub trait Slices<const N: usize>: Copy {
    /// The first `len` values of each slice.
    fn truncate(self, len: usize) -> Self;

    /// The value at `i` of each slice.
    fn at(self, i: usize) -> [f32; N];
}

macro_rules! slices {
    ($($count:literal: $($slice:ident)*;)+) => {$(
        impl Slices<$count> for [&[f32]; $count] {
            #[inline(always)]
            fn truncate(self, _len: usize) -> Self {
                let [$($slice),*] = self;
                [$(&$slice[.._len]),*]
            }

            #[inline(always)]
            fn at(self, _i: usize) -> [f32; $count] {
                let [$($slice),*] = self;
                [$($slice[_i]),*]
            }
        }
    )+};
}

slices! {
    0: ;
    1: a;
    2: a b;
    3: a b c;
    4: a b c d;
    5: a b c d e;
}

/// The number of values in one of the [`chunks`]: a few of them fit into the first-level cache.
const CHUNK_LEN: usize = 1024;

/// The indices below `len` in chunks, for several passes over the same values.
pub(crate) fn chunks(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(CHUNK_LEN).map(move |start| start..len.min(start + CHUNK_LEN))
}

/// Returns whether all values are finite.
pub fn all_finite(values: &[f32]) -> bool {
    dispatch(
        #[inline(always)]
        move || values.iter().fold(true, |all, value| all & value.is_finite()),
    )
}

/// Clamps a value to ±`range`. NaN stays NaN.
///
/// `f32::clamp` checks its bounds at every call, which prevents vectorization.
#[inline(always)]
pub(crate) fn clamp(value: f32, range: f32) -> f32 {
    // Each line is one instruction.
    let value = if -range > value { -range } else { value };
    if range < value { range } else { value }
}

/// A divisor of many numbers.
///
/// The quotient is that of a division, bit for bit except for the sign of zero, in a third of the time: the product
/// with the reciprocal, corrected by the remainder (Markstein 1990). If the quotient or the reciprocal is subnormal or
/// infinite, the result can differ from that of a division.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Divisor {
    divisor: f32,
    reciprocal: f32,
}

impl Divisor {
    /// The divisor, rounded to f32.
    pub(crate) fn new(divisor: f64) -> Self {
        let divisor = divisor as f32;
        Self { divisor, reciprocal: 1.0 / divisor }
    }

    pub(crate) fn is_one(self) -> bool {
        self.divisor == 1.0
    }

    #[inline(always)]
    pub(crate) fn divide(self, x: f32) -> f32 {
        let quotient = x * self.reciprocal;
        let remainder = (-quotient).mul_add(self.divisor, x);
        remainder.mul_add(self.reciprocal, quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_quotient_is_that_of_a_division(
            mantissas in (0x80_0000..0x100_0000_u32, 0x80_0000..0x100_0000_u32),
            exponents in (-60..20_i32, -40..20_i32),
            negative: bool,
        ) {
            let number = |mantissa: u32, exponent: i32| mantissa as f32 * 2.0_f32.powi(exponent - 23);
            let (x, divisor) = (number(mantissas.0, exponents.0), number(mantissas.1, exponents.1));
            let x = if negative { -x } else { x };
            let found = Divisor::new(f64::from(divisor)).divide(x);
            prop_assert_eq!(found.to_bits(), (x / divisor).to_bits(), "{} / {}", x, divisor);
        }
    }

    #[test]
    fn the_quotient_is_exact_for_the_hardest_divisors() {
        for divisor in [1.0, 3.0, f32::from_bits(0x3fff_ffff), f32::from_bits(0x3f80_0001), 0.1, 157.4] {
            for x in [0.0, 1.0, -7.3, f32::from_bits(0x3fff_ffff), f32::from_bits(0x3f80_0001), 1e-20, 1e20] {
                assert_eq!(Divisor::new(f64::from(divisor)).divide(x), x / divisor, "{x} / {divisor}");
            }
        }
    }

    #[test]
    fn chunks_cover_every_index_once() {
        for len in [0, 1, CHUNK_LEN, CHUNK_LEN + 1, 3000] {
            assert!(chunks(len).flatten().eq(0..len), "{len}");
        }
    }
}
