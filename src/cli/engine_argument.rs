//! The flag `--engine`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::model::EngineKind;

/// Parses an engine's name.
pub(super) fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    let names = PossibleValuesParser::new([
        PossibleValue::new("auto").help("ONNX Runtime if its library is found, else the embedded engine"),
        PossibleValue::new("onnxruntime").help("ONNX Runtime, or an error"),
        PossibleValue::new("embedded").help("The embedded engine, which needs no library"),
    ]);
    names.map(|name| match name.as_str() {
        "onnxruntime" => EngineKind::OnnxRuntime,
        "embedded" => EngineKind::Embedded,
        _ => EngineKind::Auto,
    })
}
