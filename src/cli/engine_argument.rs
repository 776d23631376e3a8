//! The flag `--engine`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::inference::EngineKind;

/// Parses an engine's name.
pub(super) fn engine_kind() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(["auto", "onnxruntime", "embedded"]).map(|name| match name.as_str() {
        "onnxruntime" => EngineKind::OnnxRuntime,
        "embedded" => EngineKind::Embedded,
        _ => EngineKind::Auto,
    })
}
