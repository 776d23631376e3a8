use super::*;
use crate::bundle::{Manifest, NetworkSize};
use crate::tensor::DataType;

fn value(name: &str, axes: &[Option<usize>]) -> ValueInfo {
    ValueInfo::with_axes(name, DataType::F32, axes)
}

const ANY: Option<usize> = None;

/// The names of the residuals of a U-Net with two skip connections, by exporter.
const CONVENTIONS: [([&str; 3], [&str; 3]); 4] = [
    (
        [
            "down_block_0_additional_residual",
            "down_block_1_additional_residual",
            "mid_block_additional_residual",
        ],
        [
            "down_block_0_additional_residual",
            "down_block_1_additional_residual",
            "mid_block_additional_residual",
        ],
    ),
    (
        [
            "down_block_additional_residuals.0",
            "down_block_additional_residuals.1",
            "mid_block_additional_residual",
        ],
        ["down_block_res_0", "down_block_res_1", "mid_block_res"],
    ),
    (["down_block_0", "down_block_1", "mid_block_additional_residual"], ["down_0", "down_1", "mid"]),
    (
        ["input_control_00", "input_control_01", "input_control_middle"],
        ["down_block_00", "down_block_01", "mid_block"],
    ),
];

fn unet(residuals: &[&str], width: usize) -> Signature {
    let mut inputs = vec![
        value("sample", &[ANY, Some(4), Some(8), Some(8)]),
        value("timestep", &[ANY]),
        value("encoder_hidden_states", &[ANY, ANY, Some(width)]),
    ];
    inputs.extend(residuals.iter().map(|name| value(name, &[ANY, Some(32), ANY, ANY])));
    let graph = GraphIo { inputs, outputs: vec![value("out_sample", &[ANY, Some(4), Some(8), Some(8)])] };
    Signature::resolve(&graph, &Manifest::default(), NetworkSize::default(), 4).unwrap()
}

fn controlnet(outputs: &[&str], width: usize, channels: usize) -> GraphIo {
    GraphIo {
        inputs: vec![
            value("sample", &[ANY, Some(4), ANY, ANY]),
            value("timestep", &[]),
            value("encoder_hidden_states", &[ANY, ANY, Some(width)]),
            value(PICTURE, &[ANY, Some(3), ANY, ANY]),
        ],
        outputs: outputs.iter().map(|name| value(name, &[ANY, Some(channels), ANY, ANY])).collect(),
    }
}

#[test]
fn outputs_are_matched_by_the_names_of_all_exporters() {
    for (inputs, outputs) in CONVENTIONS {
        let mut shuffled = outputs;
        shuffled.rotate_right(1);
        let io = ControlNetIo::resolve(&controlnet(&shuffled, 16, 32), &unet(&inputs, 16)).unwrap();
        assert_eq!(io.residuals, outputs);
        assert_eq!(
            (io.tensors, io.time_shape),
            (vec![("encoder_hidden_states".to_owned(), 0)], TimestepShape::Scalar)
        );
    }
}

#[test]
fn a_controlnet_of_another_model_is_refused_by_what_differs() {
    let (inputs, outputs) = CONVENTIONS[0];
    let fault = |graph: &GraphIo, width| ControlNetIo::resolve(graph, &unet(&inputs, width)).unwrap_err();
    let found = fault(&controlnet(&outputs, 2048, 32), 768);
    let expected = "takes encoder_hidden_states 2048 wide (Stable Diffusion XL), but the U-Net takes 768 (Stable Diffusion 1)";
    assert!(found.starts_with(expected), "{found}");
    let found = fault(&controlnet(&outputs[1..], 16, 32), 16);
    assert!(found.starts_with("returns 2 residuals, but the U-Net takes 3"), "{found}");
    let found = fault(&controlnet(&outputs, 16, 48), 16);
    assert!(
        found.contains("with 48 channels, but the U-Net's input down_block_0_additional_residual has 32"),
        "{found}"
    );
    let mut graph = controlnet(&outputs, 16, 32);
    graph.inputs.push(value("text_embeds", &[ANY, Some(16)]));
    let found = fault(&graph, 16);
    assert!(
        found.contains("takes the input text_embeds float32[?, 16], which the U-Net does not have"),
        "{found}"
    );
    graph.inputs.pop();
    graph.inputs[3].shape[1] = Dim::Fixed(1);
    assert!(fault(&graph, 16).contains("an RGB picture has four axes with 3 channels"));
}

#[test]
fn the_scale_is_fed_in_the_shape_that_the_graph_has() {
    let (inputs, outputs) = CONVENTIONS[0];
    for (axes, expected) in [
        (&[][..], vec![]),
        (&[ANY][..], vec![1]),
        (&[Some(1)], vec![1]),
        (&[ANY, ANY], vec![2, 3]),
        (&[ANY, Some(3)], vec![2, 3]),
    ] {
        let mut graph = controlnet(&outputs, 16, 32);
        graph.inputs.push(ValueInfo::with_axes("conditioning_scale", DataType::F64, axes));
        let io = ControlNetIo::resolve(&graph, &unet(&inputs, 16)).unwrap();
        assert_eq!(io.scale_shape(2), expected);
    }
}

#[test]
fn other_networks_are_refused_by_name() {
    let graph = |names: &[&str]| GraphIo {
        inputs: names.iter().map(|name| value(name, &[ANY, ANY, ANY])).collect(),
        outputs: vec![value("a", &[ANY; 4]), value("b", &[ANY; 4])],
    };
    for (names, expected) in [
        (&["sample", "encoder_hidden_states", PICTURE, "control_type"][..], "ControlNet Union"),
        (&["hidden_states", "encoder_hidden_states", PICTURE, "pooled_projections"], "Stable Diffusion 3"),
        (&["hidden_states", "encoder_hidden_states", PICTURE, "img_ids"], "Flux"),
        (&["x"], "T2I-Adapter"),
        (&["sample", "timestep", "down_block_0_additional_residual"], "a U-Net with inputs"),
        (&["sample", "timestep"], "no input controlnet_cond"),
    ] {
        let found = unserved_network(&graph(names)).unwrap();
        assert!(found.contains(expected), "{names:?}: {found}");
    }
    assert_eq!(unserved_network(&graph(&["sample", "encoder_hidden_states", PICTURE])), None);
}
