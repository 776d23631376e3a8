//! Times functions in turns, so that a change of the machine's speed affects all of them.

use std::time::Instant;

/// Returns the median seconds of each function over `rounds` rounds, after one round of warm-up. The order is reversed in
/// every second round, so that no function always runs after the same other one.
pub fn median_seconds(rounds: usize, functions: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); functions.len()];
    for round in 0..=rounds {
        for position in 0..functions.len() {
            let index = if round % 2 == 0 { position } else { functions.len() - 1 - position };
            let start = Instant::now();
            functions[index]();
            if round > 0 {
                times[index].push(start.elapsed().as_secs_f64());
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// Returns the median, or NaN if there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
