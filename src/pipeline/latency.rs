//! Estimates how long batch evaluations take, and how many fit before a deadline.

use std::collections::BTreeMap;
use std::time::Duration;

/// The weight of the newest measurement in a moving average; a throttled board shows within a few batches.
const EWMA_ALPHA: f64 = 0.2;
/// The share of the time before a deadline that evaluations may take; the rest covers the work between them.
const DEADLINE_MARGIN: f64 = 0.9;

/// How the duration of an evaluation grows with the values of a sample: convolutions grow in proportion, attention with
/// the square. A smaller sample than a measured one is taken to need its proportion.
const GROWTH: f64 = 1.25;

/// Moving averages of the duration of batch evaluations and VAE decodings, by the size of a sample: the number of its
/// values.
#[derive(Debug, Clone)]
pub(super) struct LatencyEstimator {
    evaluations: BTreeMap<usize, BatchAverages>,
    /// The size of a sample and the slots of the latest batch.
    latest: (usize, usize),
    /// Seconds that a decoding takes.
    decoding_s: BTreeMap<usize, f64>,
    /// The duration of the warm-up evaluation per sample, used until a batch was measured; 0 if there was none.
    warmup_s: f64,
    /// The size of its sample.
    warmup_size: usize,
}

/// One average per batch size; index 0 is a batch of one slot.
type BatchAverages = Vec<Option<Ewma>>;

/// An exponentially weighted moving average, in seconds.
#[derive(Debug, Clone, Copy)]
struct Ewma {
    mean: f64,
    /// Whether only one batch was measured, which may include a provider's one-time work for its size.
    is_first: bool,
}

/// The slots that a job needs, and those that the jobs before it need.
#[derive(Debug, Clone)]
pub(super) struct BatchLoad {
    /// The number of values of one of the job's samples.
    pub(super) sample_size: usize,
    pub(super) images: usize,
    pub(super) slots_per_image: usize,
    /// Slots of running images that are served before or together with the job, by the size of their samples.
    pub(super) slots_ahead: BTreeMap<usize, usize>,
    /// Slots in a batch.
    pub(super) batch_slots: usize,
}

impl LatencyEstimator {
    /// `first_evaluation` is the duration of the warm-up evaluation per sample, and `sample_size` the number of its values.
    pub(super) fn new(first_evaluation: Option<Duration>, sample_size: usize) -> Self {
        Self {
            evaluations: BTreeMap::new(),
            latest: (0, 0),
            decoding_s: BTreeMap::new(),
            warmup_s: first_evaluation.unwrap_or_default().as_secs_f64(),
            warmup_size: sample_size,
        }
    }

    /// Records the duration of a batch evaluation. The second measurement of a size replaces the first.
    pub(super) fn record(&mut self, sample_size: usize, slots: usize, elapsed: Duration) {
        self.latest = (sample_size, slots);
        let Some(index) = slots.checked_sub(1) else { return };
        let batches = self.evaluations.entry(sample_size).or_default();
        if batches.len() < slots {
            batches.resize(slots, None);
        }
        if let Some(average) = batches.get_mut(index) {
            let mean = average.filter(|average| !average.is_first).map(|average| average.mean);
            *average = Some(Ewma { mean: ewma(mean, elapsed), is_first: average.is_none() });
        }
    }

    /// Returns the seconds that batches of the latest size take, once two of them were measured.
    pub(super) fn latest(&self) -> Option<f64> {
        let (sample_size, slots) = self.latest;
        let average = (*self.evaluations.get(&sample_size)?.get(slots.checked_sub(1)?)?)?;
        (!average.is_first).then_some(average.mean)
    }

    /// Records the duration of a VAE decoding.
    pub(super) fn record_decoding(&mut self, sample_size: usize, elapsed: Duration) {
        let mean = self.decoding_s.get(&sample_size).copied();
        self.decoding_s.insert(sample_size, ewma(mean, elapsed));
    }

    /// Estimates the seconds that a batch takes. Samples of a size that was not measured are estimated from the nearest
    /// size that was.
    fn batch_seconds(&self, sample_size: usize, slots: usize) -> f64 {
        let measured = nearest(self.evaluations.keys().copied(), sample_size);
        let batches = measured.and_then(|size| Some((size, self.evaluations.get(&size)?)));
        match batches {
            Some((size, batches)) => seconds_of_slots(batches, slots) * growth(size, sample_size),
            None => self.warmup_s * slots as f64 * growth(self.warmup_size, sample_size),
        }
    }

    /// Estimates the seconds that a decoding takes; 0 if none was measured.
    fn decoding_seconds(&self, sample_size: usize) -> f64 {
        let measured = nearest(self.decoding_s.keys().copied(), sample_size);
        let seconds = measured.and_then(|size| Some(self.decoding_s.get(&size)? * growth(size, sample_size)));
        seconds.unwrap_or(0.0)
    }

    /// Returns how many evaluations of every image of the job fit into the remaining time.
    pub(super) fn evaluations_within(&self, remaining: Duration, load: &BatchLoad) -> usize {
        let batch_slots = load.batch_slots.max(1);
        let seconds = |size: usize, slots: usize| {
            slots.div_ceil(batch_slots) as f64 * self.batch_seconds(size, slots.min(batch_slots))
        };
        // Samples of one size share a batch.
        let own = load.images * load.slots_per_image + load.slots_ahead.get(&load.sample_size).unwrap_or(&0);
        let others = load.slots_ahead.iter().filter(|(size, _)| **size != load.sample_size);
        let seconds_each =
            seconds(load.sample_size, own) + others.map(|(size, slots)| seconds(*size, *slots)).sum::<f64>();
        let decoding = load.images as f64 * self.decoding_seconds(load.sample_size);
        let budget = DEADLINE_MARGIN * remaining.as_secs_f64() - decoding;
        (budget / seconds_each).max(0.0) as usize
    }
}

/// Estimates the seconds that a batch takes. A batch size that was not measured takes at most its proportion of the next
/// smaller size, and at most as long as the next larger size.
fn seconds_of_slots(batches: &[Option<Ewma>], slots: usize) -> f64 {
    let measured =
        batches.iter().enumerate().filter_map(|(index, average)| Some((index + 1, (*average)?.mean)));
    let (smaller, larger): (Vec<_>, Vec<_>) = measured.partition(|(size, _)| *size <= slots);
    match (smaller.last(), larger.first()) {
        (Some((size, seconds)), larger) => {
            let scaled = seconds * slots as f64 / *size as f64;
            larger.map_or(scaled, |(_, seconds)| scaled.min(*seconds))
        }
        (None, larger) => larger.map_or(0.0, |(_, seconds)| *seconds),
    }
}

/// Returns the measured size that differs by the smallest factor.
fn nearest(measured: impl Iterator<Item = usize>, size: usize) -> Option<usize> {
    let distance = |other: &usize| (*other as f64 / size as f64).ln().abs();
    measured.min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// How much longer a sample of one size takes than one of the measured size.
fn growth(measured: usize, size: usize) -> f64 {
    let ratio = size as f64 / measured.max(1) as f64;
    if ratio > 1.0 { ratio.powf(GROWTH) } else { ratio }
}

fn ewma(mean: Option<f64>, newest: Duration) -> f64 {
    let newest = newest.as_secs_f64();
    mean.map_or(newest, |mean| (1.0 - EWMA_ALPHA) * mean + EWMA_ALPHA * newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The values of a sample.
    const SIZE: usize = 1024;

    fn one_image(slots_per_image: usize) -> BatchLoad {
        let slots_ahead = BTreeMap::new();
        BatchLoad { sample_size: SIZE, images: 1, slots_per_image, slots_ahead, batch_slots: 8 }
    }

    #[test]
    fn sizes_that_were_not_measured_are_estimated_from_their_neighbours() {
        let mut latency = LatencyEstimator::new(Some(Duration::from_millis(100)), SIZE);
        assert_eq!(latency.evaluations_within(SECOND, &one_image(1)), 9);
        latency.record(SIZE, 2, Duration::from_millis(20));
        assert_eq!(latency.evaluations_within(SECOND, &one_image(2)), 45);
        // A smaller batch is assumed to take as long, and a larger one to take proportionally longer.
        assert_eq!(latency.evaluations_within(SECOND, &one_image(1)), 45);
        assert_eq!(latency.evaluations_within(SECOND, &one_image(4)), 22);
        latency.record(SIZE, 8, Duration::from_millis(30));
        assert_eq!(latency.evaluations_within(SECOND, &one_image(4)), 30);
    }

    #[test]
    fn other_images_and_decoding_leave_room_for_fewer_evaluations() {
        let mut latency = LatencyEstimator::new(Some(SECOND), SIZE);
        latency.record(SIZE, 8, Duration::from_millis(10));
        let load = BatchLoad { images: 4, ..one_image(2) };
        assert_eq!(latency.evaluations_within(SECOND, &load), 90);
        assert_eq!(
            latency.evaluations_within(
                SECOND,
                &BatchLoad { slots_ahead: BTreeMap::from([(SIZE, 1)]), ..load.clone() }
            ),
            45
        );
        latency.record_decoding(SIZE, Duration::from_millis(100));
        assert_eq!(latency.evaluations_within(SECOND, &load), 50);
        assert_eq!(latency.evaluations_within(Duration::from_millis(100), &load), 0);
    }

    #[test]
    fn a_throttled_board_raises_the_estimate() {
        let mut latency = LatencyEstimator::new(Some(SECOND), SIZE);
        latency.record(SIZE, 1, Duration::from_millis(10));
        for _ in 0..20 {
            latency.record(SIZE, 1, Duration::from_millis(40));
        }
        assert!((22..=23).contains(&latency.evaluations_within(SECOND, &one_image(1))));
    }

    #[test]
    fn the_second_measurement_of_a_size_replaces_the_first() {
        let mut latency = LatencyEstimator::new(Some(SECOND), SIZE);
        latency.record(SIZE, 2, Duration::from_millis(400));
        assert_eq!((latency.latest(), latency.evaluations_within(SECOND, &one_image(2))), (None, 2));
        latency.record(SIZE, 2, Duration::from_millis(10));
        assert_eq!((latency.latest(), latency.evaluations_within(SECOND, &one_image(2))), (Some(0.01), 90));
        latency.record(SIZE, 3, Duration::from_millis(400));
        assert_eq!(latency.latest(), None);
        latency.record(SIZE, 2, Duration::from_millis(15));
        assert!(latency.latest().is_some_and(|seconds| (seconds - 0.011).abs() < 1e-9));
    }

    /// A job of large pictures was given the steps of small ones, and missed its deadline.
    #[test]
    fn the_estimate_of_one_picture_size_was_used_for_all() {
        let mut latency = LatencyEstimator::new(Some(Duration::from_millis(10)), SIZE);
        let of_size = |sample_size: usize| BatchLoad { sample_size, ..one_image(1) };
        // Until a batch is measured, the warm-up evaluation counts: 4 to the power of 1.25 is 5.66.
        assert_eq!(latency.evaluations_within(SECOND, &of_size(SIZE)), 90);
        assert_eq!(latency.evaluations_within(SECOND, &of_size(4 * SIZE)), 15);
        assert_eq!(latency.evaluations_within(SECOND, &of_size(SIZE / 4)), 360);
        for (size, milliseconds) in [(SIZE, 20), (SIZE, 20), (16 * SIZE, 450), (16 * SIZE, 450)] {
            latency.record(size, 1, Duration::from_millis(milliseconds));
        }
        assert_eq!(latency.latest(), Some(0.45));
        assert_eq!(latency.evaluations_within(SECOND, &of_size(SIZE)), 45);
        assert_eq!(latency.evaluations_within(SECOND, &of_size(16 * SIZE)), 2);
        // The nearest measured size is 16 times as large.
        assert_eq!(latency.evaluations_within(SECOND, &of_size(8 * SIZE)), 4);
        latency.record_decoding(16 * SIZE, Duration::from_millis(450));
        assert_eq!(latency.evaluations_within(SECOND, &of_size(16 * SIZE)), 1);
        assert_eq!(latency.evaluations_within(SECOND, &of_size(SIZE)), 43);
    }

    #[test]
    fn running_images_of_another_size_take_batches_of_their_own() {
        let mut latency = LatencyEstimator::new(None, SIZE);
        latency.record(SIZE, 1, Duration::from_millis(10));
        latency.record(4 * SIZE, 2, Duration::from_millis(80));
        let ahead = |size: usize| BatchLoad { slots_ahead: BTreeMap::from([(size, 2)]), ..one_image(1) };
        assert_eq!(latency.evaluations_within(SECOND, &ahead(SIZE)), 30);
        assert_eq!(latency.evaluations_within(SECOND, &ahead(4 * SIZE)), 10);
    }
}
