//! Tensors, and how an ONNX graph describes its inputs and outputs.

mod element_type;

pub(crate) use element_type::ElementType;

/// `f32` values in row-major order, with their shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensor {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// As many values as the product of the axes.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Panics in debug builds if `data` does not have as many values as `shape` asks for.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }
}

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 64-bit floating point, in which some exports take the scale of a ControlNet.
    F64,
    /// 64-bit signed integers.
    I64,
    /// 32-bit signed integers.
    I32,
    /// Any other type, by its number in ONNX. No input of a diffusion model has one.
    Other(i32),
}

impl DataType {
    /// The type with this number in `TensorProto.DataType` of ONNX.
    pub(crate) fn from_onnx(number: i32) -> Self {
        match number {
            1 => Self::F32,
            6 => Self::I32,
            7 => Self::I64,
            10 => Self::F16,
            11 => Self::F64,
            other => Self::Other(other),
        }
    }

    /// Whether these are floating-point numbers in which samples and embeddings are.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }

    /// Whether these are integers that a graph is fed with.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::I64 | Self::I32)
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("float32"),
            Self::F16 => f.write_str("float16"),
            Self::F64 => f.write_str("float64"),
            Self::I64 => f.write_str("int64"),
            Self::I32 => f.write_str("int32"),
            Self::Other(number) => ElementType(*number).fmt(f),
        }
    }
}

/// One axis of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// The graph fixes the length.
    Fixed(usize),
    /// The length is chosen at each evaluation.
    Dynamic,
}

impl Dim {
    /// The length, if the graph fixes it.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Dynamic => None,
        }
    }
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// The name in the graph.
    pub name: String,
    /// The type of the elements.
    pub element: DataType,
    /// The axes.
    pub shape: Vec<Dim>,
}

#[cfg(test)]
impl ValueInfo {
    /// An input or output with these axes, `None` for a dynamic one.
    pub(crate) fn with_axes(name: &str, element: DataType, axes: &[Option<usize>]) -> Self {
        let shape = axes.iter().map(|length| length.map_or(Dim::Dynamic, Dim::Fixed)).collect();
        Self { name: name.to_owned(), element, shape }
    }
}

impl std::fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let axes: Vec<_> =
            self.shape.iter().map(|axis| axis.length().map_or("?".to_owned(), |n| n.to_string())).collect();
        write!(f, "{} {}[{}]", self.name, self.element, axes.join(", "))
    }
}

/// The inputs and outputs of a graph, both in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphIo {
    /// The inputs, without those that an initializer fills.
    pub inputs: Vec<ValueInfo>,
    /// The outputs.
    pub outputs: Vec<ValueInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were printed as "another type".
    #[test]
    fn types_that_no_input_has_were_printed_without_their_names() {
        let axes = [None, Some(77)];
        for (number, shown) in [
            (1, "float32"),
            (2, "uint8"),
            (3, "int8"),
            (6, "int32"),
            (7, "int64"),
            (8, "string"),
            (9, "bool"),
            (10, "float16"),
            (11, "float64"),
            (16, "bfloat16"),
            (17, "float8e4m3fn"),
            (0, "undefined"),
        ] {
            let input = ValueInfo::with_axes("attention_mask", DataType::from_onnx(number), &axes);
            assert_eq!(input.to_string(), format!("attention_mask {shown}[?, 77]"));
        }
    }
}
