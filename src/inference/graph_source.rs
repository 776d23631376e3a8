//! A graph to open, the warm-up that its session must pass, and the session that passed it.

use std::collections::BTreeMap;

use super::backend::Backend;
use super::error::EvaluationError;
use super::provider::{InputShapes, ShapeProfile};
use super::session::{Input, Session, Values};
use crate::onnx::ModelFiles;

/// What to do if a file cannot be written to the directory for temporary files.
pub(super) const TEMPORARY_HINT: &str = "Files are written there while a graph is loaded: make room, or set TMPDIR to a \
     directory that can be written";

/// A graph to open.
pub(crate) struct GraphSource<'a> {
    /// The name in log messages and in the engine cache.
    pub(crate) name: String,
    /// The ONNX file with the files of its external data.
    pub(crate) files: &'a ModelFiles,
    /// The SHA-256 of the graph, in hexadecimal.
    pub(crate) sha256: &'a str,
    /// The shapes in which the graph is evaluated again and again. `None` for a graph that is evaluated once per job:
    /// neither an engine nor a CUDA graph is made for its shapes.
    pub(crate) profile: Option<ShapeProfile>,
    /// The evaluations that the session must pass before it serves.
    pub(crate) warmup: Warmup,
}

/// Evaluations with constant inputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warmup {
    /// The inputs of each evaluation, the largest batch first and the smallest last.
    pub(crate) shapes: Vec<InputShapes>,
    /// The constant of an input that is not filled with zeros.
    pub(crate) constants: BTreeMap<String, f32>,
    /// The output to compute.
    pub(crate) output: String,
}

/// Which evaluations of a [`Warmup`] to run.
#[derive(Debug, Clone, Copy)]
pub(super) enum WarmupExtent {
    /// The last one.
    Smallest,
    /// All, so that whatever a provider prepares for a shape is prepared before the first request.
    All,
    /// The first one, twice: it is captured and then replayed.
    Captured,
}

impl Warmup {
    /// Runs the evaluations.
    pub(super) fn run(&self, session: &mut dyn Session, extent: WarmupExtent) -> Result<(), EvaluationError> {
        let (first, last) = (self.shapes.first(), self.shapes.last());
        let shapes: Vec<&InputShapes> = match extent {
            WarmupExtent::Smallest => last.into_iter().collect(),
            WarmupExtent::All => self.shapes.iter().collect(),
            WarmupExtent::Captured => first.into_iter().chain(first).collect(),
        };
        shapes.into_iter().try_for_each(|inputs| self.evaluate(session, inputs))
    }

    fn evaluate(&self, session: &mut dyn Session, shapes: &InputShapes) -> Result<(), EvaluationError> {
        let constant = |(name, shape): &(String, Vec<usize>)| {
            vec![self.constants.get(name).copied().unwrap_or(0.0); shape.iter().product()]
        };
        let values: Vec<Vec<f32>> = shapes.0.iter().map(constant).collect();
        let inputs = shapes.0.iter().zip(&values);
        let inputs: Vec<_> = inputs
            .map(|((name, shape), values)| Input::new(name, shape.clone(), Values::F32(values)))
            .collect();
        session.run(&inputs, &self.output, &mut Vec::new())?;
        Ok(())
    }
}

/// A session that passed its warm-up, with what runs it.
pub(crate) struct LoadedSession {
    pub(crate) session: Box<dyn Session>,
    pub(crate) backend: Backend,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::GraphIo;

    /// Records the shape and the first value of the input of each evaluation.
    #[derive(Default)]
    struct Recorder {
        graph: GraphIo,
        evaluations: Vec<(Vec<usize>, f32)>,
    }

    impl Session for Recorder {
        fn graph(&self) -> &GraphIo {
            &self.graph
        }

        fn run_all(
            &mut self,
            inputs: &[Input<'_>],
            _: &[&str],
            _: &mut [Vec<f32>],
        ) -> Result<Vec<Vec<usize>>, EvaluationError> {
            let Values::F32(values) = inputs[0].values else { return Err(EvaluationError::OutputType) };
            self.evaluations.push((inputs[0].shape.clone(), values[0]));
            Ok(Vec::new())
        }
    }

    #[test]
    fn the_warm_up_has_the_batches_that_its_extent_asks_for() {
        let shapes = |batch: usize| InputShapes(vec![("strength".to_owned(), vec![batch])]);
        let warmup = Warmup {
            shapes: [3, 2, 1, 1].map(shapes).into(),
            constants: BTreeMap::from([("strength".to_owned(), 0.5)]),
            output: "out_sample".to_owned(),
        };
        for (extent, batches) in [
            (WarmupExtent::Smallest, &[1][..]),
            (WarmupExtent::All, &[3, 2, 1, 1]),
            (WarmupExtent::Captured, &[3, 3]),
        ] {
            let mut session = Recorder::default();
            warmup.run(&mut session, extent).unwrap();
            let expected: Vec<_> = batches.iter().map(|batch| (vec![*batch], 0.5)).collect();
            assert_eq!(session.evaluations, expected, "{extent:?}");
        }
        // A graph without inputs or outputs has no warm-up.
        let mut session = Recorder::default();
        Warmup::default().run(&mut session, WarmupExtent::All).unwrap();
        assert!(session.evaluations.is_empty());
    }
}
