//! Chooses a batch size by the measured throughput.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::working_memory::EvaluationSize;

/// A batch of twice the size is used only if it evaluates more samples per second by this factor.
const MIN_GAIN: f64 = 1.05;
/// How many evaluations of a size are timed before it is judged. The first one includes one-time work.
const MIN_EVALUATIONS: u32 = 3;
/// The most sizes that are kept of a session.
const MAX_TIMINGS: usize = 48;

/// The fastest evaluation of a size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Timing {
    #[serde(flatten)]
    size: EvaluationSize,
    seconds: f64,
    evaluations: u32,
}

/// The timed evaluations of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Throughput {
    timings: Vec<Timing>,
}

impl Throughput {
    /// Adds a timing. Returns whether it may change a choice.
    pub(super) fn record(&mut self, size: EvaluationSize, seconds: f64) -> bool {
        if let Some(known) = self.timings.iter_mut().find(|known| known.size == size) {
            let is_faster = seconds * MIN_GAIN < known.seconds;
            known.evaluations = known.evaluations.saturating_add(1);
            known.seconds = known.seconds.min(seconds);
            return is_faster || known.evaluations == MIN_EVALUATIONS;
        }
        if self.timings.len() == MAX_TIMINGS {
            self.timings.remove(0);
        }
        self.timings.push(Timing { size, seconds, evaluations: 1 });
        false
    }

    /// The batch size for samples of this many values, from 1 to `max`: doubled while that was worth it, or is not known.
    pub(super) fn best_batch(&self, values: u64, max: u64) -> u64 {
        let timings = self
            .timings
            .iter()
            .filter(|timing| timing.size.values == values && timing.evaluations >= MIN_EVALUATIONS);
        let rates: BTreeMap<u64, f64> =
            timings.map(|timing| (timing.size.batch, timing.size.batch as f64 / timing.seconds)).collect();
        let mut batch = 1;
        while 2 * batch <= max {
            match (rates.get(&batch), rates.get(&(2 * batch))) {
                // A size that was not judged is tried, and nothing beyond it.
                (_, None) => return 2 * batch,
                (Some(rate), Some(next)) if *next < rate * MIN_GAIN => return batch,
                // Jobs with guidance never have a batch of one.
                _ => batch *= 2,
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(throughput: &mut Throughput, batch: u64, seconds: f64) {
        for _ in 0..MIN_EVALUATIONS {
            throughput.record(EvaluationSize { values: 100, batch }, seconds);
        }
    }

    #[test]
    fn the_batch_doubles_while_that_is_worth_it() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.best_batch(100, 8), 2);
        record(&mut throughput, 2, 1.0);
        assert_eq!(throughput.best_batch(100, 8), 4);
        assert_eq!(throughput.best_batch(100, 3), 2);
        assert_eq!(throughput.best_batch(64, 8), 2);
        record(&mut throughput, 4, 1.2);
        assert_eq!(throughput.best_batch(100, 8), 8);
        // 8 samples in 2.35 s are 2 % more each second.
        record(&mut throughput, 8, 2.35);
        assert_eq!(throughput.best_batch(100, 8), 4);
        assert_eq!(throughput.best_batch(100, 16), 4);
    }

    #[test]
    fn a_size_is_judged_by_its_fastest_evaluation_once_there_are_enough() {
        let mut throughput = Throughput::default();
        let size = EvaluationSize { values: 100, batch: 1 };
        assert_eq!(
            [9.0, 1.0, 1.1, 1.0].map(|seconds| throughput.record(size, seconds)),
            [false, true, true, false]
        );
        assert_eq!(throughput.timings[0].seconds, 1.0);
        let other = EvaluationSize { values: 100, batch: 2 };
        throughput.record(other, 5.0);
        assert_eq!(throughput.best_batch(100, 8), 2);
        record(&mut throughput, 2, 5.0);
        assert_eq!(throughput.best_batch(100, 8), 1);
    }
}
