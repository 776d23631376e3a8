//! The element types of ONNX tensors.

use rten_onnx::onnx::DataType;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Whether this is float16.
    pub(crate) fn is_float16(self) -> bool {
        DataType(self.0) == DataType::FLOAT16
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

impl ElementType {
    /// Whether weights have this type; indices and flags are none.
    pub(crate) fn is_of_weights(self) -> bool {
        let of_others = [
            DataType::BOOL,
            DataType::STRING,
            DataType::INT16,
            DataType::UINT16,
            DataType::INT32,
            DataType::UINT32,
            DataType::INT64,
            DataType::UINT64,
        ];
        self.0 != 0 && !of_others.contains(&DataType(self.0))
    }
}

/// The name that the type has in numpy, where it has one, else ONNX's.
impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match DataType(self.0) {
            DataType::FLOAT => f.write_str("float32"),
            DataType::DOUBLE => f.write_str("float64"),
            DataType(0) => f.write_str("undefined"),
            other => f.write_str(&other.to_string().to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_numpy() {
        for (kind, name, is_of_weights) in [
            (DataType::FLOAT, "float32", true),
            (DataType::FLOAT16, "float16", true),
            (DataType::DOUBLE, "float64", true),
            (DataType::BFLOAT16, "bfloat16", true),
            (DataType::FLOAT8E4M3FN, "float8e4m3fn", true),
            (DataType::UINT4, "uint4", true),
            (DataType::INT64, "int64", false),
            (DataType::BOOL, "bool", false),
        ] {
            let kind = ElementType(kind.0);
            assert_eq!((kind.to_string().as_str(), kind.is_of_weights()), (name, is_of_weights));
        }
    }
}
