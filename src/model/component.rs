//! A graph around the denoiser: a text encoder, or one half of the autoencoder.

use std::time::Instant;

use super::error::LatentError;
use crate::inference::{
    EvaluationError, EvaluationSize, Input, PooledSession, Session, SessionMemory, Values,
};

/// A graph with the name under which its errors are reported.
pub(super) struct Component {
    pub(super) name: String,
    session: PooledSession,
    /// The batch size of an evaluation. All of its samples are the same, and the first one is read.
    batch: usize,
}

/// An input of one sample.
pub(super) struct SampleInput<'a> {
    pub(super) name: &'a str,
    /// The axes after the batch axis.
    pub(super) shape: Vec<usize>,
    pub(super) values: SampleValues,
}

/// The values of one sample.
pub(super) enum SampleValues {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl SampleValues {
    fn repeat(&self, times: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(values.repeat(times)),
            Self::I64(values) => Self::I64(values.repeat(times)),
        }
    }

    fn as_values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => Values::F32(values),
            Self::I64(values) => Values::I64(values),
        }
    }
}

/// An output of one sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SampleOutput {
    /// The axes after the batch axis.
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Component {
    pub(super) fn new(name: impl Into<String>, session: PooledSession, batch: usize) -> Self {
        Self { name: name.into(), session, batch }
    }

    /// The size of an evaluation with this many values of one sample in its first input.
    pub(super) fn size(&self, values: usize) -> EvaluationSize {
        EvaluationSize { values: values as u64, batch: self.batch as u64 }
    }

    /// What is known of the graph's memory.
    pub(super) fn memory(&self) -> &SessionMemory {
        self.session.memory()
    }

    /// Whether ArgMax returns the first of several equal values on the engine that runs the graph.
    pub(super) fn argmax_returns_first(&self) -> Result<bool, LatentError> {
        let returns_first =
            self.session.with_session(|session: &mut dyn Session| session.argmax_returns_first());
        returns_first.map_err(|error| failed(self.name.clone(), error))
    }

    /// Closes the graph unless it is in use. The next evaluation opens it again.
    pub(super) fn close(&self) {
        self.session.close();
    }

    /// Opens the graph without evaluating it, if it is not open.
    pub(super) fn open(&self) -> Result<(), LatentError> {
        self.session.with_session(|_| ()).map_err(|error| failed(self.name.clone(), error))
    }

    /// Evaluates the graph, and returns these outputs. NaN and infinity are errors.
    pub(super) fn run(
        &self,
        inputs: &[SampleInput<'_>],
        outputs: &[&str],
    ) -> Result<Vec<SampleOutput>, LatentError> {
        let fed =
            || inputs.first().map(|input| format!("{} fed with {} {:?}", self.name, input.name, input.shape));
        let repeated: Vec<_> = inputs.iter().map(|input| input.values.repeat(self.batch)).collect();
        let batch_shape = |input: &SampleInput<'_>| [&[self.batch], &input.shape[..]].concat();
        let batched: Vec<_> = inputs
            .iter()
            .zip(&repeated)
            .map(|(input, values)| Input::new(input.name, batch_shape(input), values.as_values()))
            .collect();
        let mut values = vec![Vec::new(); outputs.len()];
        let started = Instant::now();
        let first = inputs.first().map_or(0, |input| input.shape.iter().product());
        let shapes = self
            .session
            .evaluate(self.size(first), |session: &mut dyn Session| {
                session.run_all(&batched, outputs, &mut values)
            })
            .map_err(|error| failed(fed().unwrap_or_else(|| self.name.clone()), error))?;
        log::debug!("evaluated {} in {} ms", self.name, started.elapsed().as_millis());
        let results = outputs.iter().zip(shapes).zip(values);
        results.map(|((output, shape), values)| self.first_sample(output, &shape, values)).collect()
    }

    /// Checks the first sample of an output, and removes the others.
    fn first_sample(
        &self,
        output: &str,
        shape: &[usize],
        mut values: Vec<f32>,
    ) -> Result<SampleOutput, LatentError> {
        let Some((_, shape)) = shape.split_first().filter(|(batch, _)| **batch == self.batch) else {
            return Err(self.wrong_shape(output, format!("[{}, …]", self.batch), shape.to_vec()));
        };
        values.truncate(shape.iter().product());
        if values.iter().any(|x| !x.is_finite()) {
            return Err(LatentError::NonFinite { component: self.name.clone(), output: output.to_owned() });
        }
        Ok(SampleOutput { shape: shape.to_vec(), values })
    }

    /// The error for an output whose axes are not those that are needed.
    pub(super) fn wrong_shape(&self, output: &str, expected: String, found: Vec<usize>) -> LatentError {
        let output = output.to_owned();
        failed(self.name.clone(), EvaluationError::OutputShape { output, expected, found })
    }
}

fn failed(component: String, error: EvaluationError) -> LatentError {
    match error {
        // These name the file.
        EvaluationError::Open(_) | EvaluationError::Closed => LatentError::Session(error),
        error => LatentError::Evaluation { component, error },
    }
}
