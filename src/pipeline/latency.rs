//! Estimates how long batch evaluations take, and how many fit before a deadline.

use std::time::Duration;

/// The weight of the newest measurement in a moving average; a throttled board shows within a few batches.
const EWMA_ALPHA: f64 = 0.2;
/// The share of the time before a deadline that evaluations may take; the rest covers the work between them.
const DEADLINE_MARGIN: f64 = 0.9;

/// Moving averages of the duration of batch evaluations and VAE decodings.
#[derive(Debug, Clone)]
pub(super) struct LatencyEstimator {
    /// One estimate per batch size; index 0 is a batch of one slot.
    batches: Vec<Option<Ewma>>,
    /// Slots of the latest batch.
    latest_slots: usize,
    decoding_s: Option<f64>,
    /// The duration of the warm-up evaluation per sample, used until a batch was measured; 0 if there was none.
    warmup_s: f64,
}

/// An exponentially weighted moving average, in seconds.
#[derive(Debug, Clone, Copy)]
struct Ewma {
    mean: f64,
    /// Whether only one batch was measured, which may include a provider's one-time work for its size.
    is_first: bool,
}

/// The slots that a job needs, and those that the jobs before it need.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLoad {
    pub(super) images: usize,
    pub(super) slots_per_image: usize,
    /// Slots of running images that are served before or together with the job.
    pub(super) slots_ahead: usize,
    /// Slots in a batch.
    pub(super) batch_slots: usize,
}

impl LatencyEstimator {
    pub(super) fn new(first_evaluation: Option<Duration>) -> Self {
        Self {
            batches: Vec::new(),
            latest_slots: 0,
            decoding_s: None,
            warmup_s: first_evaluation.unwrap_or_default().as_secs_f64(),
        }
    }

    /// Records the duration of a batch evaluation. The second measurement of a size replaces the first.
    pub(super) fn record(&mut self, slots: usize, elapsed: Duration) {
        if self.batches.len() < slots {
            self.batches.resize(slots, None);
        }
        self.latest_slots = slots;
        if let Some(average) = slots.checked_sub(1).and_then(|index| self.batches.get_mut(index)) {
            let mean = average.filter(|average| !average.is_first).map(|average| average.mean);
            *average = Some(Ewma { mean: ewma(mean, elapsed), is_first: average.is_none() });
        }
    }

    /// Returns the seconds that batches of the latest size take, once two of them were measured.
    pub(super) fn latest(&self) -> Option<f64> {
        let average = (*self.batches.get(self.latest_slots.checked_sub(1)?)?)?;
        (!average.is_first).then_some(average.mean)
    }

    /// Records the duration of a VAE decoding.
    pub(super) fn record_decoding(&mut self, elapsed: Duration) {
        self.decoding_s = Some(ewma(self.decoding_s, elapsed));
    }

    /// Estimates the seconds that a batch takes. A size that was not measured takes at most its proportion of
    /// the next smaller size, and at most as long as the next larger size.
    fn batch_seconds(&self, slots: usize) -> f64 {
        let measured = self
            .batches
            .iter()
            .enumerate()
            .filter_map(|(index, average)| Some((index + 1, (*average)?.mean)));
        let (smaller, larger): (Vec<_>, Vec<_>) = measured.partition(|(size, _)| *size <= slots);
        match (smaller.last(), larger.first()) {
            (Some((size, seconds)), larger) => {
                let scaled = seconds * slots as f64 / *size as f64;
                larger.map_or(scaled, |(_, seconds)| scaled.min(*seconds))
            }
            (None, Some((_, seconds))) => *seconds,
            (None, None) => self.warmup_s * slots as f64,
        }
    }

    /// Returns how many evaluations of every image of the job fit into the remaining time.
    pub(super) fn evaluations_within(&self, remaining: Duration, load: BatchLoad) -> usize {
        let slots = load.slots_ahead + load.images * load.slots_per_image;
        let batches = slots.div_ceil(load.batch_slots.max(1));
        let seconds_each = batches as f64 * self.batch_seconds(slots.min(load.batch_slots));
        let decoding = load.images as f64 * self.decoding_s.unwrap_or(0.0);
        let budget = DEADLINE_MARGIN * remaining.as_secs_f64() - decoding;
        (budget / seconds_each).max(0.0) as usize
    }
}

fn ewma(mean: Option<f64>, newest: Duration) -> f64 {
    let newest = newest.as_secs_f64();
    mean.map_or(newest, |mean| (1.0 - EWMA_ALPHA) * mean + EWMA_ALPHA * newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn one_image(slots_per_image: usize) -> BatchLoad {
        BatchLoad { images: 1, slots_per_image, slots_ahead: 0, batch_slots: 8 }
    }

    #[test]
    fn sizes_that_were_not_measured_are_estimated_from_their_neighbours() {
        let mut latency = LatencyEstimator::new(Some(Duration::from_millis(100)));
        assert_eq!(latency.evaluations_within(SECOND, one_image(1)), 9);
        latency.record(2, Duration::from_millis(20));
        assert_eq!(latency.evaluations_within(SECOND, one_image(2)), 45);
        // A smaller batch is assumed to take as long, and a larger one to take proportionally longer.
        assert_eq!(latency.evaluations_within(SECOND, one_image(1)), 45);
        assert_eq!(latency.evaluations_within(SECOND, one_image(4)), 22);
        latency.record(8, Duration::from_millis(30));
        assert_eq!(latency.evaluations_within(SECOND, one_image(4)), 30);
    }

    #[test]
    fn other_images_and_decoding_leave_room_for_fewer_evaluations() {
        let mut latency = LatencyEstimator::new(Some(SECOND));
        latency.record(8, Duration::from_millis(10));
        let load = BatchLoad { images: 4, slots_per_image: 2, slots_ahead: 0, batch_slots: 8 };
        assert_eq!(latency.evaluations_within(SECOND, load), 90);
        assert_eq!(latency.evaluations_within(SECOND, BatchLoad { slots_ahead: 1, ..load }), 45);
        latency.record_decoding(Duration::from_millis(100));
        assert_eq!(latency.evaluations_within(SECOND, load), 50);
        assert_eq!(latency.evaluations_within(Duration::from_millis(100), load), 0);
    }

    #[test]
    fn a_throttled_board_raises_the_estimate() {
        let mut latency = LatencyEstimator::new(Some(SECOND));
        latency.record(1, Duration::from_millis(10));
        for _ in 0..20 {
            latency.record(1, Duration::from_millis(40));
        }
        assert!((22..=23).contains(&latency.evaluations_within(SECOND, one_image(1))));
    }

    #[test]
    fn the_second_measurement_of_a_size_replaces_the_first() {
        let mut latency = LatencyEstimator::new(Some(SECOND));
        latency.record(2, Duration::from_millis(400));
        assert_eq!((latency.latest(), latency.evaluations_within(SECOND, one_image(2))), (None, 2));
        latency.record(2, Duration::from_millis(10));
        assert_eq!((latency.latest(), latency.evaluations_within(SECOND, one_image(2))), (Some(0.01), 90));
        latency.record(3, Duration::from_millis(400));
        assert_eq!(latency.latest(), None);
        latency.record(2, Duration::from_millis(15));
        assert!(latency.latest().is_some_and(|seconds| (seconds - 0.011).abs() < 1e-9));
    }
}
