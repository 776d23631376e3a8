//! A network that records how long its evaluations take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bundle::Signature;
use crate::inference::{Backend, EvaluationError};
use crate::model::{Batch, Model, Predictor};

/// One evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evaluation {
    /// The number of samples.
    pub(super) batch: usize,
    pub(super) elapsed: Duration,
    /// When it ended.
    pub(super) end: Instant,
}

/// The evaluations since the last call of [`EvaluationLog::clear`].
#[derive(Debug, Clone, Default)]
pub(super) struct EvaluationLog(Arc<Mutex<Vec<Evaluation>>>);

impl EvaluationLog {
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Returns all evaluations, oldest first.
    pub(super) fn all(&self) -> Vec<Evaluation> {
        self.lock().clone()
    }

    /// Returns the times of the evaluations of this batch size, oldest first.
    pub(super) fn times(&self, batch: usize) -> Vec<Duration> {
        let evaluations = self.lock();
        let of_size = evaluations.iter().filter(|evaluation| evaluation.batch == batch);
        of_size.map(|evaluation| evaluation.elapsed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Evaluation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TimedPredictor {
    predictor: Box<dyn Predictor>,
    log: EvaluationLog,
}

impl Predictor for TimedPredictor {
    fn signature(&self) -> &Signature {
        self.predictor.signature()
    }

    fn backend(&self) -> &Backend {
        self.predictor.backend()
    }

    fn captures_shapes(&self) -> bool {
        self.predictor.captures_shapes()
    }

    fn padded_batch(&self, samples: usize, sample: &[usize]) -> usize {
        self.predictor.padded_batch(samples, sample)
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let start = Instant::now();
        let evaluated = self.predictor.evaluate(batch, output);
        let end = Instant::now();
        self.log.lock().push(Evaluation { batch: batch.size(), elapsed: end - start, end });
        evaluated
    }
}

/// Returns the model with a log of its evaluations.
pub(super) fn with_log(model: Model) -> (Model, EvaluationLog) {
    let log = EvaluationLog::default();
    let predictor = TimedPredictor { predictor: model.predictor, log: log.clone() };
    (Model { predictor: Box::new(predictor), ..model }, log)
}
