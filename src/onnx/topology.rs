//! The nodes of a graph and the shapes of its weights.

use std::collections::BTreeMap;

use crate::tensor::ElementType;

/// The nodes and the weights of a graph. Nested graphs are left out.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The nodes in the graph's order.
    pub(crate) nodes: Vec<Node>,
    /// The initializers by name.
    pub(crate) weights: BTreeMap<String, Weight>,
}

/// A node with the attributes that change the size of an image.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The type of the operator.
    pub(crate) operator: String,
    /// The names of its inputs.
    pub(crate) inputs: Vec<String>,
    /// The names of its outputs.
    pub(crate) outputs: Vec<String>,
    /// `strides`. Empty if there are none.
    pub(crate) strides: Vec<i64>,
    /// `group`.
    pub(crate) group: Option<i64>,
    /// `blocksize`.
    pub(crate) block_size: Option<usize>,
}

/// The type and the shape of an initializer.
#[derive(Debug, Default)]
pub(crate) struct Weight {
    /// The type of its elements.
    pub(crate) element: ElementType,
    /// The length of each axis.
    pub(crate) shape: Vec<i64>,
}
