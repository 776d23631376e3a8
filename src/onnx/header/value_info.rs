//! The declarations of a graph's inputs and outputs.

use rten_onnx::onnx::{Dimension, ValueInfoProto};

use crate::tensor::{DataType, Dim, ElementType, ValueInfo};

/// The element type that a graph declares for a value.
pub(super) fn element_type(value: &ValueInfoProto) -> Option<ElementType> {
    let tensor = value.r#type.as_ref()?.tensor_type.as_ref()?;
    Some(ElementType(tensor.elem_type?.0))
}

/// The names of a value's axes that have no fixed length.
pub(super) fn axis_names(value: &ValueInfoProto) -> Vec<Option<String>> {
    let shape = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
    let name = |axis: &Dimension| axis.dim_param.clone().filter(|name| !name.is_empty());
    shape.map_or_else(Vec::new, |shape| shape.dim.iter().map(name).collect())
}

/// The name, the type and the axes that a graph declares for a value.
pub(super) fn value_info(value: &ValueInfoProto) -> ValueInfo {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let axes = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| &shape.dim[..]);
    let axis = |dimension: &Dimension| {
        let length = dimension.dim_value.and_then(|length| usize::try_from(length).ok());
        length.map_or(Dim::Dynamic, Dim::Fixed)
    };
    ValueInfo {
        name: value.name.clone().unwrap_or_default(),
        element: DataType::from_onnx(element_type(value).unwrap_or_default().0),
        shape: axes.unwrap_or_default().iter().map(axis).collect(),
    }
}
