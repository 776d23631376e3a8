//! Each form of attention, and what must stay as it is.

use std::collections::BTreeMap;

use rten_onnx::onnx::{AttributeProto, DataType, GraphProto, ModelProto};

use super::blocks::{Attention, Layout, MaskAxes, Scale, Transposition};
use super::graph::{Net, nodes, operators};
use crate::onnx::rewriting::attention::AttentionCount;
use crate::onnx::rewriting::constants::{attribute, int_attribute, new_int, new_ints};
use crate::onnx::rewriting::{AttentionTarget, fold_shapes, fuse_attention};

const CPU: AttentionTarget = AttentionTarget { float16: false, broadcasts_masks: true };
const FUSED: AttentionCount = AttentionCount { fused: 1, left: 0 };
const LEFT: AttentionCount = AttentionCount { fused: 0, left: 1 };

fn fused(attention: Attention) -> ModelProto {
    let (mut model, _) = attention.build(DataType::FLOAT);
    assert_eq!(fuse_attention(&mut model, CPU), FUSED);
    model
}

fn scale(model: &ModelProto) -> f32 {
    attribute(nodes(model, "MultiHeadAttention")[0], "scale").unwrap().f.unwrap()
}

#[test]
fn projections_are_used_as_they_are() {
    let transpositions = [Transposition::Once, Transposition::Twice, Transposition::WithoutHeads];
    for (transposition, dynamic) in transpositions.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let model = fused(Attention { transposition, dynamic, ..Attention::PLAIN });
        assert_eq!(operators(&model), ["MultiHeadAttention"], "{transposition:?} {dynamic}");
        let node = nodes(&model, "MultiHeadAttention")[0];
        assert_eq!(node.input, ["query", "key", "value"]);
        assert_eq!(int_attribute(node, "num_heads"), Some(3));
        assert_eq!(node.output[0], *model.graph.as_ref().unwrap().output[0].name.as_ref().unwrap());
        let imported: Vec<_> = model.opset_import.iter().map(|opset| opset.domain.as_deref()).collect();
        assert_eq!(imported, [None, Some("com.microsoft")]);
        assert!(model.graph.unwrap().initializer.is_empty());
    }
}

#[test]
fn the_scale_is_the_product_of_all() {
    for (scales, expected) in [
        (Scale::None, 1.0),
        (Scale::Queries(0.25), 0.25),
        (Scale::Scores(0.125), 0.125),
        (Scale::Divided(8.0), 0.125),
        (Scale::Roots, 0.5),
    ] {
        assert!((scale(&fused(Attention { scale: scales, ..Attention::PLAIN })) - expected).abs() < 1e-7);
        let dynamic = Attention { scale: scales, dynamic: true, ..Attention::PLAIN };
        assert!((scale(&fused(dynamic)) - expected).abs() < 1e-7, "{scales:?}");
    }
}

#[test]
fn operands_with_heads_are_joined() {
    let model = fused(Attention { layout: Layout::Heads, ..Attention::PLAIN });
    let expected = ["Transpose", "Reshape"].repeat(3);
    assert_eq!(operators(&model)[..6], expected);
    assert_eq!(operators(&model)[6..], ["MultiHeadAttention"]);
}

#[test]
fn heads_in_the_batch_are_one_head() {
    let model = fused(Attention { layout: Layout::Batched, ..Attention::PLAIN });
    assert_eq!(operators(&model), ["MultiHeadAttention", "Neg"]);
    assert_eq!(int_attribute(nodes(&model, "MultiHeadAttention")[0], "num_heads"), Some(1));
}

#[test]
fn masks_get_the_axes_of_the_scores() {
    let whole = MaskAxes { batch: true, heads: true, rows: true };
    let masked = |mask, target| {
        let (mut model, _) = Attention { mask: Some(mask), ..Attention::PLAIN }.build(DataType::FLOAT);
        assert_eq!(fuse_attention(&mut model, target), FUSED);
        operators(&model).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(masked(whole, CPU), ["MultiHeadAttention"]);
    let padding = MaskAxes { batch: true, heads: false, rows: false };
    assert_eq!(masked(padding, CPU), ["Concat", "Expand", "MultiHeadAttention"]);
    let causal = MaskAxes { batch: false, heads: false, rows: true };
    assert_eq!(masked(causal, CPU), ["Unsqueeze", "MultiHeadAttention"]);
    let old = AttentionTarget { broadcasts_masks: false, ..CPU };
    assert_eq!(masked(causal, old), ["Unsqueeze", "Concat", "Expand", "MultiHeadAttention"]);
}

#[test]
fn sixteen_bit_numbers_are_for_cuda() {
    let (mut model, _) = Attention { casts: true, ..Attention::PLAIN }.build(DataType::FLOAT16);
    assert_eq!(fuse_attention(&mut model, CPU), LEFT);
    let cuda = AttentionTarget { float16: true, ..CPU };
    assert_eq!(fuse_attention(&mut model, cuda), FUSED);
    assert_eq!(operators(&model), ["MultiHeadAttention"]);
}

/// The plain block after a change. It must stay as it is.
fn is_left(change: impl Fn(&mut ModelProto)) {
    let (mut model, _) = Attention::PLAIN.build(DataType::FLOAT);
    change(&mut model);
    let before = model.write_buf().unwrap();
    assert_eq!(fuse_attention(&mut model, CPU), LEFT);
    assert!(model.write_buf().unwrap() == before);
}

#[test]
fn what_does_not_match_is_left() {
    is_left(|model| model.opset_import[0].version = Some(12));
    is_left(|model| model.ir_version = Some(3));
    is_left(|model| {
        let nested = AttributeProto { g: Some(GraphProto::default()), ..AttributeProto::default() };
        model.graph.as_mut().unwrap().node[0].attribute.push(nested);
    });
    // Another node uses the weights, or the graph outputs them.
    is_left(|model| {
        let graph = model.graph.as_mut().unwrap();
        let weights = graph.node.iter().find(|node| node.op_type.as_deref() == Some("Softmax")).unwrap();
        graph.output[0].name = Some(weights.output[0].clone());
    });
    // The softmax of columns.
    is_left(|model| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let softmax = nodes.iter_mut().find(|node| node.op_type.as_deref() == Some("Softmax")).unwrap();
        softmax.attribute = vec![new_int("axis", 2)];
    });
    // Keys for another number of heads.
    is_left(|model| {
        let input = &mut model.graph.as_mut().unwrap().input[1];
        let shape = input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
        shape.dim[0].dim_value = Some(1);
        let target = model.graph.as_mut().unwrap().node[1].input[1].clone();
        let graph = model.graph.as_mut().unwrap();
        let target =
            graph.initializer.iter_mut().find(|tensor| tensor.name.as_ref() == Some(&target)).unwrap();
        *target =
            crate::onnx::rewriting::constants::int64_vector(target.name.as_ref().unwrap(), &[1, 7, 3, 4]);
    });
}

#[test]
fn a_number_of_heads_that_only_the_run_knows_is_left() {
    let mut net = Net::default();
    let axes = ["batch", "heads", "rows", "4"];
    let [query, key, value] = ["query", "key", "value"].map(|name| net.input(name, DataType::FLOAT, &axes));
    let key = net.op("Transpose", &[&key], vec![new_ints("perm", &[0, 1, 3, 2])]);
    let scores = net.op("MatMul", &[&query, &key], Vec::new());
    let weights = net.op("Softmax", &[&scores], Vec::new());
    let output = net.op("MatMul", &[&weights, &value], Vec::new());
    let mut model = net.model(&[(&output, DataType::FLOAT)]);
    assert_eq!(fuse_attention(&mut model, CPU), LEFT);
    let sizes = ["query", "key", "value"].map(|name| (name.to_owned(), vec![1, 2, 3, 4]));
    fold_shapes(&mut model, &BTreeMap::from(sizes));
    assert_eq!(fuse_attention(&mut model, CPU), FUSED);
}

#[test]
fn an_addend_of_zeros_is_no_mask() {
    let mut net = Net::default();
    let [query, key, value] =
        ["query", "key", "value"].map(|name| net.input(name, DataType::FLOAT, &["batch", "rows", "4"]));
    let shape = net.op("Shape", &[&query], Vec::new());
    let empty = net.op("ConstantOfShape", &[&shape], Vec::new());
    let zero = net.numbers(DataType::FLOAT, &[], &[0.0]);
    let addend = net.op("Mul", &[&empty, &zero], Vec::new());
    let key = net.op("Transpose", &[&key], vec![new_ints("perm", &[0, 2, 1])]);
    let scores = net.op("MatMul", &[&query, &key], Vec::new());
    let scores = net.op("Add", &[&scores, &addend], Vec::new());
    let weights = net.op("Softmax", &[&scores], Vec::new());
    let output = net.op("MatMul", &[&weights, &value], Vec::new());
    let mut model = net.model(&[(&output, DataType::FLOAT)]);
    assert_eq!(fuse_attention(&mut model, CPU), FUSED);
    assert_eq!(operators(&model), ["MultiHeadAttention"]);
}

#[test]
fn sizes_fold_shape_arithmetic() {
    let mut net = Net::default();
    let image = net.input("image", DataType::FLOAT, &["batch", "4", "height", "width"]);
    let copy = net.op("Identity", &[&image], Vec::new());
    let shape = net.op("Shape", &[&copy], Vec::new());
    let batch = net.vector(&[0]);
    let batch = net.op("Gather", &[&shape, &batch], vec![new_int("axis", 0)]);
    let rest = net.vector(&[4, -1]);
    let target = net.op("Concat", &[&batch, &rest], vec![new_int("axis", 0)]);
    let tokens = net.op("Reshape", &[&copy, &target], Vec::new());
    let mut model = net.model(&[(&tokens, DataType::FLOAT)]);
    assert_eq!(fold_shapes(&mut model, &BTreeMap::new()), 1);
    assert_eq!(operators(&model), ["Shape", "Gather", "Concat", "Reshape"]);
    let sizes = BTreeMap::from([("image".to_owned(), vec![2, 4, 8, 6])]);
    assert_eq!(fold_shapes(&mut model, &sizes), 3);
    assert_eq!(operators(&model), ["Reshape"]);
    let graph = model.graph.unwrap();
    assert_eq!(graph.initializer.len(), 1);
    assert_eq!(graph.initializer[0].dims, [3]);
    let dims =
        &graph.input[0].r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap().dim;
    assert_eq!(dims.iter().map(|dim| dim.dim_value.unwrap()).collect::<Vec<_>>(), [2, 4, 8, 6]);
}
