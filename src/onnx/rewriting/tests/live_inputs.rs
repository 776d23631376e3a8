//! Live inputs change the numbers as a ControlNet's residuals and merged weights would, and zeros change nothing.

use rten_onnx::onnx::{DataType, ModelProto};

use super::exports::load;
use super::graph::Net;
use super::onnx_runtime::run_on;
use crate::onnx::rewriting::constants::{new_int, new_ints};
use crate::onnx::rewriting::{LiveInputs, LoraLayers, add_live_inputs};

/// A tensor by name, with its shape and values.
type Values = Vec<(String, Vec<usize>, Vec<f32>)>;

fn ramp(len: usize, start: usize) -> Vec<f32> {
    (0..len).map(|at| ((at * 31 + start * 17 + 7) as f32 * 12.9898).sin()).collect()
}

fn value(name: &str, shape: &[usize], start: usize) -> (String, Vec<usize>, Vec<f32>) {
    (name.to_owned(), shape.to_vec(), ramp(shape.iter().product(), start))
}

/// The module of a layer below, and the shape of its input and of its weight.
const LAYERS: [(&str, &str, &[usize], &[i64]); 5] = [
    ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "MatMul", &[2, 5, 3], &[3, 4]),
    ("down_blocks.0.resnets.0.time_emb_proj", "Gemm", &[2, 3], &[4, 3]),
    ("down_blocks.0.attentions.0.proj_in", "Conv", &[2, 3, 6, 6], &[4, 3, 1, 1]),
    ("down_blocks.0.resnets.0.conv1", "Conv", &[2, 3, 6, 6], &[4, 3, 3, 3]),
    ("down_blocks.0.downsamplers.0.conv", "Conv", &[2, 3, 6, 6], &[4, 3, 3, 3]),
];

fn layer(index: usize, weight: &[f64]) -> ModelProto {
    let (module, operator, shape, dims) = LAYERS[index];
    let mut net = Net::default();
    let axes = ["batch", "a", "b", "c"];
    let x = net.input("x", DataType::FLOAT, &axes[..shape.len()]);
    let weight = net.numbers(DataType::FLOAT, dims, weight);
    let attributes = match operator {
        "Gemm" => vec![new_int("transB", 1)],
        "Conv" if dims[2] == 3 => {
            let stride = if module.contains("downsamplers") { 2 } else { 1 };
            vec![new_ints("pads", &[1, 1, 1, 1]), new_ints("strides", &[stride, stride])]
        }
        _ => Vec::new(),
    };
    let name = format!("/{}/{operator}", module.replace('.', "/").replace("/0", ".0"));
    let y = net.named_op(&name, operator, &[&x, &weight], attributes);
    net.model(&[(&y, DataType::FLOAT)])
}

/// W + ΔW, where ΔW is a · b with the axes of the weight.
fn merged(dims: &[i64], is_transposed: bool, weight: &[f64], a: &[f32], b: &[f32], rank: usize) -> Vec<f64> {
    let outputs = if is_transposed { dims[0] } else { dims[1] } as usize;
    let inputs = weight.len() / outputs;
    let difference = |i: usize, o: usize| -> f64 {
        (0..rank).map(|r| f64::from(a[i * rank + r]) * f64::from(b[r * outputs + o])).sum()
    };
    let at = |index: usize| {
        if is_transposed { (index % inputs, index / inputs) } else { (index / outputs, index % outputs) }
    };
    weight.iter().enumerate().map(|(index, w)| w + difference(at(index).0, at(index).1)).collect()
}

#[test]
fn a_lora_of_each_image_is_added_as_if_it_were_merged() {
    for (index, (module, operator, shape, dims)) in LAYERS.into_iter().enumerate() {
        let weight: Vec<f64> =
            ramp(dims.iter().product::<i64>() as usize, 3).into_iter().map(f64::from).collect();
        let mut live = layer(index, &weight);
        let count = add_live_inputs(&mut live, false, LoraLayers::All);
        assert_eq!(count, LiveInputs { residuals: 0, layers: 1 }, "{module}");
        let is_transposed = operator != "MatMul";
        let outputs = if is_transposed { dims[0] } else { dims[1] } as usize;
        let (inputs, rank) = (weight.len() / outputs, 2);
        let x = value("x", shape, 1);
        let a = value(&format!("lora_a.{module}"), &[2, inputs, rank], 2);
        let b = value(&format!("lora_b.{module}"), &[2, rank, outputs], 5);
        let found = run_on(&live, &[x.clone(), a.clone(), b.clone()]);
        let image = x.2.len() / 2;
        let mut expected = Vec::new();
        for i in 0..2 {
            let (a, b) =
                (&a.2[i * inputs * rank..][..inputs * rank], &b.2[i * rank * outputs..][..rank * outputs]);
            let plain = layer(index, &merged(dims, is_transposed, &weight, a, b, rank));
            let x = (x.0.clone(), [&[1], &shape[1..]].concat(), x.2[i * image..][..image].to_vec());
            expected.extend(run_on(&plain, &[x]));
        }
        assert_eq!(found.len(), expected.len(), "{module}");
        let worst = found.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{module}: {worst}");
        let one = value(&format!("lora_a.{module}"), &[1, inputs, rank], 2);
        let shared = run_on(&live, &[x, one, value(&format!("lora_b.{module}"), &[1, rank, outputs], 5)]);
        assert_eq!(shared[..shared.len() / 2], found[..found.len() / 2], "{module}: one for all images");
    }
}

/// The inputs of a bundle's U-Net and text encoder, by the names of their axes.
fn usual(name: &str) -> Option<Vec<usize>> {
    Some(match name {
        "sample" => vec![2, 4, 16, 16],
        "timestep" => Vec::new(),
        "encoder_hidden_states" => vec![2, 77, 16],
        "input_ids" => vec![2, 77],
        _ => return None,
    })
}

fn inputs(model: &ModelProto, live: impl Fn(&str, &[Option<i64>]) -> (Vec<usize>, f32)) -> Values {
    let graph = model.graph.as_ref().unwrap();
    let inputs = graph.input.iter().enumerate().map(|(seed, input)| {
        let name = input.name.clone().unwrap();
        if let Some(shape) = usual(&name) {
            return value(&name, &shape, seed);
        }
        let tensor = input.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        let dims: Vec<_> = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| dim.dim_value).collect();
        let (shape, factor) = live(&name, &dims);
        let (name, shape, values) = value(&name, &shape, seed);
        (name, shape, values.into_iter().map(|x| x * factor).collect())
    });
    inputs.collect()
}

#[test]
fn zeros_in_the_live_inputs_of_exports_change_nothing() {
    for (graph, expected) in [
        ("sd/unet/model.onnx", LiveInputs { residuals: 5, layers: 83 }),
        ("sd/text_encoder/model.onnx", LiveInputs { residuals: 0, layers: 18 }),
    ] {
        let plain = load(graph);
        let values = inputs(&plain, |name, _| panic!("{name}"));
        let mut live = load(graph);
        let count = add_live_inputs(&mut live, true, LoraLayers::All);
        assert_eq!(count, expected, "{graph}");
        let zeros =
            inputs(&live, |_, dims| (dims.iter().map(|dim| dim.unwrap_or(1) as usize).collect(), 0.0));
        assert_eq!(run_on(&live, &zeros), run_on(&plain, &values), "{graph}");
    }
}
