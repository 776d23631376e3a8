//! What is inferred about exported graphs is what ONNX Runtime computes, and folding keeps the outputs.

use std::collections::BTreeMap;

use ort::value::{DynValue, TensorElementType};
use rten_onnx::onnx::{DataType, ModelProto, ValueInfoProto};

use super::exports::load;
use super::onnx_runtime::{Shapes, first_output, run};
use crate::onnx::rewriting::constants::Elements;
use crate::onnx::rewriting::dim::Dim;
use crate::onnx::rewriting::values::{Value, Values};
use crate::onnx::rewriting::{AttentionTarget, fold_shapes, fuse_attention};

/// Small graphs of each family, with sizes of their inputs.
fn graphs() -> Vec<(&'static str, Shapes)> {
    let sizes = |sizes: &[(&str, &[usize])]| -> Shapes {
        sizes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    };
    let unet: [(&str, &[usize]); 3] =
        [("sample", &[2, 4, 16, 8]), ("timestep", &[]), ("encoder_hidden_states", &[2, 7, 16])];
    vec![
        ("sd/unet/model.onnx", sizes(&unet)),
        ("variants/unet_int8.onnx", sizes(&unet)),
        ("sd/text_encoder/model.onnx", sizes(&[("input_ids", &[2, 9])])),
        ("sd/vae_decoder/model.onnx", sizes(&[("latent_sample", &[2, 4, 6, 10])])),
        ("sd/vae_encoder/model.onnx", sizes(&[("sample", &[1, 3, 32, 24])])),
        ("sd3/text_encoder_3/model.onnx", sizes(&[("input_ids", &[2, 9])])),
        (
            "sd3/transformer/model.onnx",
            sizes(&[
                ("hidden_states", &[2, 16, 8, 8]),
                ("encoder_hidden_states", &[2, 9, 32]),
                ("pooled_projections", &[2, 32]),
                ("timestep", &[2]),
            ]),
        ),
        (
            "flux/transformer/model.onnx",
            sizes(&[
                ("hidden_states", &[2, 16, 16]),
                ("encoder_hidden_states", &[2, 9, 16]),
                ("pooled_projections", &[2, 16]),
                ("timestep", &[2]),
                ("guidance", &[2]),
                ("img_ids", &[16, 3]),
                ("txt_ids", &[9, 3]),
            ]),
        ),
    ]
}

#[test]
fn inferred_values_are_those_of_the_run() {
    for (graph, shapes) in graphs() {
        let mut model = load(graph);
        fold_inputs(&mut model, &shapes);
        let values = Values::infer(model.graph.as_ref().unwrap(), 18);
        let names = outputs_of_all_nodes(&mut model, &values);
        let checked = run(&model, &shapes, |outputs| {
            names
                .iter()
                .for_each(|name| check(graph, name, values.get(name).unwrap(), &outputs[name.as_str()]));
            names.len()
        });
        assert!(checked > 100, "{graph}: {checked}");
    }
}

#[test]
fn rewritten_exports_compute_the_same() {
    for (graph, shapes) in graphs() {
        let mut model = load(graph);
        let expected = first_output(&model, &shapes);
        let removed = fold_shapes(&mut model, &shapes);
        let left =
            fuse_attention(&mut model, AttentionTarget { float16: false, broadcasts_masks: true }).left;
        let leftover: Vec<_> =
            super::graph::nodes(&model, "Shape").iter().map(|node| &node.output[0]).collect();
        assert!(removed > 50 && left == 0 && leftover.is_empty(), "{graph}: {removed} {left} {leftover:?}");
        let (shape, values) = first_output(&model, &shapes);
        assert_eq!(shape, expected.0, "{graph}");
        let error = values.iter().zip(&expected.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{graph}: {error}");
    }
}

/// Fixes the shapes of the inputs only: nothing is left to fold in a graph without nodes.
fn fold_inputs(model: &mut ModelProto, shapes: &Shapes) {
    let graph = model.graph.as_mut().unwrap();
    let (nodes, initializers) = (std::mem::take(&mut graph.node), std::mem::take(&mut graph.initializer));
    fold_shapes(model, shapes);
    let graph = model.graph.as_mut().unwrap();
    (graph.node, graph.initializer) = (nodes, initializers);
}

/// Lets the graph output all values of which something is known. Returns their names.
fn outputs_of_all_nodes(model: &mut ModelProto, values: &Values) -> Vec<String> {
    let graph = model.graph.as_mut().unwrap();
    graph.output.clear();
    let names = graph.node.iter().map(|node| node.output[0].clone());
    let names: Vec<_> = names.filter(|name| values.shape(name).is_some()).collect();
    let output = |name: &String| ValueInfoProto { name: Some(name.clone()), r#type: None };
    graph.output.extend(names.iter().map(output));
    names
}

/// Compares what is known about a value with the value.
fn check(graph: &str, name: &str, known: &Value, value: &DynValue) {
    let lens: Vec<_> = known.shape.as_ref().unwrap().iter().map(|dim| dim.known()).collect();
    let own: Vec<_> = value.shape().iter().copied().collect();
    assert_eq!(lens.len(), own.len(), "{graph}: {name}");
    assert!(
        lens.iter().zip(&own).all(|(len, own)| len.is_none_or(|len| len == *own)),
        "{graph}: {name}: {lens:?} {own:?}"
    );
    let data_types = BTreeMap::from([
        (TensorElementType::Float32 as i32, DataType::FLOAT),
        (TensorElementType::Int64 as i32, DataType::INT64),
        (TensorElementType::Int32 as i32, DataType::INT32),
        (TensorElementType::Bool as i32, DataType::BOOL),
    ]);
    let data_type = value.dtype().tensor_type().and_then(|own| data_types.get(&(own as i32)).copied());
    if let (Some(own), Some(data_type)) = (data_type, known.data_type) {
        assert_eq!(own, data_type, "{graph}: {name}");
    }
    let Some(elements) = &known.elements else { return };
    match data_type {
        Some(DataType::FLOAT) => {
            let own = value.try_extract_tensor::<f32>().unwrap().1;
            let Elements::Floats(elements) = elements else { panic!("{graph}: {name}") };
            let is_close =
                |(a, b): (&f32, &f64)| f64::from(*a) == *b || (f64::from(*a) - b).abs() < 1e-6 * b.abs();
            assert!(own.iter().zip(elements).all(is_close), "{graph}: {name}: {elements:?} {own:?}");
        }
        Some(DataType::INT64) => {
            let own = value.try_extract_tensor::<i64>().unwrap().1;
            let Elements::Integers(elements) = elements else { panic!("{graph}: {name}") };
            let is_equal = |(a, b): (&i64, &Dim)| b.known().is_none_or(|b| *a == b);
            assert!(own.iter().zip(elements).all(is_equal), "{graph}: {name}: {elements:?} {own:?}");
        }
        _ => {}
    }
}
