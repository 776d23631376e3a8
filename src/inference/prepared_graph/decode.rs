//! Decodes an exported graph without its weights.

use rten_onnx::onnx::ModelProto;

use crate::onnx::{InlineData, ModelFiles, OWN_VALUES, Rewrite, decoding_fault, lost_content};

use super::external_tensors::hoist_constants;

/// Decodes a graph. Values in the ONNX file become external values with the location [`OWN_VALUES`].
///
/// Fails with a reason if the graph cannot be encoded again without loss.
pub(super) fn decode(files: &ModelFiles) -> Result<ModelProto, String> {
    let rewrite =
        Rewrite { inline: InlineData::External(OWN_VALUES), location: &|location| location.to_owned() };
    let copy = rewrite.apply(&files.graph).map_err(|error| decoding_fault(&error))?;
    if let Some(content) = lost_content(&copy.bytes).map_err(|error| decoding_fault(&error))? {
        return Err(format!("it has {content}"));
    }
    let mut model = ModelProto::parse_buf(&copy.bytes).map_err(|error| decoding_fault(&error))?;
    model.graph.iter_mut().for_each(hoist_constants);
    Ok(model)
}
