use safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;

/// The name, shape and values of a tensor.
type Named<'a> = (&'a str, (Vec<usize>, Vec<f32>));

/// A tensor of float32 with the values start, start + 1 …, each over 8.
fn ramp(shape: &[usize], start: f32) -> (Vec<usize>, Vec<f32>) {
    let len = shape.iter().product::<usize>();
    (shape.to_vec(), (0..len).map(|i| (start + i as f32) / 8.0).collect())
}

fn file(tensors: &[Named<'_>]) -> Vec<u8> {
    file_with(tensors, None)
}

fn file_with(tensors: &[Named<'_>], metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, (_, values))| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        ((*name).to_owned(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize(views, metadata).unwrap()
}

fn layer(module: &str, inputs: usize, outputs: usize) -> AdaptedLayer {
    AdaptedLayer { module: module.to_owned(), inputs, outputs }
}

/// The product of the only layer of the network.
fn product(bytes: &[u8], layer: &AdaptedLayer) -> Result<LowRank, LoraError> {
    let layers = std::slice::from_ref(layer);
    let mut matched = Adapter::parse(bytes)?.matched(&[(Component::Network, layers)], 64)?;
    Ok(matched.layers.remove(&Component::Network).unwrap().remove(0).unwrap())
}

/// ΔW = (a · b)ᵀ, of the shape [outputs, inputs].
fn difference(part: &LowRank) -> Vec<f32> {
    let cell = |o: usize, i: usize| {
        (0..part.rank).map(|r| part.a[i * part.rank + r] * part.b[r * part.outputs + o]).sum()
    };
    (0..part.outputs).flat_map(|o| (0..part.inputs).map(move |i| cell(o, i))).collect()
}

/// The product of matrices [rows, inner] and [inner, columns].
fn multiplied(x: &[f32], y: &[f32], inner: usize) -> Vec<f32> {
    let columns = y.len() / inner;
    let cell = |row: &[f32], c: usize| row.iter().enumerate().map(|(i, v)| v * y[i * columns + c]).sum();
    x.chunks_exact(inner).flat_map(|row| (0..columns).map(move |c| cell(row, c))).collect()
}

fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-4), "{found:?}, {expected:?}");
}

const TO_Q: &str = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";

#[test]
fn alpha_over_rank_scales_a_layer() {
    let (down, up) = (ramp(&[2, 3], 1.0), ramp(&[4, 2], 2.0));
    let name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    let [a, b, alpha] = [".lora_down.weight", ".lora_up.weight", ".alpha"].map(|end| format!("{name}{end}"));
    let tensors = [(a.as_str(), down.clone()), (b.as_str(), up.clone())];
    let whole = multiplied(&up.1, &down.1, 2);
    assert_near(&difference(&product(&file(&tensors), &layer(TO_Q, 3, 4)).unwrap()), &whole);
    let with_alpha = [tensors[0].clone(), tensors[1].clone(), (alpha.as_str(), (vec![], vec![1.0]))];
    let half: Vec<f32> = whole.iter().map(|x| x / 2.0).collect();
    assert_near(&difference(&product(&file(&with_alpha), &layer(TO_Q, 3, 4)).unwrap()), &half);
}

#[test]
fn the_metadata_of_peft_scale_a_layer() {
    let (down, up) = (ramp(&[2, 3], 1.0), ramp(&[4, 2], 2.0));
    let [a, b] = ["A", "B"].map(|end| format!("unet.{TO_Q}.lora_{end}.weight"));
    let tensors = [(a.as_str(), down.clone()), (b.as_str(), up.clone())];
    let metadata = r#"{"unet.lora_alpha": 6, "unet.r": 2}"#.to_owned();
    let bytes = file_with(&tensors, Some(HashMap::from([("lora_adapter_metadata".to_owned(), metadata)])));
    let expected: Vec<f32> = multiplied(&up.1, &down.1, 2).iter().map(|x| x * 3.0).collect();
    assert_near(&difference(&product(&bytes, &layer(TO_Q, 3, 4)).unwrap()), &expected);
}

#[test]
fn a_loha_is_the_elementwise_product_of_two_products() {
    let parts = [ramp(&[4, 2], 1.0), ramp(&[2, 3], -3.0), ramp(&[4, 2], 5.0), ramp(&[2, 3], 2.0)];
    let names = ["w1_a", "w1_b", "w2_a", "w2_b"].map(|end| format!("lora_unet_conv_in.hada_{end}"));
    let mut tensors: Vec<_> = names.iter().map(String::as_str).zip(parts.clone()).collect();
    tensors.push(("lora_unet_conv_in.alpha", (vec![1], vec![4.0])));
    let [w1, w2] = [0, 2].map(|i| multiplied(&parts[i].1, &parts[i + 1].1, 2));
    let expected: Vec<f32> = w1.iter().zip(&w2).map(|(x, y)| 2.0 * x * y).collect();
    let found = product(&file(&tensors), &layer("conv_in", 3, 4)).unwrap();
    assert_eq!(found.rank, 4);
    assert_near(&difference(&found), &expected);
}

#[test]
fn a_lokr_is_the_kronecker_product_of_its_matrices() {
    let (w1, a, b) = (ramp(&[2, 3], 1.0), ramp(&[4, 2], -2.0), ramp(&[2, 5], 3.0));
    let w2 = multiplied(&a.1, &b.1, 2);
    let kron: Vec<f32> = (0..8)
        .flat_map(|row| (0..15).map(move |column| (row, column)))
        .map(|(row, column)| w1.1[row / 4 * 3 + column / 5] * w2[row % 4 * 5 + column % 5])
        .collect();
    let [n1, n2, na, nb, alpha] = [".lokr_w1", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".alpha"]
        .map(|end| format!("lora_unet_conv_in{end}"));
    let own = layer("conv_in", 15, 8);
    let alpha = (alpha.as_str(), (vec![], vec![1.0]));
    let factored = file(&[(&n1, w1.clone()), (&na, a), (&nb, b), alpha.clone()]);
    let half: Vec<f32> = kron.iter().map(|x| x / 2.0).collect();
    assert_near(&difference(&product(&factored, &own).unwrap()), &half);
    let whole = file(&[(&n1, w1), (&n2, (vec![4, 5], w2)), alpha]);
    let found = product(&whole, &own).unwrap();
    assert_eq!(found.rank, 3 * 4);
    assert_near(&difference(&found), &kron);
}

#[test]
fn names_of_the_original_code_reach_their_layers() {
    let name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q";
    let [a, b] = [".lora_down.weight", ".lora_up.weight"].map(|end| format!("{name}{end}"));
    let bytes = file(&[(&a, ramp(&[1, 2], 1.0)), (&b, ramp(&[3, 1], 1.0))]);
    let layers = [
        layer("down_blocks.0.resnets.1.conv1", 9, 9),
        layer("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", 2, 3),
    ];
    let adapter = Adapter::parse(&bytes).unwrap();
    let matched = adapter.matched(&[(Component::Network, &layers)], 64).unwrap();
    let found: Vec<_> = matched.layers[&Component::Network].iter().map(Option::is_some).collect();
    assert_eq!(found, [false, true]);
}

#[test]
fn layers_without_inputs_are_counted_and_named() {
    let [a, b] = ["down", "up"].map(|end| format!("lora_unet_conv_in.lora_{end}.weight"));
    let bytes = file(&[(&a, ramp(&[1, 2], 1.0)), (&b, ramp(&[3, 1], 1.0))]);
    let error = product(&bytes, &layer(TO_Q, 2, 3)).unwrap_err();
    let expected = "it has 1 layers, of which 1 have no inputs in this model, such as \"lora_unet_conv_in.lora_down.weight\" of the \
                    network. Is it for another family of models? If not, give the export inputs for all layers with \
                    `denoised init --live FOLDER --lora all`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let [a, b] = ["A", "B"].map(|end| format!("unet.{TO_Q}.lora_{end}.weight"));
    let tensors = [(a.as_str(), ramp(&[2, 3], 1.0)), (b.as_str(), ramp(&[4, 2], 1.0))];
    let text = |bytes: &[u8], inputs| product(bytes, &layer(TO_Q, inputs, 4)).unwrap_err().to_string();
    let whole = file(&tensors);
    assert_eq!(
        text(&whole, 7),
        format!("it was made for another model: {TO_Q} maps 3 values to 4 there, but 7 to 4 in this model")
    );
    assert!(text(&whole[..whole.len() - 1], 3).starts_with("it is not a complete safetensors file"));
    assert!(text(b"not a file", 3).starts_with("it is not a complete safetensors file"));
    assert!(text(&file(&tensors[..1]), 3).contains("no counterpart \"lora_up\""));
    let other_rank = [tensors[0].clone(), (b.as_str(), ramp(&[4, 3], 1.0))];
    assert!(text(&file(&other_rank), 3).ends_with("do not fit together: rank 2 and 3"));
    let nan = [tensors[0].clone(), (b.as_str(), (vec![4, 2], vec![f32::NAN; 8]))];
    assert_eq!(text(&file(&nan), 3), format!("{b:?} contains NaN or infinity"));
    let dora = format!("unet.{TO_Q}.lora_magnitude_vector");
    let with_dora = [tensors[0].clone(), tensors[1].clone(), (dora.as_str(), ramp(&[4], 1.0))];
    assert!(text(&file(&with_dora), 3).starts_with("1 of its tensors, such as"));
    assert!(text(&file(&[("emb_params", ramp(&[2, 3], 1.0))]), 3).contains("a textual inversion"));
    assert_eq!(
        text(&file(&[("x", ramp(&[2], 1.0))]), 3),
        "it has no tensors of a LoRA; its first tensor is \"x\""
    );
}

#[test]
fn a_rank_above_the_limit_is_refused() {
    let [a, b] = ["A", "B"].map(|end| format!("unet.{TO_Q}.lora_{end}.weight"));
    let bytes = file(&[(&a, ramp(&[3, 3], 1.0)), (&b, ramp(&[4, 3], 1.0))]);
    let layers = [layer(TO_Q, 3, 4)];
    let error = Adapter::parse(&bytes).unwrap().matched(&[(Component::Network, &layers)], 2).unwrap_err();
    assert!(matches!(error, LoraError::Rank { rank: 3, limit: 2, .. }));
}

/// The product of a LoHa has the square of the rank, and was computed before the limit was checked.
#[test]
fn a_loha_of_a_large_rank_filled_the_memory() {
    let parts = [ramp(&[1, 3000], 1.0), ramp(&[3000, 1], 1.0), ramp(&[1, 3000], 1.0), ramp(&[3000, 1], 1.0)];
    let names = ["w1_a", "w1_b", "w2_a", "w2_b"].map(|end| format!("lora_unet_conv_in.hada_{end}"));
    let tensors: Vec<_> = names.iter().map(String::as_str).zip(parts).collect();
    let error = product(&file(&tensors), &layer("conv_in", 1, 1)).unwrap_err();
    assert_eq!(error, LoraError::Rank { layer: "conv_in".to_owned(), rank: 9_000_000, limit: 64 });
}

#[test]
fn a_shape_with_an_axis_of_no_length_is_refused() {
    let [a, b] = ["A", "B"].map(|end| format!("unet.{TO_Q}.lora_{end}.weight"));
    let empty = (vec![0, usize::MAX, 2], Vec::new());
    let bytes = file(&[(&a, empty), (&b, ramp(&[4, 2], 1.0))]);
    let error = product(&bytes, &layer(TO_Q, 3, 4)).unwrap_err().to_string();
    assert!(error.contains("instead of a matrix"), "{error}");
}

#[test]
fn a_file_of_another_kind_is_refused_in_plain_words() {
    let reason = |bytes: &[u8]| Adapter::parse(bytes).unwrap_err().to_string();
    assert!(reason(b"").contains("it ends before its header"), "{}", reason(b""));
    assert!(reason(&[255; 64]).contains("it does not begin with a header"), "{}", reason(&[255; 64]));
    let mut cut = 2u64.to_le_bytes().to_vec();
    cut.extend(b"{}more");
    assert!(reason(&cut).contains("it has another number of bytes"), "{}", reason(&cut));
}
