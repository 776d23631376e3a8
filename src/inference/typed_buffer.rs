//! Buffers for inputs in the type that a graph takes.

use super::session::{Input, Values, match_inputs};
use crate::tensor::{DataType, GraphIo};

/// A buffer that is reused at every evaluation.
#[derive(Debug)]
pub(super) enum TypedBuffer {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
}

impl TypedBuffer {
    pub(super) fn new(element: DataType) -> Self {
        match element {
            DataType::F32 | DataType::Other(_) => Self::F32(Vec::new()),
            DataType::F16 => Self::F16(Vec::new()),
            DataType::F64 => Self::F64(Vec::new()),
            DataType::I64 => Self::I64(Vec::new()),
            DataType::I32 => Self::I32(Vec::new()),
        }
    }

    fn set(&mut self, values: Values<'_>) {
        fn resized<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
            buffer.resize(length, T::default());
            buffer
        }
        let length = values.len();
        let slice = match self {
            Self::F32(buffer) => TypedSlice::F32(resized(buffer, length)),
            Self::F16(buffer) => TypedSlice::F16(resized(buffer, length)),
            Self::F64(buffer) => TypedSlice::F64(resized(buffer, length)),
            Self::I64(buffer) => TypedSlice::I64(resized(buffer, length)),
            Self::I32(buffer) => TypedSlice::I32(resized(buffer, length)),
        };
        slice.convert_from(values);
    }
}

/// Copies each input to the buffer at its index in the graph. Returns the inputs that the graph has, with their indices.
pub(super) fn bind<'a>(
    graph: &GraphIo,
    buffers: &mut [TypedBuffer],
    inputs: &'a [Input<'a>],
) -> Vec<(usize, &'a Input<'a>)> {
    let matched: Vec<_> = match_inputs(graph, inputs).collect();
    matched.iter().for_each(|(index, input)| buffers[*index].set(input.values));
    matched
}

/// The memory of an input, in the type that the graph takes.
pub(super) enum TypedSlice<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [half::f16]),
    F64(&'a mut [f64]),
    I64(&'a mut [i64]),
    I32(&'a mut [i32]),
}

impl TypedSlice<'_> {
    /// Converts `values`, which must have the length of the slice, into the slice.
    pub(super) fn convert_from(self, values: Values<'_>) {
        match (values, self) {
            (Values::F32(values), Self::F32(slice)) => slice.copy_from_slice(values),
            (Values::F32(values), slice) => slice.assign(values.iter().map(|&x| f64::from(x))),
            (Values::F64(values), slice) => slice.assign(values.iter().copied()),
            // Class labels and token ids are far below 2⁵³, up to which f64 is exact.
            (Values::I64(values), slice) => slice.assign(values.iter().map(|&x| x as f64)),
        }
    }

    fn assign(self, values: impl Iterator<Item = f64>) {
        match self {
            Self::F32(slice) => slice.iter_mut().zip(values).for_each(|(to, x)| *to = x as f32),
            Self::F16(slice) => {
                slice.iter_mut().zip(values).for_each(|(to, x)| *to = half::f16::from_f64(x));
            }
            Self::F64(slice) => slice.iter_mut().zip(values).for_each(|(to, x)| *to = x),
            Self::I64(slice) => slice.iter_mut().zip(values).for_each(|(to, x)| *to = x as i64),
            Self::I32(slice) => slice.iter_mut().zip(values).for_each(|(to, x)| *to = x as i32),
        }
    }
}
