//! How a text encoder's graph is fed and read, found from names, shapes and types.

use std::path::Path;

use serde::Deserialize;

use super::BundleError;
use super::json_file::read_or_default;
use super::signature::{LiveInputs, SignatureError, integer, list, number, unsupported};
use crate::tensor::{Dim, GraphIo, ValueInfo};

/// How a text encoder is fed and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextEncoderIo {
    /// The input for the token ids.
    pub ids: String,
    /// The input for the attention mask.
    pub mask: Option<String>,
    /// The input for the positions of the tokens.
    pub positions: Option<String>,
    /// The input for BERT's token types.
    pub token_types: Option<String>,
    /// The number of prompts in one evaluation.
    pub batch: usize,
    /// The number of tokens, if the graph fixes it.
    pub length: Option<usize>,
    /// The output of the last layer, with the final norm.
    pub last: Option<String>,
    /// The outputs of all layers, in their order. The first one holds the token embeddings.
    pub hidden: Vec<String>,
    /// The output for the pooled embedding.
    pub pooled: Option<String>,
    /// The width of the embeddings, if the graph fixes it.
    pub width: Option<usize>,
    /// The width of the pooled embedding, if the graph fixes it.
    pub pooled_width: Option<usize>,
    /// The inputs that LoRAs fill.
    pub live: LiveInputs,
}

/// The keys of a text encoder's config.json that change how its graph is fed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextEncoderConfig {
    /// Whether padding is masked. Stable Diffusion's pipelines mask nothing without this key.
    pub use_attention_mask: bool,
    /// The id of the token at which CLIP pools.
    pub eos_token_id: Option<i64>,
    /// The largest number of tokens.
    pub max_position_embeddings: Option<usize>,
    /// The width of the embeddings.
    pub hidden_size: Option<usize>,
    /// The width of CLIP's projected embedding.
    pub projection_dim: Option<usize>,
    /// The number of tokens in the vocabulary.
    pub vocab_size: Option<usize>,
    /// The number of layers.
    pub num_hidden_layers: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TextEncoderFile {
    use_attention_mask: Option<bool>,
    /// A list in the configurations of some other models.
    eos_token_id: serde_json::Value,
    max_position_embeddings: serde_json::Value,
    hidden_size: serde_json::Value,
    /// T5's name of `hidden_size`.
    d_model: serde_json::Value,
    projection_dim: serde_json::Value,
    vocab_size: Option<usize>,
    num_hidden_layers: serde_json::Value,
}

impl TextEncoderConfig {
    /// Reads the config.json beside a text encoder's graph.
    pub fn read(graph: &Path) -> Result<Self, BundleError> {
        let file: TextEncoderFile = read_or_default(&graph.with_file_name("config.json"))?;
        let number = |value: &serde_json::Value| usize::try_from(value.as_u64()?).ok();
        Ok(Self {
            use_attention_mask: file.use_attention_mask.unwrap_or(false),
            eos_token_id: file.eos_token_id.as_i64(),
            max_position_embeddings: number(&file.max_position_embeddings),
            hidden_size: number(&file.hidden_size).or(number(&file.d_model)),
            projection_dim: number(&file.projection_dim),
            vocab_size: file.vocab_size,
            num_hidden_layers: number(&file.num_hidden_layers),
        })
    }
}

const IDS_NAMES: [&str; 3] = ["input_ids", "tokens", "text_input_ids"];
const LAST_NAMES: [&str; 3] = ["last_hidden_state", "prompt_embeds", "hidden_states"];
const POOLED_NAMES: [&str; 3] = ["text_embeds", "pooler_output", "pooled_output"];

impl TextEncoderIo {
    /// Finds the meaning of each input and output.
    pub fn resolve(graph: &GraphIo) -> Result<Self, SignatureError> {
        let named = |names: &[&str]| graph.inputs.iter().find(|input| names.contains(&input.name.as_str()));
        let mask = named(&["attention_mask"]);
        let positions = named(&["position_ids"]);
        let token_types = named(&["token_type_ids"]);
        let others: Vec<&ValueInfo> = [mask, positions, token_types].into_iter().flatten().collect();
        let is_other = |input: &ValueInfo| others.iter().any(|other| other.name == input.name);
        let unnamed = || graph.inputs.iter().find(|input| !is_other(input) && input.shape.len() == 2);
        let Some(ids) = named(&IDS_NAMES).or_else(unnamed) else {
            return Err(SignatureError::NoTokenIds { inputs: list(&graph.inputs) });
        };
        integer(ids)?;
        let is_known = |input: &ValueInfo| input.name == ids.name || is_other(input);
        let live = LiveInputs::find(graph, is_known);
        let is_unknown = |input: &&ValueInfo| !is_known(input) && !live.contains(&input.name);
        if let Some(unknown) = graph.inputs.iter().find(is_unknown) {
            return Err(unsupported(unknown, unknown_input(&unknown.name)));
        }
        let (mut batch, mut length) = (None, None);
        for input in [ids].into_iter().chain(others) {
            let [rows, tokens] = input.shape.as_slice() else {
                return Err(unsupported(input, "it has other axes than the batch and the tokens"));
            };
            number(input)?;
            agree(input, "batch", rows, &mut batch)?;
            agree(input, "token", tokens, &mut length)?;
        }
        let hidden = hidden_layers(&graph.outputs);
        let last = output(&graph.outputs, &LAST_NAMES, 3)?;
        let pooled = output(&graph.outputs, &POOLED_NAMES, 2)?;
        let layers = || graph.outputs.iter().find(|output| hidden.contains(&output.name));
        let name = |output: &ValueInfo| output.name.clone();
        Ok(Self {
            ids: ids.name.clone(),
            mask: mask.map(name),
            positions: positions.map(name),
            token_types: token_types.map(name),
            batch: batch.unwrap_or(1),
            length,
            width: last.or_else(layers).and_then(|output| output.shape.get(2)?.length()),
            last: last.map(name),
            pooled_width: pooled.and_then(|output| output.shape.get(1)?.length()),
            pooled: pooled.map(name),
            hidden,
            live,
        })
    }
}

impl TextEncoderIo {
    /// The output of the layer with this number, counted from 1.
    pub(crate) fn hidden_layer(&self, number: usize) -> Option<&str> {
        self.hidden.iter().find(|name| layer_index(name) == Some(number)).map(String::as_str)
    }
}

fn unknown_input(name: &str) -> &'static str {
    match name {
        name if name.starts_with("decoder_") => {
            "it belongs to a decoder, but only the encoder is evaluated; export the encoder alone"
        }
        "pixel_values" => "it takes an image; export CLIP's text model alone",
        name if name.starts_with("past_key_values") => {
            "it belongs to a cache of text generation; export the model without past keys and values"
        }
        _ => "a text encoder is fed with token ids and an attention mask; export it without further inputs",
    }
}

/// Checks that an axis has the length that other inputs have.
fn agree(input: &ValueInfo, axis: &str, own: &Dim, known: &mut Option<usize>) -> Result<(), SignatureError> {
    match (*known, own.length()) {
        (_, Some(0)) => Err(unsupported(input, format!("its {axis} axis has length 0"))),
        (Some(known), Some(own)) if known != own => {
            let reason = format!("its {axis} axis has length {own}, but that of another input has {known}");
            Err(unsupported(input, reason))
        }
        (_, own) => {
            *known = known.or(own);
            Ok(())
        }
    }
}

/// The output with one of these names, or else the only one with this number of axes that is no layer.
fn output<'a>(
    outputs: &'a [ValueInfo],
    names: &[&str],
    rank: usize,
) -> Result<Option<&'a ValueInfo>, SignatureError> {
    let named = names.iter().find_map(|name| outputs.iter().find(|output| output.name == *name));
    if let Some(output) = named {
        if !output.shape.is_empty() && output.shape.len() != rank {
            return Err(SignatureError::NoSuitableOutput {
                expected: format!("{} with {rank} axes", output.name),
                outputs: list(outputs),
                advice: "Export the text encoder again",
            });
        }
        return Ok(Some(output));
    }
    let is_candidate = |output: &&ValueInfo| {
        output.shape.len() == rank && !output.element.is_integer() && layer_index(&output.name).is_none()
    };
    let mut candidates = outputs.iter().filter(is_candidate);
    Ok(candidates.next().filter(|_| candidates.next().is_none()))
}

/// The index in a name such as hidden_states.3.
fn layer_index(name: &str) -> Option<usize> {
    name.strip_prefix("hidden_states.")?.parse().ok()
}

fn hidden_layers(outputs: &[ValueInfo]) -> Vec<String> {
    let mut layers: Vec<_> =
        outputs.iter().filter_map(|output| Some((layer_index(&output.name)?, output.name.clone()))).collect();
    layers.sort();
    layers.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn graph(inputs: Vec<ValueInfo>) -> GraphIo {
        let rows = |name: &str| ValueInfo::with_axes(name, DataType::F32, &[None, None, Some(8)]);
        let outputs = [
            ValueInfo::with_axes("text_embeds", DataType::F32, &[None, None]),
            rows("last_hidden_state"),
            rows("hidden_states.10"),
            rows("hidden_states.9"),
        ];
        GraphIo { inputs, outputs: outputs.into() }
    }

    #[test]
    fn every_input_of_a_text_encoder_is_known() {
        let ids = ValueInfo::with_axes("input_ids", DataType::I32, &[Some(2), Some(77)]);
        let mask = ValueInfo::with_axes("attention_mask", DataType::I64, &[None, None]);
        let io = TextEncoderIo::resolve(&graph(vec![mask, ids.clone()])).unwrap();
        assert_eq!((io.ids.as_str(), io.mask.as_deref()), ("input_ids", Some("attention_mask")));
        assert_eq!((io.batch, io.length, io.width, io.pooled_width), (2, Some(77), Some(8), None));
        assert_eq!(io.hidden, ["hidden_states.9", "hidden_states.10"]);
        let positions = ValueInfo::with_axes("position_ids", DataType::I64, &[Some(2), Some(16)]);
        let error = TextEncoderIo::resolve(&graph(vec![ids, positions])).unwrap_err().to_string();
        assert!(error.contains("position_ids") && error.contains("token axis has length 16"), "{error}");
    }

    #[test]
    fn outputs_are_found_by_their_axes() {
        let inputs = vec![ValueInfo::with_axes("x", DataType::I64, &[None, None])];
        let outputs = vec![
            ValueInfo::with_axes("pool", DataType::F32, &[None, Some(4)]),
            ValueInfo::with_axes("rows", DataType::F16, &[None, None, Some(8)]),
        ];
        let io = TextEncoderIo::resolve(&GraphIo { inputs, outputs }).unwrap();
        assert_eq!((io.last.as_deref(), io.pooled.as_deref()), (Some("rows"), Some("pool")));
        assert_eq!((io.width, io.pooled_width), (Some(8), Some(4)));
    }

    #[test]
    fn inputs_that_nothing_fills_are_refused() {
        let ids = || ValueInfo::with_axes("input_ids", DataType::I64, &[None, None]);
        for (input, expected) in [
            (
                ValueInfo::with_axes("decoder_input_ids", DataType::I64, &[None, None]),
                "export the encoder alone",
            ),
            (
                ValueInfo::with_axes("pixel_values", DataType::F32, &[None, Some(3), None, None]),
                "text model alone",
            ),
            (
                ValueInfo::with_axes("attention_mask", DataType::from_onnx(9), &[None, None]),
                "its type must be float32, float16, int64 or int32",
            ),
            (
                ValueInfo::with_axes("attention_mask", DataType::F32, &[None, Some(1), None, None]),
                "other axes",
            ),
            (ValueInfo::with_axes("mystery", DataType::F32, &[None]), "without further inputs"),
        ] {
            let name = input.name.clone();
            let error = TextEncoderIo::resolve(&graph(vec![ids(), input])).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains(expected), "{error}");
        }
        let float = ValueInfo::with_axes("input_ids", DataType::F32, &[None, None]);
        assert!(TextEncoderIo::resolve(&graph(vec![float])).is_err());
        assert!(TextEncoderIo::resolve(&graph(Vec::new())).is_err());
    }
}
