//! Predicts the working memory of an evaluation from the evaluations that were measured.
//!
//! The model is a·n + b·n² for each sample, with n the values of a sample: activations grow with the size of a picture, and
//! the matrices of attention with its square. Both grow with the batch.

use serde::{Deserialize, Serialize};

/// The most measurements that are kept of a session.
const MAX_MEASUREMENTS: usize = 24;

/// The size of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvaluationSize {
    /// The number of values of one sample of the first input.
    pub values: u64,
    /// The number of samples.
    pub batch: u64,
}

/// One measured size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Measurement {
    #[serde(flatten)]
    size: EvaluationSize,
    /// The working memory in bytes.
    bytes: u64,
    /// The part of it that the session holds after the evaluation: its arena.
    held: u64,
}

/// The measured evaluations of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkingMemory {
    measurements: Vec<Measurement>,
}

impl WorkingMemory {
    /// Adds a measurement. Of two with the same size, the larger one counts. Returns whether anything changed.
    pub(super) fn record(&mut self, size: EvaluationSize, bytes: u64, held: u64) -> bool {
        if let Some(known) = self.measurements.iter_mut().find(|known| known.size == size) {
            let is_larger = bytes > known.bytes;
            (known.bytes, known.held) = (known.bytes.max(bytes), known.held.max(held));
            return is_larger;
        }
        if self.measurements.len() == MAX_MEASUREMENTS {
            self.measurements.remove(0);
        }
        self.measurements.push(Measurement { size, bytes, held });
        true
    }

    /// Whether nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.measurements.is_empty()
    }

    /// The working memory that the session holds after an evaluation of this size, if it was measured.
    pub(super) fn held(&self, size: EvaluationSize) -> Option<u64> {
        self.measurements.iter().find(|known| known.size == size).map(|known| known.held)
    }

    /// The working memory of an evaluation in bytes. `attention` is the smallest size in bytes of one sample's attention
    /// matrices, as a factor of the square of its values.
    ///
    /// A measured size has what was measured. A smaller one has its share of the next larger, which is never too little. A
    /// larger one follows the model, whose parts come from the two measurements that differ most in size; where there is
    /// only one, attention has its smallest size.
    pub(super) fn predict(&self, size: EvaluationSize, attention: f64) -> u64 {
        let wanted = linear(size);
        if let Some(exact) = self.measurements.iter().find(|known| known.size == size) {
            return exact.bytes;
        }
        let larger = self
            .measurements
            .iter()
            .filter(|known| known.size.values >= size.values && linear(known.size) >= wanted);
        if let Some(larger) = larger.min_by(|a, b| linear(a.size).total_cmp(&linear(b.size))) {
            return (larger.bytes as f64 * wanted / linear(larger.size)).ceil() as u64;
        }
        let (a, b) = self.coefficients(attention);
        (a * wanted + b * quadratic(size)).ceil() as u64
    }

    /// The factors of the linear and of the quadratic part.
    fn coefficients(&self, attention: f64) -> (f64, f64) {
        let values = || self.measurements.iter().map(|known| known.size.values);
        let (Some(min), Some(max)) = (values().min(), values().max()) else { return (0.0, attention) };
        // Working memory for each value, which is a + b·n. Batches differ a little in it; the largest counts.
        let each = |n: u64| {
            let all = self.measurements.iter().filter(|known| known.size.values == n);
            all.map(|known| known.bytes as f64 / linear(known.size)).fold(0.0, f64::max)
        };
        let (x, y) = (min as f64, max as f64);
        let slope = if max > min { (each(max) - each(min)) / (y - x) } else { attention };
        // Less than the smallest attention was measured: the engine does not store its matrices.
        let fits = each(max) >= slope.max(0.0) * y;
        let b = if fits { slope.max(0.0) } else { 0.0 };
        (each(max) - b * y, b)
    }
}

fn linear(size: EvaluationSize) -> f64 {
    size.values as f64 * size.batch as f64
}

fn quadratic(size: EvaluationSize) -> f64 {
    linear(size) * size.values as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(values: u64, batch: u64) -> EvaluationSize {
        EvaluationSize { values, batch }
    }

    #[test]
    fn a_measured_size_has_its_measurement_and_smaller_ones_a_share() {
        let mut memory = WorkingMemory::default();
        assert!(memory.record(size(100, 2), 1000, 0));
        assert!(!memory.record(size(100, 2), 900, 0));
        assert!(memory.record(size(100, 2), 1200, 0));
        assert_eq!(memory.predict(size(100, 2), 1.0), 1200);
        assert_eq!(memory.predict(size(100, 1), 1.0), 600);
        assert_eq!(memory.predict(size(50, 2), 1.0), 600);
    }

    #[test]
    fn larger_sizes_follow_the_two_measurements() {
        // 3·n + 0.5·n² for each sample.
        let bytes = |n: u64, batch: u64| batch * (3 * n + n * n / 2);
        let mut memory = WorkingMemory::default();
        memory.record(size(10, 2), bytes(10, 2), 0);
        memory.record(size(40, 1), bytes(40, 1), 0);
        assert_eq!(memory.predict(size(160, 2), 0.0), bytes(160, 2));
        assert_eq!(memory.predict(size(40, 8), 0.0), bytes(40, 8));
    }

    #[test]
    fn without_measurements_only_the_smallest_attention_is_known() {
        let mut memory = WorkingMemory::default();
        assert_eq!(memory.predict(size(100, 2), 4.0), 2 * 4 * 100 * 100);
        // One measurement: 500 bytes, of which attention has 4·10².
        memory.record(size(10, 1), 500, 0);
        assert_eq!(memory.predict(size(100, 1), 4.0), 10 * 100 + 4 * 100 * 100);
        // Of two batches of one size, the one that took more for each sample counts.
        memory.record(size(10, 2), 100, 0);
        assert_eq!(memory.predict(size(100, 1), 4.0), 10 * 100 + 4 * 100 * 100);
        // An engine that took less than that has no matrices of attention.
        let mut fused = WorkingMemory::default();
        fused.record(size(10, 1), 300, 0);
        assert_eq!(fused.predict(size(100, 1), 4.0), 30 * 100);
    }

    #[test]
    fn the_number_of_measurements_is_bounded() {
        let mut memory = WorkingMemory::default();
        for values in 1..100 {
            memory.record(size(values, 1), values, 0);
        }
        assert_eq!(memory.measurements.len(), MAX_MEASUREMENTS);
        assert_eq!(memory.predict(size(99, 1), 0.0), 99);
    }
}
