//! What the convolutions of a graph show where no config.json describes it: the channels of its input, and by how much it
//! changes the size of an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

use super::BundleError;

/// The nodes of a graph, and the shapes of its weights.
#[derive(Default)]
pub(super) struct Convolutions {
    nodes: Vec<Node>,
    weights: BTreeMap<String, Vec<i64>>,
}

impl Convolutions {
    /// Reads a graph without its weights.
    pub(super) fn read(graph: &Path) -> Result<Self, BundleError> {
        let file = File::open(graph).map_err(BundleError::reading(graph))?;
        let model =
            ModelNodes::decode(ValueReader::from_file(file)).map_err(|error| BundleError::Content {
                path: graph.to_owned(),
                fault: format!("this is not a whole ONNX file ({error}); export it again"),
            })?;
        Ok(model.0)
    }

    /// The channels of an input, by the weights of the convolution that takes it.
    pub(super) fn input_channels(&self, input: &str) -> Option<usize> {
        let mut same = BTreeSet::from([input]);
        for node in &self.nodes {
            if !node.inputs.first().is_some_and(|first| same.contains(first.as_str())) {
                continue;
            }
            match node.operator.as_str() {
                "Cast" | "Identity" => same.extend(node.outputs.iter().map(String::as_str)),
                "Conv" => {
                    let weight = self.weights.get(node.inputs.get(1)?)?;
                    return usize::try_from(weight.get(1)? * node.group.unwrap_or(1)).ok();
                }
                _ => {}
            }
        }
        None
    }

    /// The number of rows of the embedding that an input of labels selects from.
    pub(super) fn embedding_rows(&self, input: &str) -> Option<usize> {
        let mut same = BTreeSet::from([input]);
        for node in &self.nodes {
            let selects = |at: usize| node.inputs.get(at).is_some_and(|name| same.contains(name.as_str()));
            match node.operator.as_str() {
                "Cast" | "Identity" if selects(0) => same.extend(node.outputs.iter().map(String::as_str)),
                "Gather" if selects(1) => {
                    let rows = self.weights.get(node.inputs.first()?)?.first()?;
                    return usize::try_from(*rows).ok();
                }
                _ => {}
            }
        }
        None
    }

    /// By how much the graph of an autoencoder's encoder or decoder changes the height of its input. `None` if nothing in
    /// it does.
    pub(super) fn scale(&self) -> Option<usize> {
        let factor = |node: &Node| match node.operator.as_str() {
            "Conv" | "ConvTranspose" | "AveragePool" | "MaxPool" => {
                node.strides.first().and_then(|stride| usize::try_from(*stride).ok()).unwrap_or(1)
            }
            // Autoencoders double the size.
            "Resize" | "Upsample" => 2,
            "DepthToSpace" | "SpaceToDepth" => node.block_size.unwrap_or(1),
            _ => 1,
        };
        let scale = self.nodes.iter().map(factor).product();
        (scale > 1).then_some(scale)
    }
}

/// A `NodeProto`.
#[derive(Default)]
struct Node {
    operator: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    strides: Vec<i64>,
    group: Option<i64>,
    block_size: Option<usize>,
}

/// The graph of a `ModelProto`.
struct ModelNodes(Convolutions);

/// The name and shape of a `TensorProto`.
#[derive(Default)]
struct Weight {
    name: String,
    shape: Vec<i64>,
}

/// An `AttributeProto` of whole numbers.
#[derive(Default)]
struct Attribute {
    name: String,
    number: Option<i64>,
    numbers: Vec<i64>,
}

impl DecodeMessage for ModelNodes {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Convolutions::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => graph = Convolutions::decode_field(&mut field)?,
                _ => field.skip()?,
            }
        }
        Ok(Self(graph))
    }
}

impl DecodeMessage for Convolutions {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut graph = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => graph.nodes.push(Node::decode_field(&mut field)?),
                5 => {
                    let weight = Weight::decode_field(&mut field)?;
                    graph.weights.insert(weight.name, weight.shape);
                }
                _ => field.skip()?,
            }
        }
        Ok(graph)
    }
}

impl DecodeMessage for Node {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut node = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => node.inputs.push(field.read_string()?),
                2 => node.outputs.push(field.read_string()?),
                4 => node.operator = field.read_string()?,
                5 => {
                    let attribute = Attribute::decode_field(&mut field)?;
                    match attribute.name.as_str() {
                        "strides" => node.strides = attribute.numbers,
                        "group" => node.group = attribute.number,
                        "blocksize" => {
                            node.block_size = attribute.number.and_then(|n| usize::try_from(n).ok())
                        }
                        _ => {}
                    }
                }
                _ => field.skip()?,
            }
        }
        Ok(node)
    }
}

impl DecodeMessage for Attribute {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut attribute = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => attribute.name = field.read_string()?,
                3 => attribute.number = Some(field.get_int64()?),
                8 => {
                    for number in field.read_repeated_int64()? {
                        attribute.numbers.push(number?);
                    }
                }
                _ => field.skip()?,
            }
        }
        Ok(attribute)
    }
}

impl DecodeMessage for Weight {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut weight = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    for length in field.read_repeated_int64()? {
                        weight.shape.push(length?);
                    }
                }
                8 => weight.name = field.read_string()?,
                _ => field.skip()?,
            }
        }
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(graph: &str) -> Convolutions {
        let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles");
        Convolutions::read(&bundles.join(graph).join("model.onnx")).unwrap()
    }

    #[test]
    fn the_channels_and_the_scale_are_those_that_the_configurations_give() {
        assert_eq!(golden("sd/unet").input_channels("sample"), Some(4));
        assert_eq!(golden("sd_inpaint/unet").input_channels("sample"), Some(9));
        assert_eq!(golden("sd3/vae_decoder").input_channels("latent_sample"), Some(16));
        assert_eq!(golden("sd/unet").input_channels("timestep"), None);
        for graph in ["sd/vae_encoder", "sd/vae_decoder", "sd3/vae_encoder", "flux/vae_decoder"] {
            assert_eq!(golden(graph).scale(), Some(2), "{graph}");
        }
        assert_eq!(golden("sd/text_encoder").scale(), None);
    }
}
