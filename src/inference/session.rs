//! A graph that an engine has opened: named tensors go in, tensors come out.

use crate::model::predictor::EvaluationError;
use crate::tensor::{DataType, GraphIo};

/// Values in row-major order, with their shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensor {
    /// The axes' lengths.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Of this shape; `data` has as many values as it says.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// All zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }
}

/// The values of an input, which a session turns into the type that its graph takes: whole numbers
/// are cut, not rounded, as the reference's exports do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
}

/// What a session is fed.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values<'a>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(name: &'a str, shape: impl Into<Vec<usize>>, values: Values<'a>) -> Self {
        Self { name, shape: shape.into(), values }
    }
}

/// A graph opened by an engine.
pub(crate) trait Session: Send {
    /// Its inputs and outputs.
    fn graph(&self) -> &GraphIo;

    /// Whether the engine's ArgMax takes the first of several equal values, as ONNX has it.
    fn takes_the_first_of_equals(&self) -> bool {
        true
    }

    /// Evaluate it for one of its outputs, whose values replace those of `output`; tells their shape.
    fn run(
        &mut self,
        inputs: &[Input<'_>],
        name: &str,
        output: &mut Vec<f32>,
    ) -> Result<Vec<usize>, EvaluationError> {
        let mut shapes = self.run_all(inputs, &[name], std::slice::from_mut(output))?;
        Ok(shapes.pop().unwrap_or_default())
    }

    /// Evaluate it for several of its outputs at once.
    fn run_all(
        &mut self,
        inputs: &[Input<'_>],
        names: &[&str],
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Vec<usize>>, EvaluationError>;
}

/// A buffer for an input in the type that the graph takes, used again at every evaluation.
#[derive(Debug)]
pub(crate) enum Column {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
}

/// The inputs that a graph has, with their places among its own.
pub(crate) fn known<'a>(
    graph: &GraphIo,
    inputs: &'a [Input<'a>],
) -> impl Iterator<Item = (usize, &'a Input<'a>)> {
    let place = |input: &Input<'_>| graph.inputs.iter().position(|port| port.name == input.name);
    inputs.iter().filter_map(move |input| Some((place(input)?, input)))
}

/// Fill each input's buffer among those of a graph; tells the inputs that the graph has, with their places.
pub(crate) fn fill<'a>(
    graph: &GraphIo,
    columns: &mut [Column],
    inputs: &'a [Input<'a>],
) -> Vec<(usize, &'a Input<'a>)> {
    let known: Vec<_> = known(graph, inputs).collect();
    known.iter().for_each(|(place, input)| columns[*place].fill(input.values));
    known
}

impl Column {
    pub(crate) fn new(element: DataType) -> Self {
        match element {
            DataType::F32 | DataType::Other => Self::F32(Vec::new()),
            DataType::F16 => Self::F16(Vec::new()),
            DataType::I64 => Self::I64(Vec::new()),
            DataType::I32 => Self::I32(Vec::new()),
        }
    }

    fn fill(&mut self, values: Values<'_>) {
        fn of_length<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
            buffer.resize(length, T::default());
            buffer
        }
        let length = values.len();
        let buffer = match self {
            Self::F32(buffer) => Buffer::F32(of_length(buffer, length)),
            Self::F16(buffer) => Buffer::F16(of_length(buffer, length)),
            Self::I64(buffer) => Buffer::I64(of_length(buffer, length)),
            Self::I32(buffer) => Buffer::I32(of_length(buffer, length)),
        };
        buffer.fill(values);
    }
}

impl Values<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }
}

/// Where an input's values are wanted, in the type that the graph takes.
pub(crate) enum Buffer<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [half::f16]),
    I64(&'a mut [i64]),
    I32(&'a mut [i32]),
}

impl Buffer<'_> {
    /// Fill it with as many values as it has places.
    pub(crate) fn fill(self, values: Values<'_>) {
        match (values, self) {
            (Values::F32(values), Self::F32(buffer)) => buffer.copy_from_slice(values),
            (Values::F32(values), buffer) => buffer.convert(values.iter().map(|&x| f64::from(x))),
            (Values::F64(values), buffer) => buffer.convert(values.iter().copied()),
            // What counts things and tokens is far below the whole numbers that f64 holds.
            (Values::I64(values), buffer) => buffer.convert(values.iter().map(|&x| x as f64)),
        }
    }

    fn convert(self, values: impl Iterator<Item = f64>) {
        match self {
            Self::F32(buffer) => buffer.iter_mut().zip(values).for_each(|(place, x)| *place = x as f32),
            Self::F16(buffer) => {
                buffer.iter_mut().zip(values).for_each(|(place, x)| *place = half::f16::from_f64(x));
            }
            Self::I64(buffer) => buffer.iter_mut().zip(values).for_each(|(place, x)| *place = x as i64),
            Self::I32(buffer) => buffer.iter_mut().zip(values).for_each(|(place, x)| *place = x as i32),
        }
    }
}
