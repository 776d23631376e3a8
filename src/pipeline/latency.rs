//! How long evaluations take at present, and how many of them fit into a job's time.

use std::time::Duration;

/// The weight of the newest measurement in a running mean: a board that throttles is noticed within a few.
const NEWEST: f64 = 0.2;
/// The share of what is left of a job's time that its evaluations may take; the rest is for what comes between.
const SHARE: f64 = 0.9;

/// Running means of the seconds that turns and decodings take.
#[derive(Debug, Clone)]
pub(super) struct LatencyEstimator {
    /// Of a turn with one place more than the index.
    turns: Vec<Option<Ewma>>,
    /// How many places the last turn had.
    last: usize,
    /// Of a picture's decoding, where there is one.
    decoding: Option<f64>,
    /// What to expect of a turn before any was measured.
    first: f64,
}

/// A running mean of seconds.
#[derive(Debug, Clone, Copy)]
struct Ewma {
    mean: f64,
    /// Whether it is of one turn alone, which may hold what a provider does but once for a batch of that size.
    alone: bool,
}

/// What a job asks of the network, and in what company.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLoad {
    /// How many images.
    pub(super) images: usize,
    /// How many places in a batch an image takes.
    pub(super) places: usize,
    /// How many places others take that do not stand back.
    pub(super) others: usize,
    /// How many places a batch has.
    pub(super) batch: usize,
}

impl LatencyEstimator {
    /// Before anything but one evaluation was measured.
    pub(super) fn of_first(evaluation: Duration) -> Self {
        Self { turns: Vec::new(), last: 0, decoding: None, first: evaluation.as_secs_f64() }
    }

    /// A turn with so many places took so long. The second one takes the first one's place.
    pub(super) fn turned(&mut self, places: usize, took: Duration) {
        if self.turns.len() < places {
            self.turns.resize(places, None);
        }
        self.last = places;
        if let Some(running) = places.checked_sub(1).and_then(|index| self.turns.get_mut(index)) {
            let before = running.filter(|running| !running.alone).map(|running| running.mean);
            *running = Some(Ewma { mean: mixed(before, took), alone: running.is_none() });
        }
    }

    /// The seconds of turns like the last one, once there were two.
    pub(super) fn latest(&self) -> Option<f64> {
        let running = (*self.turns.get(self.last.checked_sub(1)?)?)?;
        (!running.alone).then_some(running.mean)
    }

    /// A picture was decoded in so long.
    pub(super) fn decoded(&mut self, took: Duration) {
        self.decoding = Some(mixed(self.decoding, took));
    }

    /// The seconds of a turn with so many places: as measured, or no more than in proportion to a smaller
    /// batch, or those of a larger one.
    fn turn(&self, places: usize) -> f64 {
        let measured =
            self.turns.iter().enumerate().filter_map(|(index, running)| Some((index + 1, (*running)?.mean)));
        let (smaller, larger): (Vec<_>, Vec<_>) = measured.partition(|(known, _)| *known <= places);
        match (smaller.last(), larger.first()) {
            (Some((known, seconds)), larger) => {
                let scaled = seconds * places as f64 / *known as f64;
                larger.map_or(scaled, |(_, seconds)| scaled.min(*seconds))
            }
            (None, Some((_, seconds))) => *seconds,
            (None, None) => self.first * places as f64,
        }
    }

    /// How many evaluations of each image fit into so much time.
    pub(super) fn evaluations_within(&self, left: Duration, load: BatchLoad) -> usize {
        let all = load.others + load.images * load.places;
        let turns = all.div_ceil(load.batch.max(1));
        let each = turns as f64 * self.turn(all.min(load.batch));
        let left = SHARE * left.as_secs_f64() - load.images as f64 * self.decoding.unwrap_or(0.0);
        (left / each).max(0.0) as usize
    }
}

fn mixed(mean: Option<f64>, newest: Duration) -> f64 {
    let newest = newest.as_secs_f64();
    mean.map_or(newest, |mean| (1.0 - NEWEST) * mean + NEWEST * newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn alone(places: usize) -> BatchLoad {
        BatchLoad { images: 1, places, others: 0, batch: 8 }
    }

    #[test]
    fn what_was_measured_counts_and_what_was_not_follows_from_its_neighbours() {
        let mut pace = LatencyEstimator::of_first(Duration::from_millis(100));
        assert_eq!(pace.evaluations_within(SECOND, alone(1)), 9);
        pace.turned(2, Duration::from_millis(20));
        assert_eq!(pace.evaluations_within(SECOND, alone(2)), 45);
        // A smaller batch takes no longer, and a larger one no more than in proportion.
        assert_eq!(pace.evaluations_within(SECOND, alone(1)), 45);
        assert_eq!(pace.evaluations_within(SECOND, alone(4)), 22);
        pace.turned(8, Duration::from_millis(30));
        assert_eq!(pace.evaluations_within(SECOND, alone(4)), 30);
    }

    #[test]
    fn company_and_decoding_leave_less() {
        let mut pace = LatencyEstimator::of_first(SECOND);
        pace.turned(8, Duration::from_millis(10));
        let load = BatchLoad { images: 4, places: 2, others: 0, batch: 8 };
        assert_eq!(pace.evaluations_within(SECOND, load), 90);
        assert_eq!(pace.evaluations_within(SECOND, BatchLoad { others: 1, ..load }), 45);
        pace.decoded(Duration::from_millis(100));
        assert_eq!(pace.evaluations_within(SECOND, load), 50);
        assert_eq!(pace.evaluations_within(Duration::from_millis(100), load), 0);
    }

    #[test]
    fn a_board_that_throttles_is_noticed() {
        let mut pace = LatencyEstimator::of_first(SECOND);
        pace.turned(1, Duration::from_millis(10));
        for _ in 0..20 {
            pace.turned(1, Duration::from_millis(40));
        }
        assert!((22..=23).contains(&pace.evaluations_within(SECOND, alone(1))));
    }

    #[test]
    fn what_a_provider_does_once_for_a_batch_of_a_size_is_soon_forgotten() {
        let mut pace = LatencyEstimator::of_first(SECOND);
        pace.turned(2, Duration::from_millis(400));
        assert_eq!((pace.latest(), pace.evaluations_within(SECOND, alone(2))), (None, 2));
        pace.turned(2, Duration::from_millis(10));
        assert_eq!((pace.latest(), pace.evaluations_within(SECOND, alone(2))), (Some(0.01), 90));
        pace.turned(3, Duration::from_millis(400));
        assert_eq!(pace.latest(), None);
        pace.turned(2, Duration::from_millis(15));
        assert!(pace.latest().is_some_and(|seconds| (seconds - 0.011).abs() < 1e-9));
    }
}
