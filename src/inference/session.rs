//! A graph that an engine has opened: named tensors in, tensors out.

use super::error::EvaluationError;
use crate::tensor::GraphIo;

/// The values of an input. The session converts them to the type of the graph's input. Conversion to integers truncates,
/// as the reference's exports do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
}

impl Values<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }
}

/// An input of an evaluation.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'a>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(name: &'a str, shape: impl Into<Vec<usize>>, values: Values<'a>) -> Self {
        Self { name, shape: shape.into(), values }
    }
}

/// A graph opened by an engine.
pub(crate) trait Session: Send {
    /// The inputs and outputs as the engine describes them.
    fn graph(&self) -> &GraphIo;

    /// Whether ArgMax returns the first of several equal values, as ONNX specifies.
    fn argmax_returns_first(&self) -> bool {
        true
    }

    /// Evaluates the graph for one output. Replaces the contents of `output` and returns the shape.
    fn run(
        &mut self,
        inputs: &[Input<'_>],
        name: &str,
        output: &mut Vec<f32>,
    ) -> Result<Vec<usize>, EvaluationError> {
        let mut shapes = self.run_all(inputs, &[name], std::slice::from_mut(output))?;
        Ok(shapes.pop().unwrap_or_default())
    }

    /// Evaluates the graph for several outputs. Replaces the contents of `outputs` and returns their shapes.
    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError>;
}

/// The inputs that the graph has, each with its index in the graph. Others are ignored.
///
/// A search begins behind the last input found, because a graph with live inputs has hundreds of them, which are fed in
/// its own order.
pub(super) fn match_inputs<'a>(
    graph: &GraphIo,
    inputs: &'a [Input<'a>],
) -> impl Iterator<Item = (usize, &'a Input<'a>)> {
    let (mut next, count) = (0, graph.inputs.len());
    inputs.iter().filter_map(move |input| {
        let index = (next..count).chain(0..next).find(|&index| graph.inputs[index].name == input.name)?;
        next = index + 1;
        Some((index, input))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DataType, ValueInfo};

    #[test]
    fn inputs_are_matched_by_name_in_any_order() {
        let port = |name: &str| ValueInfo::with_axes(name, DataType::F32, &[None]);
        let graph = GraphIo { inputs: ["a", "b", "c"].map(port).into(), outputs: Vec::new() };
        let matched = |names: &[&str]| {
            let inputs: Vec<_> =
                names.iter().map(|name| Input::new(name, [1], Values::F32(&[0.0]))).collect();
            match_inputs(&graph, &inputs).map(|(index, _)| index).collect::<Vec<_>>()
        };
        assert_eq!(matched(&["a", "b", "c"]), [0, 1, 2]);
        assert_eq!(matched(&["c", "other", "b", "a"]), [2, 1, 0]);
        assert_eq!(matched(&["b", "b"]), [1, 1]);
    }
}
