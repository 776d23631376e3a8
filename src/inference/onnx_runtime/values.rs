//! Tensors of ONNX Runtime's: made, filled and read.

use half::f16;
use ort::memory::Allocator;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorValueTypeMarker, Value};

use crate::inference::session::{Buffer, Values};
use crate::model::predictor::EvaluationError;
use crate::tensor::DataType;

/// Make one in this memory.
pub(crate) fn tensor(memory: &Allocator, element: DataType, shape: &[usize]) -> ort::Result<DynTensor> {
    fn of<T>(memory: &Allocator, shape: &[usize]) -> ort::Result<DynTensor>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug,
    {
        Ok(Tensor::<T>::new(memory, shape.to_vec())?.upcast())
    }
    match element {
        DataType::F32 | DataType::Other => of::<f32>(memory, shape),
        DataType::F16 => of::<f16>(memory, shape),
        DataType::I64 => of::<i64>(memory, shape),
        DataType::I32 => of::<i32>(memory, shape),
    }
}

/// How many bytes it takes.
pub(crate) fn size(element: DataType, shape: &[usize]) -> usize {
    let each = match element {
        DataType::F32 | DataType::I32 | DataType::Other => 4,
        DataType::F16 => 2,
        DataType::I64 => 8,
    };
    each * shape.iter().product::<usize>()
}

/// Its values, where the processor may write them.
pub(crate) fn buffer(element: DataType, tensor: &mut DynTensor) -> ort::Result<Buffer<'_>> {
    Ok(match element {
        DataType::F32 | DataType::Other => Buffer::F32(tensor.try_extract_tensor_mut()?.1),
        DataType::F16 => Buffer::F16(tensor.try_extract_tensor_mut()?.1),
        DataType::I64 => Buffer::I64(tensor.try_extract_tensor_mut()?.1),
        DataType::I32 => Buffer::I32(tensor.try_extract_tensor_mut()?.1),
    })
}

/// Put the values of an input into its tensor.
pub(crate) fn fill(
    name: &str,
    element: DataType,
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
pub(crate) fn read<T: TensorValueTypeMarker + ?Sized>(
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
