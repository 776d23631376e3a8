//! The one arithmetic of a step: a state replaced by a weighted sum.

use crate::diffusion::lanes::wide;

/// x ← a·x + Σ w·v for up to five further terms, in the order given; all slices have one length.
pub(crate) fn mix(x: &mut [f32], a: f64, terms: &[(f64, &[f32])]) {
    let w = |i: usize| terms[i].0 as f32;
    let v = |i: usize| terms[i].1;
    match terms.len() {
        0 => sum(x, a as f32, [], []),
        1 => sum(x, a as f32, [w(0)], [v(0)]),
        2 => sum(x, a as f32, [w(0), w(1)], [v(0), v(1)]),
        3 => sum(x, a as f32, [w(0), w(1), w(2)], [v(0), v(1), v(2)]),
        4 => sum(x, a as f32, [w(0), w(1), w(2), w(3)], [v(0), v(1), v(2), v(3)]),
        _ => {
            let (first, rest) = terms.split_at(4);
            mix(x, a, first);
            mix(x, 1.0, rest);
        }
    }
}

fn sum<const N: usize>(x: &mut [f32], a: f32, weights: [f32; N], values: [&[f32]; N]) {
    wide(
        #[inline(always)]
        move || {
            let values = values.map(|v| &v[..x.len()]);
            for (i, x) in x.iter_mut().enumerate() {
                let mut total = a * *x;
                for (w, v) in weights.iter().zip(&values) {
                    total += w * v[i];
                }
                *x = total;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::mix;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_number_of_terms_is_their_weighted_sum(
            x in -2.0..2.0_f32,
            a in -2.0..2.0_f64,
            terms in prop::collection::vec((-2.0..2.0_f64, -2.0..2.0_f32), 0..9),
        ) {
            let values: Vec<[f32; 3]> = terms.iter().map(|(_, v)| [*v; 3]).collect();
            let given: Vec<(f64, &[f32])> = terms.iter().zip(&values).map(|((w, _), v)| (*w, &v[..])).collect();
            let mut found = [x; 3];
            mix(&mut found, a, &given);
            let expected = a * f64::from(x) + terms.iter().map(|(w, v)| w * f64::from(*v)).sum::<f64>();
            for found in found {
                prop_assert!((f64::from(found) - expected).abs() < 1e-5);
            }
        }
    }
}
