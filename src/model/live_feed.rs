//! The tensors for a graph's live inputs: the residuals of ControlNets, and the matrices of LoRAs.

use std::sync::Arc;

use crate::bundle::{LiveInputs, LoraInput};
use crate::inference::{Input, Values};
use crate::lora::LowRank;
use crate::tensor::Tensor;

/// The LoRAs of a job for one graph: for each of its layers the sum of their products, if any of them changes it.
#[derive(Debug, Default, PartialEq)]
pub struct Adaptation {
    /// In the order of the graph's layers.
    pub layers: Vec<Option<LowRank>>,
}

/// The tensors of the live inputs. Matrices stay as they are until a batch has other LoRAs.
#[derive(Debug)]
pub(super) struct LiveFeed {
    inputs: LiveInputs,
    /// Zeros for each residual.
    idle_residuals: Vec<Tensor>,
    /// Two for each layer.
    matrices: Vec<Tensor>,
    /// The LoRAs that the matrices are for. Empty if there are none.
    adapted: Vec<Option<Arc<Adaptation>>>,
}

impl LiveFeed {
    /// Zeros for these inputs.
    pub(super) fn idle(inputs: &LiveInputs) -> Self {
        let mut tensors: Vec<_> = inputs.idle_shapes().map(|(_, shape)| Tensor::zeros(shape)).collect();
        let matrices = tensors.split_off(inputs.residuals.len());
        Self { inputs: inputs.clone(), idle_residuals: tensors, matrices, adapted: Vec::new() }
    }

    /// Sets the LoRAs of each sample of a batch. Matrices are only made again if those of the batch have changed.
    pub(super) fn set_adaptations(&mut self, samples: &[Option<Arc<Adaptation>>]) {
        let adapted = if samples.iter().all(Option::is_none) { &[] } else { samples };
        if is_same(&self.adapted, adapted) {
            return;
        }
        self.adapted = adapted.to_vec();
        let one = adapted.first().filter(|first| adapted.iter().all(|sample| is_same_one(sample, first)));
        let rows = one.map_or(adapted, std::slice::from_ref);
        self.matrices.clear();
        for (index, input) in self.inputs.layers.iter().enumerate() {
            let parts =
                rows.iter().map(|row| row.as_ref().and_then(|sample| sample.layers.get(index)?.as_ref()));
            self.matrices.extend(matrices(input, &parts.collect::<Vec<_>>()));
        }
    }

    /// The inputs of an evaluation. Without `residuals` these are zeros.
    pub(super) fn inputs<'a>(&'a self, residuals: &'a [Tensor]) -> impl Iterator<Item = Input<'a>> {
        let names = self.inputs.idle_shapes().map(|(name, _)| name);
        let residuals = if residuals.is_empty() { &self.idle_residuals } else { residuals };
        let tensors = residuals.iter().chain(&self.matrices);
        names
            .zip(tensors)
            .map(|(name, tensor)| Input::new(name, tensor.shape.clone(), Values::F32(&tensor.data)))
    }
}

fn is_same_one(one: &Option<Arc<Adaptation>>, other: &Option<Arc<Adaptation>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn is_same(one: &[Option<Arc<Adaptation>>], other: &[Option<Arc<Adaptation>>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same_one(one, other))
}

/// a and b of a layer for several samples, whose ranks are filled up to the largest with zeros. Without samples: zeros of
/// rank 1.
pub(super) fn matrices(input: &LoraInput, samples: &[Option<&LowRank>]) -> [Tensor; 2] {
    let layer = &input.layer;
    let rank = samples.iter().flatten().map(|part| part.rank).max();
    let (Some(rank), count) = (rank, samples.len()) else {
        return [Tensor::zeros(vec![1, layer.inputs, 1]), Tensor::zeros(vec![1, 1, layer.outputs])];
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for sample in samples {
        match sample {
            Some(part) => {
                part.append_a(rank, &mut a);
                part.append_b(rank, &mut b);
            }
            None => {
                a.resize(a.len() + layer.inputs * rank, 0.0);
                b.resize(b.len() + rank * layer.outputs, 0.0);
            }
        }
    }
    [
        Tensor { shape: vec![count, layer.inputs, rank], data: a },
        Tensor { shape: vec![count, rank, layer.outputs], data: b },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::AdaptedLayer;

    fn adaptation(rank: usize, value: f32) -> Option<Arc<Adaptation>> {
        let part = LowRank { inputs: 2, outputs: 1, rank, a: vec![value; 2 * rank], b: vec![value; rank] };
        Some(Arc::new(Adaptation { layers: vec![Some(part)] }))
    }

    fn feed() -> LiveFeed {
        let layer = AdaptedLayer { module: "x".to_owned(), inputs: 2, outputs: 1 };
        let input = LoraInput { a: "lora_a.x".to_owned(), b: "lora_b.x".to_owned(), layer };
        LiveFeed::idle(&LiveInputs { residuals: Vec::new(), layers: vec![input] })
    }

    fn shapes(feed: &LiveFeed) -> Vec<Vec<usize>> {
        feed.matrices.iter().map(|tensor| tensor.shape.clone()).collect()
    }

    #[test]
    fn one_lora_for_all_samples_is_there_once() {
        let mut feed = feed();
        let lora = adaptation(3, 1.0);
        feed.set_adaptations(&[lora.clone(), lora]);
        assert_eq!(shapes(&feed), [vec![1, 2, 3], vec![1, 3, 1]]);
        feed.set_adaptations(&[None, None]);
        assert_eq!(shapes(&feed), [vec![1, 2, 1], vec![1, 1, 1]]);
        assert!(feed.matrices.iter().all(|tensor| tensor.data.iter().all(|x| *x == 0.0)));
    }

    #[test]
    fn ranks_of_a_batch_are_filled_up() {
        let mut feed = feed();
        feed.set_adaptations(&[adaptation(1, 5.0), None, adaptation(2, 7.0)]);
        assert_eq!(shapes(&feed), [vec![3, 2, 2], vec![3, 2, 1]]);
        assert_eq!(feed.matrices[0].data, [5.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 7.0, 7.0, 7.0]);
        assert_eq!(feed.matrices[1].data, [5.0, 0.0, 0.0, 0.0, 7.0, 7.0]);
    }
}
