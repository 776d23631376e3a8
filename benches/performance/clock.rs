//! Times of several things, taken in turns, so that a machine that slows down slows all of them.

use std::time::Instant;

/// The median seconds of each, over so many rounds after one that does not count. Every second round goes backwards, so
/// that nothing always follows the same other.
pub fn in_turns(rounds: usize, things: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); things.len()];
    for round in 0..=rounds {
        for place in 0..things.len() {
            let place = if round % 2 == 0 { place } else { things.len() - 1 - place };
            let start = Instant::now();
            things[place]();
            if round > 0 {
                times[place].push(start.elapsed().as_secs_f64());
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// The middle one of several figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
