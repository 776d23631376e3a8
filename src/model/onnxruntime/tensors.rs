//! Tensors of ONNX Runtime's: made, filled and read.

use half::f16;
use ort::memory::Allocator;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorValueTypeMarker, Value};

use crate::model::graph::Element;
use crate::model::predictor::EvaluationError;
use crate::model::session::{Buffer, Values};

/// Make one in this memory.
pub(super) fn tensor(memory: &Allocator, element: Element, shape: &[usize]) -> ort::Result<DynTensor> {
    fn of<T>(memory: &Allocator, shape: &[usize]) -> ort::Result<DynTensor>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug,
    {
        Ok(Tensor::<T>::new(memory, shape.to_vec())?.upcast())
    }
    match element {
        Element::F32 | Element::Other => of::<f32>(memory, shape),
        Element::F16 => of::<f16>(memory, shape),
        Element::I64 => of::<i64>(memory, shape),
        Element::I32 => of::<i32>(memory, shape),
    }
}

/// How many bytes it takes.
pub(super) fn size(element: Element, shape: &[usize]) -> usize {
    let each = match element {
        Element::F32 | Element::I32 | Element::Other => 4,
        Element::F16 => 2,
        Element::I64 => 8,
    };
    each * shape.iter().product::<usize>()
}

/// Its values, where the processor may write them.
pub(super) fn buffer(element: Element, tensor: &mut DynTensor) -> ort::Result<Buffer<'_>> {
    Ok(match element {
        Element::F32 | Element::Other => Buffer::F32(tensor.try_extract_tensor_mut()?.1),
        Element::F16 => Buffer::F16(tensor.try_extract_tensor_mut()?.1),
        Element::I64 => Buffer::I64(tensor.try_extract_tensor_mut()?.1),
        Element::I32 => Buffer::I32(tensor.try_extract_tensor_mut()?.1),
    })
}

/// Put the values of an input into its tensor.
pub(super) fn fill(
    name: &str,
    element: Element,
    shape: &[usize],
    tensor: &mut DynTensor,
    values: Values<'_>,
) -> ort::Result<()> {
    let (found, places) = (values.len(), shape.iter().product::<usize>());
    if found != places {
        let words =
            format!("the input {name} of shape {shape:?} takes {places} values and was given {found}");
        return Err(ort::Error::new(words));
    }
    buffer(element, tensor)?.fill(values);
    Ok(())
}

/// An output's values in place of the buffer's, and its shape.
pub(super) fn read<T: TensorValueTypeMarker + ?Sized>(
    value: &Value<T>,
    output: &mut Vec<f32>,
) -> Result<Vec<usize>, EvaluationError> {
    output.clear();
    let lengths = |shape: &ort::value::Shape| shape.iter().map(|&n| n as usize).collect();
    if let Ok((shape, data)) = value.try_extract_tensor::<f32>() {
        output.extend_from_slice(data);
        Ok(lengths(shape))
    } else if let Ok((shape, data)) = value.try_extract_tensor::<f16>() {
        output.extend(data.iter().map(|x| x.to_f32()));
        Ok(lengths(shape))
    } else {
        Err(EvaluationError::OutputType)
    }
}
