//! Attention in the forms in which exporters write it.

use rten_onnx::onnx::{DataType, ModelProto};

use super::graph::Net;
use crate::onnx::rewriting::constants::{new_int, new_ints};

/// How queries, keys and values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Projections, [batch, rows, heads · columns], split into heads.
    Projections,
    /// [batch, heads, rows, columns], as rotary embeddings leave them.
    Heads,
    /// [batch · heads, rows, columns].
    Batched,
}

/// Where the scores are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Nowhere.
    None,
    /// The queries, by a factor.
    Queries(f64),
    /// Queries and keys, by the root of a scale that is computed from the shape.
    Roots,
    /// The product, by a factor.
    Scores(f64),
    /// The product, by a divisor.
    Divided(f64),
}

/// Which axes of a mask are as long as those of the scores. Others have one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaskAxes {
    pub(super) batch: bool,
    pub(super) heads: bool,
    pub(super) rows: bool,
}

/// How keys are transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transposition {
    /// At once.
    Once,
    /// First to heads.
    Twice,
    /// First to heads, then with the heads in the batch.
    WithoutHeads,
}

/// An attention block with its sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub(super) layout: Layout,
    pub(super) scale: Scale,
    pub(super) mask: Option<MaskAxes>,
    /// How keys with heads are transposed.
    pub(super) transposition: Transposition,
    /// Whether the softmax is computed between conversions.
    pub(super) casts: bool,
    /// Whether sizes are computed when the graph runs.
    pub(super) dynamic: bool,
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) keys: usize,
    pub(super) columns: usize,
    pub(super) value_columns: usize,
}

/// An input's name and shape.
pub(super) type InputShape = (String, Vec<usize>);

impl Attention {
    /// The smallest block: projections, fixed sizes, nothing optional.
    pub(super) const PLAIN: Self = Self {
        layout: Layout::Projections,
        scale: Scale::Queries(0.5),
        mask: None,
        transposition: Transposition::Once,
        casts: false,
        dynamic: false,
        batch: 2,
        heads: 3,
        rows: 5,
        keys: 7,
        columns: 4,
        value_columns: 8,
    };

    /// The model, and the shapes of its inputs.
    pub(super) fn build(&self, data_type: DataType) -> (ModelProto, Vec<InputShape>) {
        let mut net = Net::default();
        let mut inputs = Vec::new();
        let query = self.operand(&mut net, &mut inputs, data_type, "query", self.rows, self.columns);
        let key = self.operand(&mut net, &mut inputs, data_type, "key", self.keys, self.columns);
        let value = self.operand(&mut net, &mut inputs, data_type, "value", self.keys, self.value_columns);
        let query = self.split_heads(&mut net, &query);
        let value = self.split_heads(&mut net, &value);
        let key = self.transposed(&mut net, &key);
        let (query, key) = self.scale_operands(&mut net, data_type, query, key);
        let mut scores = net.op("MatMul", &[&query, &key], Vec::new());
        if let Scale::Scores(factor) | Scale::Divided(factor) = self.scale {
            let factor = net.numbers(data_type, &[], &[factor]);
            let operator = if matches!(self.scale, Scale::Scores(_)) { "Mul" } else { "Div" };
            scores = net.op(operator, &[&scores, &factor], Vec::new());
        }
        if let Some(axes) = self.mask {
            let mask = self.mask(&mut net, &mut inputs, data_type, axes);
            scores = net.op("Add", &[&mask, &scores], Vec::new());
        }
        if self.casts {
            scores = net.op("Cast", &[&scores], vec![new_int("to", DataType::FLOAT.0.into())]);
        }
        let mut weights = net.op("Softmax", &[&scores], vec![new_int("axis", -1)]);
        if self.casts {
            weights = net.op("Cast", &[&weights], vec![new_int("to", data_type.0.into())]);
        }
        let output = net.op("MatMul", &[&weights, &value], Vec::new());
        let output = self.join(&mut net, &output);
        (net.model(&[(&output, data_type)]), inputs)
    }

    /// Adds an input, and splits a projection into heads.
    fn operand(
        &self,
        net: &mut Net,
        inputs: &mut Vec<InputShape>,
        data_type: DataType,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> String {
        let (batch, heads) = (self.batch, self.heads);
        let shape = match self.layout {
            Layout::Projections => vec![batch, rows, heads * columns],
            Layout::Heads => vec![batch, heads, rows, columns],
            Layout::Batched => vec![batch * heads, rows, columns],
        };
        let rows_axis = if name == "query" { "rows" } else { "keys" };
        let mut axes: Vec<_> = shape.iter().map(usize::to_string).collect();
        if self.dynamic {
            axes[0] = "batch".to_owned();
            axes[if self.layout == Layout::Heads { 2 } else { 1 }] = rows_axis.to_owned();
        }
        net.input(name, data_type, &axes.iter().map(String::as_str).collect::<Vec<_>>());
        inputs.push((name.to_owned(), shape));
        if self.layout != Layout::Projections {
            return name.to_owned();
        }
        let target = self.split_target(net, name, rows, columns);
        net.op("Reshape", &[name, &target], Vec::new())
    }

    /// [batch, rows, heads, columns], as the legacy exporter computes it.
    fn split_target(&self, net: &mut Net, input: &str, rows: usize, columns: usize) -> String {
        if !self.dynamic {
            return net.vector(&[self.batch, rows, self.heads, columns].map(|len| len as i64));
        }
        let shape = net.op("Shape", &[input], Vec::new());
        let zero = net.vector(&[0]);
        let batch = net.op("Gather", &[&shape, &zero], vec![new_int("axis", 0)]);
        let rest = net.vector(&[-1, self.heads as i64, columns as i64]);
        net.op("Concat", &[&batch, &rest], vec![new_int("axis", 0)])
    }

    fn split_heads(&self, net: &mut Net, operand: &str) -> String {
        match self.layout {
            Layout::Projections => net.op("Transpose", &[operand], vec![new_ints("perm", &[0, 2, 1, 3])]),
            Layout::Heads | Layout::Batched => operand.to_owned(),
        }
    }

    fn transposed(&self, net: &mut Net, key: &str) -> String {
        let transpose = |net: &mut Net, value: &str, perm: &[i64]| {
            net.op("Transpose", &[value], vec![new_ints("perm", perm)])
        };
        let heads = match (self.layout, self.transposition) {
            (Layout::Batched, _) => return transpose(net, key, &[0, 2, 1]),
            (Layout::Projections, Transposition::Once) => return transpose(net, key, &[0, 2, 3, 1]),
            (Layout::Projections, _) => transpose(net, key, &[0, 2, 1, 3]),
            (Layout::Heads, _) => key.to_owned(),
        };
        if self.transposition != Transposition::WithoutHeads {
            return transpose(net, &heads, &[0, 1, 3, 2]);
        }
        let shape = net.op("Shape", &[&heads], Vec::new());
        let mut axes = |axes: &[i64]| {
            let axes = net.vector(axes);
            net.op("Gather", &[&shape, &axes], vec![new_int("axis", 0)])
        };
        let (matrix, back) = (axes(&[2, 3]), axes(&[0, 1, 3, 2]));
        let rest = net.vector(&[-1]);
        let target = net.op("Concat", &[&rest, &matrix], vec![new_int("axis", 0)]);
        let batch = net.op("Reshape", &[&heads, &target], Vec::new());
        let transposed = transpose(net, &batch, &[0, 2, 1]);
        net.op("Reshape", &[&transposed, &back], Vec::new())
    }

    fn scale_operands(
        &self,
        net: &mut Net,
        data_type: DataType,
        query: String,
        key: String,
    ) -> (String, String) {
        match self.scale {
            Scale::Queries(factor) => {
                let factor = net.numbers(data_type, &[1], &[factor]);
                (net.op("Mul", &[&query, &factor], Vec::new()), key)
            }
            Scale::Roots => {
                let shape = net.op("Shape", &[&query], Vec::new());
                let [last, end] = [[-1], [i64::MAX]].map(|values| net.vector(&values));
                let columns = net.op("Slice", &[&shape, &last, &end], Vec::new());
                let to = new_int("to", data_type.0.into());
                let columns = net.op("Cast", &[&columns], vec![to]);
                let root = net.op("Sqrt", &[&columns], Vec::new());
                let one = net.numbers(data_type, &[1], &[1.0]);
                let scale = net.op("Div", &[&one, &root], Vec::new());
                let root = net.op("Sqrt", &[&scale], Vec::new());
                let query = net.op("Mul", &[&query, &root], Vec::new());
                (query, net.op("Mul", &[&key, &root], Vec::new()))
            }
            Scale::None | Scale::Scores(_) | Scale::Divided(_) => (query, key),
        }
    }

    fn mask(
        &self,
        net: &mut Net,
        inputs: &mut Vec<InputShape>,
        data_type: DataType,
        axes: MaskAxes,
    ) -> String {
        let len = |whole: bool, len: usize| if whole { len } else { 1 };
        let (batch, heads) = (len(axes.batch, self.batch), len(axes.heads, self.heads));
        let rows = len(axes.rows, self.rows);
        let shape = match self.layout {
            Layout::Batched => vec![len(axes.batch, self.batch * self.heads), rows, self.keys],
            // Leading axes of one element can be left out.
            _ if batch == 1 && heads == 1 => vec![rows, self.keys],
            _ => vec![batch, heads, rows, self.keys],
        };
        let mut names: Vec<_> = shape.iter().map(usize::to_string).collect();
        if self.dynamic {
            let rank = shape.len();
            names[rank - 1] = "keys".to_owned();
            if axes.rows {
                names[rank - 2] = "rows".to_owned();
            }
            if axes.batch && rank > 2 {
                names[0] = "batch".to_owned();
            }
        }
        net.input("mask", data_type, &names.iter().map(String::as_str).collect::<Vec<_>>());
        inputs.push(("mask".to_owned(), shape));
        "mask".to_owned()
    }

    fn join(&self, net: &mut Net, output: &str) -> String {
        if self.layout == Layout::Batched {
            return net.op("Neg", &[output], Vec::new());
        }
        let rows = net.op("Transpose", &[output], vec![new_ints("perm", &[0, 2, 1, 3])]);
        let target = net.vector(&[0, 0, (self.heads * self.value_columns) as i64]);
        net.op("Reshape", &[&rows, &target], Vec::new())
    }
}
