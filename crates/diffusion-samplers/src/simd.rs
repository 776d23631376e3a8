//! Loops over many numbers with the widest vectors that the processor has.

use std::ops::Range;

/// Run a loop compiled for this processor's own vectors. The closure and what it calls must be inlined,
/// `#[inline(always)]`, or they are compiled for the least of all processors; and it must own its slices
/// (`move`) and cut them to one length, or they are read from memory again, or checked, at every number.
///
/// The compiler contracts no multiplication with an addition and reorders no sum by itself, so that the bits
/// are the same everywhere.
#[inline(always)]
pub(crate) fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Replace each value of `x` by what `formula` makes of it and of the values beside it, in one pass: what a step
/// computes on the way is never in memory. All slices have at least the length of `x`; the formula is a `move`
/// closure, since numbers that it borrows could lie within `x` for all that the compiler knows.
#[inline(always)]
pub fn update<'a, const N: usize>(
    x: &mut [f32],
    beside: [&'a [f32]; N],
    formula: impl Fn(f32, [f32; N]) -> f32,
) where
    [&'a [f32]; N]: Beside<N>,
{
    dispatch(
        #[inline(always)]
        move || {
            let beside = beside.cut(x.len());
            for (i, x) in x.iter_mut().enumerate() {
                *x = formula(*x, beside.at(i));
            }
        },
    );
}

/// The slices that a pass reads beside the one that it replaces. Written out for each number of them: loops over
/// arrays of slices stay loops within the pass.
pub trait Beside<const N: usize>: Copy {
    /// The first `len` values of each.
    fn cut(self, len: usize) -> Self;

    /// The `i`-th value of each.
    fn at(self, i: usize) -> [f32; N];
}

macro_rules! beside {
    ($($count:literal: $($slice:ident)*;)+) => {$(
        impl Beside<$count> for [&[f32]; $count] {
            #[inline(always)]
            fn cut(self, _len: usize) -> Self {
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

beside! {
    0: ;
    1: a;
    2: a b;
    3: a b c;
    4: a b c d;
    5: a b c d e;
}

/// The indices below `len` in parts so small that what a pass over one leaves is still near the processor for the
/// next.
pub(crate) fn chunks(len: usize) -> impl Iterator<Item = Range<usize>> {
    const NEAR: usize = 1024;
    (0..len).step_by(NEAR).map(move |start| start..len.min(start + NEAR))
}

/// Whether all are numbers.
pub fn all_finite(values: &[f32]) -> bool {
    dispatch(
        #[inline(always)]
        move || values.iter().fold(true, |all, value| all & value.is_finite()),
    )
}

/// A value within ±`range`; `f32::clamp`, which checks its bounds each time, keeps a loop from being one of vectors.
#[inline(always)]
pub(crate) fn within(value: f32, range: f32) -> f32 {
    // Each line is one instruction, which leaves what is not a number as it is.
    let value = if -range > value { -range } else { value };
    if range < value { range } else { value }
}

/// A number that many are divided by. The quotient is that of a division, bit for bit but for the sign of zero, by three
/// operations that take a third of its time: the product with the inverse, and its correction by what remains (Markstein
/// 1990). Where the division's result or the inverse is not a normal number, the quotient need not be the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Divisor {
    by: f32,
    inverse: f32,
}

impl Divisor {
    pub(crate) fn new(by: f64) -> Self {
        let by = by as f32;
        Self { by, inverse: 1.0 / by }
    }

    pub(crate) fn is_one(self) -> bool {
        self.by == 1.0
    }

    #[inline(always)]
    pub(crate) fn divide(self, x: f32) -> f32 {
        let quotient = x * self.inverse;
        let rest = (-quotient).mul_add(self.by, x);
        rest.mul_add(self.inverse, quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_quotient_is_that_of_a_division(
            mantissas in (0x80_0000..0x100_0000_u32, 0x80_0000..0x100_0000_u32),
            exponents in (-60..20_i32, -40..20_i32),
            negative: bool,
        ) {
            let number = |mantissa: u32, exponent: i32| mantissa as f32 * 2.0_f32.powi(exponent - 23);
            let (x, by) = (number(mantissas.0, exponents.0), number(mantissas.1, exponents.1));
            let x = if negative { -x } else { x };
            let found = Divisor::new(f64::from(by)).divide(x);
            prop_assert_eq!(found.to_bits(), (x / by).to_bits(), "{} / {}", x, by);
        }
    }

    #[test]
    fn the_hardest_divisors_are_divided_by_as_well() {
        for by in [1.0, 3.0, f32::from_bits(0x3fff_ffff), f32::from_bits(0x3f80_0001), 0.1, 157.4] {
            for x in [0.0, 1.0, -7.3, f32::from_bits(0x3fff_ffff), f32::from_bits(0x3f80_0001), 1e-20, 1e20] {
                assert_eq!(Divisor::new(f64::from(by)).divide(x), x / by, "{x} / {by}");
            }
        }
    }
}
