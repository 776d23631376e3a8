//! Creates, fills and reads tensors of ONNX Runtime.

use half::f16;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorValueTypeMarker, Value};

use crate::inference::error::EvaluationError;
use crate::inference::session::Values;
use crate::inference::typed_buffer::TypedSlice;
use crate::tensor::DataType;

/// The memory of a device.
pub(super) fn memory_info(device: AllocationDevice, index: i32, kind: MemoryType) -> ort::Result<MemoryInfo> {
    MemoryInfo::new(device, index, AllocatorType::Device, kind)
}

/// An allocator in the memory of a device.
pub(super) fn allocator(
    session: &Session,
    device: AllocationDevice,
    index: i32,
    kind: MemoryType,
) -> ort::Result<Allocator> {
    Allocator::new(session, memory_info(device, index, kind)?)
}

/// Creates a tensor with uninitialised values.
pub(super) fn tensor(memory: &Allocator, element: DataType, shape: &[usize]) -> ort::Result<DynTensor> {
    fn of<T>(memory: &Allocator, shape: &[usize]) -> ort::Result<DynTensor>
    where
        T: PrimitiveTensorElementType + std::fmt::Debug,
    {
        Ok(Tensor::<T>::new(memory, shape.to_vec())?.upcast())
    }
    match element {
        DataType::F32 | DataType::Other(_) => of::<f32>(memory, shape),
        DataType::F16 => of::<f16>(memory, shape),
        DataType::F64 => of::<f64>(memory, shape),
        DataType::I64 => of::<i64>(memory, shape),
        DataType::I32 => of::<i32>(memory, shape),
    }
}

/// The size of a tensor in bytes.
pub(super) fn size(element: DataType, shape: &[usize]) -> usize {
    let each = match element {
        DataType::F32 | DataType::I32 | DataType::Other(_) => 4,
        DataType::F16 => 2,
        DataType::I64 | DataType::F64 => 8,
    };
    each * shape.iter().product::<usize>()
}

/// The values of a tensor, if the host may write them.
pub(super) fn slice_mut(element: DataType, tensor: &mut DynTensor) -> ort::Result<TypedSlice<'_>> {
    Ok(match element {
        DataType::F32 | DataType::Other(_) => TypedSlice::F32(tensor.try_extract_tensor_mut()?.1),
        DataType::F16 => TypedSlice::F16(tensor.try_extract_tensor_mut()?.1),
        DataType::F64 => TypedSlice::F64(tensor.try_extract_tensor_mut()?.1),
        DataType::I64 => TypedSlice::I64(tensor.try_extract_tensor_mut()?.1),
        DataType::I32 => TypedSlice::I32(tensor.try_extract_tensor_mut()?.1),
    })
}

/// Copies the values of an input to its tensor.
pub(super) fn fill(
    name: &str,
    element: DataType,
    shape: &[usize],
    tensor: &mut DynTensor,
    values: Values<'_>,
) -> ort::Result<()> {
    let (found, needed) = (values.len(), shape.iter().product::<usize>());
    if found != needed {
        let message = format!("the input {name} has {found} values, but its shape {shape:?} needs {needed}");
        return Err(ort::Error::new(message));
    }
    slice_mut(element, tensor)?.convert_from(values);
    Ok(())
}

/// Replaces the contents of `output` by the values of a tensor, and returns its shape.
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
