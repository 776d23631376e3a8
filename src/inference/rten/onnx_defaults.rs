//! Writes out what ONNX leaves to defaults and rten 0.27 reads differently or refuses.

use std::collections::HashMap;

use rten_onnx::onnx::{AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// The shapes of values, as far as they are known. An unknown length is `None`.
type Shapes = HashMap<String, Vec<Option<i64>>>;

/// Changes nodes so that rten computes what ONNX specifies. Returns whether it changed any. Fails for a node that rten
/// would compute differently.
pub(super) fn write_out(model: &mut ModelProto) -> Result<bool, String> {
    let is_onnx = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
    let own = model.opset_import.iter().find(|set| is_onnx(set.domain.as_deref()));
    let opset = own.and_then(|set| set.version).unwrap_or(i64::MAX);
    match &mut model.graph {
        Some(graph) => graph_defaults(graph, opset, &Shapes::new()),
        None => Ok(false),
    }
}

fn graph_defaults(graph: &mut GraphProto, opset: i64, outer: &Shapes) -> Result<bool, String> {
    let mut shapes = outer.clone();
    let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    shapes.extend(values.filter_map(|value| Some((value.name.clone()?, value_shape(value)?))));
    let dims = |dims: &[i64]| dims.iter().copied().map(Some).collect();
    shapes.extend(
        graph.initializer.iter().filter_map(|tensor| Some((tensor.name.clone()?, dims(&tensor.dims)))),
    );
    for node in graph.node.iter().filter(|node| node.op_type.as_deref() == Some("Constant")) {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
        shapes
            .extend(node.output.first().zip(tensor).map(|(name, tensor)| (name.clone(), dims(&tensor.dims))));
    }
    let mut changed = false;
    for mut node in std::mem::take(&mut graph.node) {
        for nested in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
            changed |= graph_defaults(nested, opset, &shapes)?;
        }
        if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
            graph.node.push(node);
            continue;
        }
        match node.op_type.as_deref() {
            Some("Conv" | "ConvInteger" | "ConvTranspose") => changed |= convolution(&mut node, &shapes)?,
            Some("MaxPool" | "AveragePool") => changed |= pool(&mut node)?,
            Some("QuantizeLinear") if attribute(&node, "axis").is_none() => {
                node.attribute.push(int("axis", 1));
                changed = true;
            }
            Some("Resize" | "Upsample") if text(&node, "mode") == Some("cubic") => {
                return Err(format!("{} has the mode cubic, which it would compute as linear", named(&node)));
            }
            Some("Softmax" | "LogSoftmax") if opset < 13 => {
                changed = true;
                graph.node.extend(coerced_softmax(node, &shapes));
                continue;
            }
            _ => {}
        }
        graph.node.push(node);
    }
    Ok(changed)
}

/// The strides, dilations and pads of a convolution without `kernel_shape`, from which rten counts the spatial axes.
fn convolution(node: &mut NodeProto, shapes: &Shapes) -> Result<bool, String> {
    let shape = |input: usize| node.input.get(input).and_then(|name| shapes.get(name));
    let weight = shape(1);
    let kernel = match ints(node, "kernel_shape") {
        Some(kernel) => Some(kernel.iter().copied().map(Some).collect()),
        None => weight.map(|weight| weight.iter().skip(2).copied().collect::<Vec<_>>()),
    };
    check_padding(node, kernel.as_deref().unwrap_or_default())?;
    if attribute(node, "kernel_shape").is_some() {
        return Ok(false);
    }
    let Some(axes) = weight.or_else(|| shape(0)).and_then(|shape| shape.len().checked_sub(2)) else {
        return Ok(false);
    };
    Ok([("strides", 1, axes), ("dilations", 1, axes), ("pads", 0, 2 * axes)]
        .into_iter()
        .fold(false, |changed, (name, value, len)| changed | set_default(node, name, vec![value; len])))
}

/// The strides of a pool.
fn pool(node: &mut NodeProto) -> Result<bool, String> {
    let Some(kernel) = ints(node, "kernel_shape").map(<[i64]>::to_vec) else { return Ok(false) };
    check_padding(node, &kernel.iter().copied().map(Some).collect::<Vec<_>>())?;
    Ok(set_default(node, "strides", vec![1; kernel.len()]))
}

/// Refuses SAME_LOWER, which rten computes as SAME_UPPER, unless both pad alike.
fn check_padding(node: &NodeProto, kernel: &[Option<i64>]) -> Result<(), String> {
    if text(node, "auto_pad") != Some("SAME_LOWER") {
        return Ok(());
    }
    let at =
        |name: &str, axis: usize| ints(node, name).and_then(|values| values.get(axis).copied()).unwrap_or(1);
    let is_even = |(axis, len): (usize, &Option<i64>)| {
        len.is_some_and(|len| at("strides", axis) == 1 && (len - 1) * at("dilations", axis) % 2 == 0)
    };
    if !kernel.is_empty() && kernel.iter().enumerate().all(is_even) {
        return Ok(());
    }
    Err(format!("{} has the padding SAME_LOWER, which it would compute as SAME_UPPER", named(node)))
}

/// Softmax before opset 13: the axes from `axis` on, by default 1, count as one.
fn coerced_softmax(mut node: NodeProto, shapes: &Shapes) -> Vec<NodeProto> {
    let axis = attribute(&node, "axis").and_then(|axis| axis.i).unwrap_or(1);
    let rank = node.input.first().and_then(|name| shapes.get(name)).map(|shape| shape.len() as i64);
    let is_last = axis == -1 || rank.is_some_and(|rank| axis == rank - 1);
    node.attribute.retain(|attribute| attribute.name.as_deref() != Some("axis"));
    if is_last {
        node.attribute.push(int("axis", -1));
        return vec![node];
    }
    let (input, output) = (node.input.clone(), node.output.clone());
    let value = |step: &str| vec![format!("{}/{step}", output.first().map_or("", String::as_str))];
    let new = |operator: &str, input, output, attribute| NodeProto {
        op_type: Some(operator.to_owned()),
        input,
        output,
        attribute,
        ..NodeProto::default()
    };
    let shape = new("Shape", input.clone(), value("shape"), Vec::new());
    let flat = new("Flatten", input, value("flat"), vec![int("axis", axis)]);
    (node.input, node.output) = (value("flat"), value("normalized"));
    node.attribute.push(int("axis", -1));
    let inputs = [value("normalized"), value("shape")].concat();
    let reshape = new("Reshape", inputs, output, Vec::new());
    vec![shape, flat, node, reshape]
}

fn value_shape(value: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let shape = value.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    Some(shape.dim.iter().map(|dimension| dimension.dim_value).collect())
}

fn named(node: &NodeProto) -> String {
    format!("{} {:?}", node.op_type.as_deref().unwrap_or_default(), node.name.as_deref().unwrap_or_default())
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    attribute(node, name).and_then(|attribute| attribute.s.as_deref())
}

fn int(name: &str, value: i64) -> AttributeProto {
    let (name, kind) = (Some(name.to_owned()), Some(AttributeType::INT));
    AttributeProto { name, i: Some(value), r#type: kind, ..AttributeProto::default() }
}

/// Adds an attribute unless the node has it. Returns whether it did not have it.
fn set_default(node: &mut NodeProto, name: &str, ints: Vec<i64>) -> bool {
    let missing = attribute(node, name).is_none();
    if missing {
        let (name, kind) = (Some(name.to_owned()), Some(AttributeType::INTS));
        node.attribute.push(AttributeProto { name, ints, r#type: kind, ..AttributeProto::default() });
    }
    missing
}

#[cfg(test)]
mod tests {
    use rten::{Value, ValueOrView};
    use rten_onnx::onnx::{DataType, OperatorSetIdProto, TensorProto};
    use rten_tensor::prelude::*;

    use super::*;

    fn attributes(ints: &[(&str, &[i64])], text: &[(&str, &str)]) -> Vec<AttributeProto> {
        let ints = ints.iter().map(|(name, values)| match values {
            [value] if *name == "axis" => int(name, *value),
            _ => AttributeProto {
                name: Some((*name).to_owned()),
                ints: values.to_vec(),
                r#type: Some(AttributeType::INTS),
                ..AttributeProto::default()
            },
        });
        let text = text.iter().map(|(name, value)| AttributeProto {
            name: Some((*name).to_owned()),
            s: Some((*value).to_owned()),
            r#type: Some(AttributeType::STRING),
            ..AttributeProto::default()
        });
        ints.chain(text).collect()
    }

    fn weight(name: &str, dims: &[i64], values: Vec<f32>) -> TensorProto {
        TensorProto {
            name: Some(name.to_owned()),
            dims: dims.to_vec(),
            data_type: Some(DataType::FLOAT),
            float_data: values,
            ..TensorProto::default()
        }
    }

    /// A model of one node with the inputs `x` and the weights.
    fn model(
        opset: i64,
        operator: &str,
        attribute: Vec<AttributeProto>,
        weights: Vec<TensorProto>,
    ) -> ModelProto {
        let value = |name: &str| ValueInfoProto { name: Some(name.to_owned()), r#type: None };
        let inputs =
            ["x".to_owned()].into_iter().chain(weights.iter().filter_map(|weight| weight.name.clone()));
        let node = NodeProto {
            op_type: Some(operator.to_owned()),
            input: inputs.collect(),
            output: vec!["y".to_owned()],
            attribute,
            ..NodeProto::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
            graph: Some(GraphProto {
                node: vec![node],
                initializer: weights,
                input: vec![value("x")],
                output: vec![value("y")],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    fn evaluate(mut model: ModelProto, shape: &[usize]) -> Result<Vec<f32>, String> {
        write_out(&mut model)?;
        let model = rten::Model::load(model.write_buf().unwrap()).map_err(|error| error.to_string())?;
        let len = shape.iter().product::<usize>();
        let x = rten_tensor::Tensor::from_data(shape, (0..len).map(|i| i as f32).collect::<Vec<_>>());
        let input = ValueOrView::Value(Value::FloatTensor(x));
        let results = model.run(vec![(model.input_ids()[0], input)], model.output_ids(), None);
        let Value::FloatTensor(y) = results.map_err(|error| error.to_string())?.remove(0) else { panic!() };
        Ok(y.iter().copied().collect())
    }

    #[test]
    fn attributes_that_are_left_out_have_the_values_of_onnx() {
        let pool = || attributes(&[("kernel_shape", &[2, 2])], &[]);
        let filter = |dims: &[i64]| vec![weight("w", dims, vec![1.0; dims.iter().product::<i64>() as usize])];
        let image = [1, 1, 3, 3];
        let sums = vec![8.0, 12.0, 20.0, 24.0];
        let line = evaluate(model(17, "Conv", Vec::new(), filter(&[1, 1, 2])), &[1, 1, 3]);
        assert_eq!(line.unwrap(), [1.0, 3.0]);
        assert_eq!(evaluate(model(17, "Conv", Vec::new(), filter(&[1, 1, 2, 2])), &image).unwrap(), sums);
        let some = attributes(&[("strides", &[2, 2])], &[]);
        assert_eq!(evaluate(model(17, "Conv", some, filter(&[1, 1, 2, 2])), &image).unwrap(), [8.0]);
        let transposed =
            evaluate(model(17, "ConvTranspose", Vec::new(), filter(&[1, 1, 2, 2])), &[1, 1, 1, 2]);
        assert_eq!(transposed.unwrap(), [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
        let average: Vec<f32> = sums.iter().map(|sum| sum / 4.0).collect();
        assert_eq!(evaluate(model(17, "AveragePool", pool(), Vec::new()), &image).unwrap(), average);
        assert_eq!(evaluate(model(17, "MaxPool", pool(), Vec::new()), &image).unwrap(), [4.0, 5.0, 7.0, 8.0]);
    }

    #[test]
    fn softmax_before_opset_13_counts_the_axes_from_its_axis_on_as_one() {
        let over = |groups: usize, len: usize| -> Vec<f32> {
            let sum: f32 = (0..len).map(|i| (i as f32).exp()).sum();
            (0..groups).flat_map(|_| (0..len).map(|i| (i as f32).exp() / sum)).collect()
        };
        let axis = |axis: i64| attributes(&[("axis", &[axis])], &[]);
        for (opset, attributes, expected) in [
            (12, Vec::new(), over(2, 6)),
            (12, axis(1), over(2, 6)),
            (12, axis(2), over(4, 3)),
            (12, axis(-1), over(4, 3)),
            (12, axis(0), over(1, 12)),
            (13, Vec::new(), over(4, 3)),
        ] {
            let found = evaluate(model(opset, "Softmax", attributes, Vec::new()), &[2, 2, 3]).unwrap();
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close, "{opset}: {found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn what_rten_would_compute_differently_is_refused() {
        let cubic = model(17, "Resize", attributes(&[], &[("mode", "cubic")]), Vec::new());
        assert!(evaluate(cubic, &[1, 1, 2, 2]).unwrap_err().contains("has the mode cubic"));
        let lower = |kernel: &[i64]| {
            let attributes = attributes(&[("kernel_shape", kernel)], &[("auto_pad", "SAME_LOWER")]);
            evaluate(model(17, "MaxPool", attributes, Vec::new()), &[1, 1, 3, 3])
        };
        assert!(lower(&[2, 2]).unwrap_err().contains("SAME_LOWER"));
        assert_eq!(lower(&[3, 3]).unwrap().len(), 9);
    }
}
