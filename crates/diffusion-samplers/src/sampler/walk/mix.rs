//! The one arithmetic of a step: a state replaced by a weighted sum.

use crate::simd::update;

/// The most terms that one pass takes.
const MOST: usize = 5;

/// x ← a·x + Σ w·v, in the order given. Terms of weight 0 are not read; all other slices have at least the length of `x`.
pub(crate) fn mix<'a>(x: &mut [f32], a: f64, terms: impl IntoIterator<Item = (f64, &'a [f32])>) {
    let mut terms = terms.into_iter().filter(|(weight, _)| *weight != 0.0);
    let mut a = a as f32;
    loop {
        let mut pass = [(0.0, &[][..]); MOST];
        let mut count = 0;
        for (slot, (weight, values)) in pass.iter_mut().zip(terms.by_ref().take(MOST)) {
            *slot = (weight as f32, values);
            count += 1;
        }
        sum(x, a, &pass[..count]);
        if count < MOST {
            return;
        }
        a = 1.0;
    }
}

fn sum(x: &mut [f32], a: f32, terms: &[(f32, &[f32])]) {
    match *terms {
        [] if a == 1.0 => {}
        [] => update(x, [], move |x, []| a * x),
        [(u, k)] => update(x, [k], move |x, [k]| a * x + u * k),
        [(u, k), (v, l)] => update(x, [k, l], move |x, [k, l]| a * x + u * k + v * l),
        [(u, k), (v, l), (w, m)] => {
            update(x, [k, l, m], move |x, [k, l, m]| a * x + u * k + v * l + w * m);
        }
        [(t, j), (u, k), (v, l), (w, m)] => {
            update(x, [j, k, l, m], move |x, [j, k, l, m]| a * x + t * j + u * k + v * l + w * m);
        }
        [(s, i), (t, j), (u, k), (v, l), (w, m), ..] => {
            update(x, [i, j, k, l, m], move |x, [i, j, k, l, m]| {
                a * x + s * i + t * j + u * k + v * l + w * m
            });
        }
    }
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
            mix(&mut found, a, given);
            let expected = a * f64::from(x) + terms.iter().map(|(w, v)| w * f64::from(*v)).sum::<f64>();
            for found in found {
                prop_assert!((f64::from(found) - expected).abs() < 1e-5);
            }
        }
    }
}
