//! The element types of ONNX tensors.

use rten_onnx::onnx::DataType;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ElementType(pub(crate) i32);

impl ElementType {
    /// The size in memory of this many elements. `None` for strings and unknown types.
    pub(crate) fn size_of(self, elements: u64) -> Option<u64> {
        let bits = match DataType(self.0) {
            DataType::UINT4 | DataType::INT4 | DataType::FLOAT4E2M1 => 4,
            DataType::UINT8 | DataType::INT8 | DataType::BOOL => 8,
            DataType::FLOAT8E4M3FN
            | DataType::FLOAT8E4M3FNUZ
            | DataType::FLOAT8E5M2
            | DataType::FLOAT8E5M2FNUZ
            | DataType::FLOAT8E8M0 => 8,
            DataType::UINT16 | DataType::INT16 | DataType::FLOAT16 | DataType::BFLOAT16 => 16,
            DataType::FLOAT | DataType::INT32 | DataType::UINT32 => 32,
            DataType::DOUBLE | DataType::INT64 | DataType::UINT64 | DataType::COMPLEX64 => 64,
            DataType::COMPLEX128 => 128,
            _ => return None,
        };
        Some(elements.checked_mul(bits)?.div_ceil(8))
    }

    /// Whether engines compute this type on few devices only.
    pub(crate) fn is_uncommon(self) -> bool {
        let common = [
            DataType::FLOAT,
            DataType::FLOAT16,
            DataType::DOUBLE,
            DataType::BOOL,
            DataType::STRING,
            DataType::INT8,
            DataType::UINT8,
            DataType::INT32,
            DataType::INT64,
        ];
        self.0 != 0 && !common.contains(&DataType(self.0))
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&DataType(self.0).to_string().to_lowercase())
    }
}
