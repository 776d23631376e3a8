//! What the text encoders of a pipeline take and give.

use super::{ENGINES, changed, graph_of, is_same_image, refusal, set_key};
use crate::common::commands::succeeds;
use crate::common::largest_difference;
use crate::common::onnx_graphs::{edit, integers, multiply_output, node, node_with, set_axes, value};
use crate::common::pipelines::{
    bundle, rejection, sample, sample_image, sample_image_on, values, with_variants,
};
use rten_onnx::onnx::{DataType, GraphProto};
use serde_json::json;

#[test]
fn text_encoders_of_a_fixed_length_run_on_both_engines() {
    let (_directory, model) =
        changed("sdxl", "text_encoder", |graph| set_axes(graph, "input_ids", &[-1, 77]));
    edit(&graph_of(&model, "text_encoder_2"), |graph| set_axes(graph, "input_ids", &[1, 77]));
    for engine in ENGINES {
        let [fixed, dynamic] = [&model, &bundle("sdxl")].map(|model| sample_image_on(engine, model, &[]));
        assert_eq!(fixed, dynamic, "{engine}");
    }
    is_same_image(&sample_image_on("embedded", &model, &[]), &sample_image(&model, &[]));
    // The prompt's own end-of-text tokens count as the end too.
    let folder = tempfile::tempdir().unwrap();
    let [embedded, onnxruntime] = ENGINES.map(|engine| {
        let file = folder.path().join(format!("{engine}.npy"));
        let mut command = sample(engine, &model, &file);
        let prompt = "a fox <|endoftext|> in the snow <|endoftext|>";
        succeeds(command.args(["--prompt", prompt, "--steps", "2", "--seed", "3"]));
        values(&file).1
    });
    is_same_image(&embedded, &onnxruntime);
}

#[test]
fn a_text_encoder_of_another_length_is_refused() {
    let (_directory, model) = changed("sd", "text_encoder", |graph| set_axes(graph, "input_ids", &[-1, 16]));
    let stderr = refusal(&model, "takes 16 tokens");
    assert!(stderr.contains("text_encoder/model.onnx") && stderr.contains("pads prompts to 77"), "{stderr}");
    let (_directory, model) =
        changed("sd", "unet", |graph| set_axes(graph, "encoder_hidden_states", &[-1, 16, 16]));
    refusal(&model, "it takes 16 tokens of text, but the text encoders give 77");
    let (_directory, model) =
        changed("sd", "unet", |graph| set_axes(graph, "encoder_hidden_states", &[-1, -1, 24]));
    refusal(&model, "it takes text embeddings of width 24, but the text encoders give 16");
    // The width of a pooled embedding is that of the configuration, since exports do not declare it.
    let (_directory, model) = changed("sdxl", "unet", |graph| set_axes(graph, "text_embeds", &[-1, 24]));
    refusal(&model, "it takes pooled embeddings of width 24, but the text encoders give 16");
}

#[test]
fn a_tokenizer_that_is_longer_than_its_text_encoder_is_refused() {
    let (_directory, model) = with_variants(&[]);
    set_key(&model, "tokenizer/tokenizer_config.json", "model_max_length", json!(248));
    let stderr = refusal(&model, "it has positions for 77 tokens");
    assert!(stderr.contains("text_encoder/model.onnx") && stderr.contains("pads prompts to 248"), "{stderr}");
}

#[test]
fn a_fixed_number_of_t5_tokens_is_the_only_one() {
    let (_directory, model) =
        changed("flux", "text_encoder_2", |graph| set_axes(graph, "input_ids", &[-1, 64]));
    let same = ["--max-sequence-length", "64"];
    assert_eq!(sample_image(&model, &[]), sample_image(&bundle("flux"), &same));
    let stderr = rejection(&model, &["--prompt", "", "--max-sequence-length", "128"]);
    assert!(stderr.contains("max_sequence_length is 128, but the graphs of flux only take 64"), "{stderr}");
}

/// Adds an attention mask that sets the rows of masked tokens to zero.
fn add_mask(graph: &mut GraphProto) {
    graph.input.push(value("attention_mask", DataType::INT64, &[-1, -1]));
    graph.initializer.push(integers("last_axis", &[2]));
    graph.node.push(node_with("Cast", &["attention_mask"], "mask_float", ("to", 1)));
    graph.node.push(node("Unsqueeze", &["mask_float", "last_axis"], "mask_rows"));
    multiply_output(graph, "last_hidden_state", "mask_rows");
}

#[test]
fn the_attention_mask_of_a_text_encoder_is_fed() {
    let (_directory, model) = changed("sd", "text_encoder", add_mask);
    for engine in ENGINES {
        // The reference gives no mask, which is one of ones.
        assert_eq!(
            sample_image_on(engine, &model, &[]),
            sample_image_on(engine, &bundle("sd"), &[]),
            "{engine}"
        );
    }
    set_key(&model, "text_encoder/config.json", "use_attention_mask", json!(true));
    let masked = sample_image(&model, &[]);
    assert!(largest_difference(&masked, &sample_image(&bundle("sd"), &[])) > 1e-3);
    is_same_image(&masked, &sample_image_on("embedded", &model, &[]));
}
