//! The batch sizes that are captured.

/// The number of samples to which a batch is padded: the next power of two, but at most `max`. Few sizes need few CUDA graphs.
///
/// A batch of more than `max` samples is not padded.
pub(crate) fn padded_batch(samples: usize, max: usize) -> usize {
    samples.next_power_of_two().min(max).max(samples)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn batches_are_padded_to_powers_of_two_and_the_largest() {
        let padded = |max| (1..=max).map(|n| padded_batch(n, max)).collect::<Vec<_>>();
        assert_eq!(padded(8), [1, 2, 4, 4, 8, 8, 8, 8]);
        assert_eq!(padded(6), [1, 2, 4, 4, 6, 6]);
        assert_eq!(padded(1), [1]);
        // A guided image may need more samples than a batch has.
        assert_eq!(padded_batch(2, 1), 2);
    }

    proptest! {
        #[test]
        fn padding_is_bounded_and_stable(max in 1_usize..=1024, samples in 1_usize..=1024) {
            let samples = samples.min(max);
            let padded = padded_batch(samples, max);
            prop_assert!(samples <= padded && padded <= max && padded < 2 * samples);
            prop_assert_eq!(padded_batch(padded, max), padded);
            let sizes: std::collections::BTreeSet<_> = (1..=max).map(|n| padded_batch(n, max)).collect();
            prop_assert!(sizes.len() <= max.ilog2() as usize + 2);
        }
    }
}
