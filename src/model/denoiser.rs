//! The network as a predictor: a batch laid out as its graph takes it.

use crate::bundle::Bundle;
use crate::bundle::manifest::Manifest;
use crate::bundle::signature::{Signature, SignatureError, TensorInput, TimestepShape};
use crate::inference::load::{Warmup, WarmupError};
use crate::inference::provider::{Shapes, TensorRt};
use crate::inference::session::{Input, Session, Tensor, Values};
use crate::inference::session_pool::PooledSession;
use crate::model::predictor::{Backend, Batch, EvaluationError, Predictor};
use crate::tensor::GraphIo;

/// How the network of a bundle is opened and warmed up.
pub(crate) struct NetworkPurpose<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) largest_batch: usize,
}

impl NetworkPurpose<'_> {
    pub(crate) fn signature(&self, graph: &GraphIo) -> Result<Signature, SignatureError> {
        Signature::resolve(graph, &self.bundle.manifest, self.bundle.network, self.largest_batch)
    }
}

impl Warmup for NetworkPurpose<'_> {
    fn warm(&self, session: &mut dyn Session, every_shape: bool) -> Result<(), WarmupError> {
        let signature = self.signature(session.graph())?;
        let (small, large) = (signature.smallest_batch(), signature.largest_batch);
        // Whatever a provider does once for a shape, it does now and not at a request. The last run counts.
        let others = every_shape.then(|| sizes(small, large)).into_iter().flatten();
        for size in others.chain([small]) {
            evaluate(
                session,
                &signature,
                &neutral(&signature, &self.bundle.manifest, size),
                &mut Vec::new(),
            )?;
        }
        Ok(())
    }

    fn shapes(&self, graph: &GraphIo, options: &TensorRt) -> Result<Option<Shapes>, SignatureError> {
        Ok(Some(Shapes::of(&self.signature(graph)?, options)))
    }
}

/// How many sizes of batches are evaluated ahead, beside the largest: as many as the largest has by default.
const AHEAD: usize = 8;

/// The sizes of batches that are evaluated ahead: the largest, then the smaller ones that jobs mostly make.
fn sizes(small: usize, large: usize) -> impl Iterator<Item = usize> {
    (small..=large).rev().filter(move |&size| size == large || size < small + AHEAD)
}

/// So many samples of nothing, with conditions of the right shapes.
pub(crate) fn neutral(signature: &Signature, manifest: &Manifest, samples: usize) -> Batch {
    let mut shape = signature.sample_shape.clone();
    shape[0] += signature.beside;
    let len = shape.iter().product();
    let usual = |input: &TensorInput| Tensor::zeros(input.usual_shape(&signature.sample_shape));
    let tensors: Vec<Tensor> = signature.tensors.iter().map(usual).collect();
    let mut batch = Batch { shape, ..Batch::default() };
    for _ in 0..samples {
        batch.push(|x| x.extend(std::iter::repeat_n(0.0, len)), 0.0, 0, manifest);
        batch.set_tensors(&signature.tensors, &tensors);
    }
    batch
}

/// A bundle's network.
pub(crate) struct Network {
    pub(crate) part: PooledSession,
    pub(crate) signature: Signature,
    pub(crate) origin: Backend,
}

impl Predictor for Network {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn origin(&self) -> &Backend {
        &self.origin
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        self.part.with(|session| evaluate(session, &self.signature, batch, output))?
    }
}

fn evaluate(
    session: &mut dyn Session,
    signature: &Signature,
    batch: &Batch,
    output: &mut Vec<f32>,
) -> Result<(), EvaluationError> {
    let n = batch.len();
    let each = if batch.shape.is_empty() { &signature.sample_shape } else { &batch.shape };
    let of_all = |axes: &[usize]| [&[n], axes].concat();
    let (times, time_shape): (_, &[usize]) = match signature.time.shape {
        TimestepShape::PerSample => (&batch.times[..], &[n]),
        TimestepShape::Single => (&batch.times[..1], &[1]),
        TimestepShape::Scalar => (&batch.times[..1], &[]),
    };
    let divided: Vec<f64>;
    let times = if signature.time.over == 1.0 {
        times
    } else {
        divided = times.iter().map(|t| t / signature.time.over).collect();
        &divided
    };
    let mut inputs = vec![
        Input::new(&signature.sample, of_all(each), Values::F32(&batch.samples)),
        Input::new(&signature.time.name, time_shape, Values::F64(times)),
    ];
    if let Some((name, _)) = &signature.class {
        inputs.push(Input::new(name, [n], Values::I64(&batch.classes)));
    }
    for ((name, _), values) in signature.conditions.iter().zip(&batch.conditions) {
        inputs.push(Input::new(name, [n], Values::F32(values)));
    }
    for (input, tensor) in signature.tensors.iter().zip(&batch.tensors) {
        let shape = if input.role.is_shared() { tensor.shape.clone() } else { of_all(&tensor.shape) };
        inputs.push(Input::new(&input.name, shape, Values::F32(&tensor.data)));
    }
    session.run(&inputs, &signature.output, output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_tried_in_a_bounded_number_of_sizes() {
        let tried = |small, large| sizes(small, large).collect::<Vec<_>>();
        assert_eq!(tried(1, 3), [3, 2, 1]);
        assert_eq!(tried(1, 1024), [1024, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(tried(5, 5), [5]);
    }
}
