//! A graph's inputs and outputs, as an engine describes them.

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// Any other type, which no input of a diffusion model has.
    Other,
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::Other => "another type",
        })
    }
}

/// One axis of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Of this length.
    Fixed(usize),
    /// Of any length.
    Dynamic,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name in the graph.
    pub name: String,
    /// Its elements' type.
    pub element: DataType,
    /// Its axes.
    pub shape: Vec<Dim>,
}

impl std::fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let axes: Vec<_> = self
            .shape
            .iter()
            .map(|axis| match axis {
                Dim::Fixed(n) => n.to_string(),
                Dim::Dynamic => "?".to_owned(),
            })
            .collect();
        write!(f, "{} {}[{}]", self.name, self.element, axes.join(", "))
    }
}

/// What an engine says of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphIo {
    /// In the graph's order.
    pub inputs: Vec<ValueInfo>,
    /// In the graph's order.
    pub outputs: Vec<ValueInfo>,
}
