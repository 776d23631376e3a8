//! The shapes of a graph's inputs, for what is built or captured for them.

use super::TensorRt;
use crate::bundle::signature::{Signature, TimestepShape};
use crate::units::Bounded;

/// The shapes of a graph's inputs: an engine built for these serves every batch between, so that no request ever
/// builds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shapes {
    pub(crate) least: InputShapes,
    pub(crate) tuned: InputShapes,
    pub(crate) most: InputShapes,
}

/// Each input's name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputShapes(pub(crate) Vec<(String, Vec<usize>)>);

impl Shapes {
    pub(crate) fn of(signature: &Signature, options: &TensorRt) -> Self {
        let most = signature.largest_batch;
        let batch = |chosen: Option<Bounded<1, 1024>>, default: usize| {
            chosen.map_or(default, |n| n.0 as usize).clamp(signature.smallest_batch(), most)
        };
        Self {
            least: InputShapes::of(signature, batch(options.min_batch, signature.smallest_batch())),
            tuned: InputShapes::of(signature, batch(options.opt_batch, most)),
            most: InputShapes::of(signature, most),
        }
    }

    /// Those of the largest batch alone.
    pub(crate) fn of_largest(self) -> Self {
        Self { least: self.most.clone(), tuned: self.most.clone(), most: self.most }
    }

    /// Those of the largest batch.
    pub(crate) fn largest(&self) -> &InputShapes {
        &self.most
    }
}

impl InputShapes {
    fn of(signature: &Signature, batch: usize) -> Self {
        let mut sample = vec![batch];
        sample.extend(&signature.sample_shape);
        sample[1] += signature.beside;
        let time = match signature.time.shape {
            TimestepShape::PerSample => Some(vec![batch]),
            TimestepShape::Single => Some(vec![1]),
            TimestepShape::Scalar => None,
        };
        let time = time.map(|shape| (signature.time.name.clone(), shape));
        let each = signature.class.iter().chain(&signature.conditions);
        let vectors = time.into_iter().chain(each.map(|(name, _)| (name.clone(), vec![batch])));
        let tensors = signature.tensors.iter().map(|tensor| {
            let own = tensor.usual_shape(&signature.sample_shape);
            let shape = if tensor.role.is_shared() { own } else { [&[batch], &own[..]].concat() };
            (tensor.name.clone(), shape)
        });
        Self([(signature.sample.clone(), sample)].into_iter().chain(vectors).chain(tensors).collect())
    }
}

impl std::fmt::Display for InputShapes {
    /// As TensorRT has it, `sample:1x1x28x28,timestep:1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, shape)) in self.0.iter().enumerate() {
            let axes: Vec<_> = shape.iter().map(usize::to_string).collect();
            write!(f, "{}{name}:{}", if i == 0 { "" } else { "," }, axes.join("x"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::signature::{Role, TensorInput, TimeInput};
    use crate::tensor::{DataType, Dim, GraphIo};

    #[test]
    fn every_input_has_its_shape() {
        let tensor = |name: &str, role, shape: &[Dim]| TensorInput {
            name: name.to_owned(),
            role,
            shape: shape.to_vec(),
        };
        let signature = Signature {
            sample: "sample".to_owned(),
            sample_shape: vec![4, 8, 8],
            graph: GraphIo::default(),
            sample_element: DataType::F32,
            fixed_batch: None,
            largest_batch: 4,
            time: TimeInput {
                name: "timestep".to_owned(),
                element: DataType::I64,
                shape: TimestepShape::PerSample,
                over: 1.0,
            },
            class: None,
            conditions: vec![("strength".to_owned(), DataType::F32)],
            tensors: vec![
                tensor("encoder_hidden_states", Role::Text, &[Dim::Dynamic, Dim::Fixed(32)]),
                tensor("txt_ids", Role::TextIds, &[Dim::Dynamic, Dim::Fixed(3)]),
            ],
            free_size: true,
            beside: 5,
            output: "out_sample".to_owned(),
        };
        let shapes = Shapes::of(&signature, &TensorRt { min_batch: Some(Bounded(2)), ..TensorRt::default() });
        let written = |batch: usize| {
            format!(
                "sample:{batch}x9x8x8,timestep:{batch},strength:{batch},encoder_hidden_states:{batch}x77x32,\
                 txt_ids:77x3"
            )
        };
        let all = |shapes: &Shapes| [&shapes.least, &shapes.tuned, &shapes.most].map(ToString::to_string);
        assert_eq!(all(&shapes), [2, 4, 4].map(written));
        assert_eq!(all(&shapes.of_largest()), [4, 4, 4].map(written));
    }
}
