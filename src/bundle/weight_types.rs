//! The types of a graph's weights, read from its ONNX file without their data.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

use super::BundleError;

/// A type with a smaller share of the weights, in percent, is not named.
const MIN_PERCENT: u64 = 5;

/// Returns the types of the weights, such as `float16`, the most frequent first.
pub(crate) fn weight_types(graph: &Path) -> Result<String, BundleError> {
    let file = File::open(graph).map_err(BundleError::reading(graph))?;
    let weights =
        ModelWeights::decode(ValueReader::from_file(file)).map_err(|error| BundleError::Content {
            path: graph.to_owned(),
            fault: format!("this is not a whole ONNX file ({error}); export it again"),
        })?;
    let mut counts = BTreeMap::<&str, u64>::new();
    for WeightInfo { data_type, elements } in weights.0 {
        let Some(name) = type_name(data_type) else { continue };
        *counts.entry(name).or_default() += elements;
    }
    let all: u64 = counts.values().sum();
    let mut counts: Vec<_> =
        counts.into_iter().filter(|(_, count)| count * 100 >= all * MIN_PERCENT).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names: Vec<_> = counts.iter().map(|(name, _)| *name).collect();
    Ok(if names.is_empty() { "no weights".to_owned() } else { names.join(" and ") })
}

/// The name of a type of weights; indices and flags are none. The numbers are those of ONNX's `TensorProto.DataType`.
fn type_name(data_type: i64) -> Option<&'static str> {
    Some(match data_type {
        1 => "float32",
        2 => "uint8",
        3 => "int8",
        10 => "float16",
        11 => "float64",
        16 => "bfloat16",
        17..=20 => "float8",
        21 | 22 => "int4",
        23 => "float4",
        _ => return None,
    })
}

/// The weights of a `ModelProto` or a `GraphProto`.
#[derive(Default)]
struct ModelWeights(Vec<WeightInfo>);

struct GraphWeights(Vec<WeightInfo>);

/// The type and size of a `TensorProto`.
struct WeightInfo {
    data_type: i64,
    elements: u64,
}

impl DecodeMessage for ModelWeights {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut model = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                7 => model.0 = GraphWeights::decode_field(&mut field)?.0,
                _ => field.skip()?,
            }
        }
        Ok(model)
    }
}

impl DecodeMessage for GraphWeights {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut weights = Vec::new();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                5 => weights.push(WeightInfo::decode_field(&mut field)?),
                _ => field.skip()?,
            }
        }
        Ok(Self(weights))
    }
}

impl DecodeMessage for WeightInfo {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut weight = Self { data_type: 0, elements: 1 };
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => {
                    for length in field.read_repeated_int64()? {
                        weight.elements = weight.elements.saturating_mul(u64::try_from(length?).unwrap_or(0));
                    }
                }
                2 => weight.data_type = i64::from(field.get_enum()?),
                _ => field.skip()?,
            }
        }
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> String {
        weight_types(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn the_types_of_weights_are_read_and_not_those_of_shapes() {
        assert_eq!(of("models/digits/unet/model.onnx"), "float32");
        assert_eq!(of("tests/golden/gaussian/unet/model.onnx"), "float64");
        assert!(weight_types(Path::new("/nonexistent.onnx")).is_err());
    }
}
