//! The tensors of a decoded graph whose values are in other files.

use rten_onnx::onnx::{DataLocation, DataType, GraphProto, StringStringEntryProto, TensorProto};

use crate::onnx::{FLOAT16, STORED_TYPE};
use crate::tensor::ElementType;

/// Where the values of a tensor are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The location that the graph names.
    pub(super) location: String,
    /// The first byte.
    pub(super) offset: u64,
    /// The number of bytes there.
    pub(super) len: u64,
    /// Whether the file has float16 where the tensor has float32.
    pub(super) is_float16: bool,
    /// The size of an element of the tensor in bytes, or 1 if it is smaller than a byte.
    pub(super) element_len: u64,
}

impl Place {
    /// Reads the entries of an external tensor. `None` if its place or its size cannot be determined.
    pub(super) fn of(tensor: &TensorProto) -> Option<Self> {
        let entry = |key: &str| {
            let own = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key))?;
            own.value.as_deref()
        };
        let is_float16 = entry(STORED_TYPE) == Some(FLOAT16);
        let kind = ElementType(tensor.data_type.map_or(0, |kind| kind.0));
        let stored = if is_float16 { ElementType(DataType::FLOAT16.0) } else { kind };
        let mut lengths = tensor.dims.iter().map(|length| u64::try_from(*length).ok());
        let elements = lengths.try_fold(1_u64, |n, length| n.checked_mul(length?))?;
        let len = stored.size_of(elements)?;
        let is_whole = entry("length").is_none_or(|length| length.parse() == Ok(len));
        is_whole.then_some(())?;
        Some(Self {
            location: entry("location")?.to_owned(),
            offset: entry("offset").map_or(Ok(0), str::parse).ok()?,
            len,
            is_float16,
            element_len: kind.size_of(1)?,
        })
    }

    /// The number of bytes of the values in the tensor's own type.
    pub(super) fn prepared_len(&self) -> u64 {
        if self.is_float16 { 2 * self.len } else { self.len }
    }

    /// Whether an engine may map the values where they are.
    pub(super) fn is_mappable(&self) -> bool {
        !self.is_float16 && self.offset.is_multiple_of(self.element_len)
    }
}

/// Gives a tensor another place for its values.
pub(super) fn move_to(tensor: &mut TensorProto, location: &str, offset: u64, len: u64) {
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", len.to_string()),
    ];
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::EXTERNAL)
}

/// Calls `visit` with every external tensor, with those of nested graphs.
pub(super) fn try_for_each<E>(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    for tensor in graph.initializer.iter_mut().filter(|tensor| is_external(tensor)) {
        visit(tensor)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        if let Some(tensor) = attribute.t.as_mut().filter(|tensor| is_external(tensor)) {
            visit(tensor)?;
        }
        if let Some(nested) = &mut attribute.g {
            try_for_each(nested, visit)?;
        }
    }
    Ok(())
}
