//! What to do about a graph that an engine cannot load or evaluate.

use crate::onnx::{ElementType, Header, Operator};

/// Advice for one cause.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) text: String,
    /// Whether the graph is at fault, so that every execution provider fails in the same way.
    pub(super) concerns_graph: bool,
}

impl Advice {
    fn graph(text: impl Into<String>) -> Self {
        Self { text: text.into(), concerns_graph: true }
    }

    fn provider(text: impl Into<String>) -> Self {
        Self { text: text.into(), concerns_graph: false }
    }
}

const USE_ONNX_RUNTIME: &str =
    "install ONNX Runtime and name its library in ORT_DYLIB_PATH or [engine] library";
const DAMAGED: &str = "The file is damaged: copy or download it again";
const MEMORY: &str =
    "Memory is short: close other programs, or set [engine] batch, vae_tile or memory to smaller values";
const LINKS: &str = "This version does not follow links out of the folder: copy the folder without links (cp -rL), or use \
     another version of ONNX Runtime";
const CONTRADICTION: &str = "The shapes or names in the graph contradict each other: export the model again";
const SHAPES: &str = "The shapes in the graph do not fit its inputs: use a size that the network can take, or export the \
     model again with dynamic axes";

/// Advice for a graph that ONNX Runtime of this version cannot load.
pub(super) fn onnx_runtime(version: &str, header: &Header, reason: &str) -> Advice {
    if is_out_of_memory(reason) {
        return Advice::provider(MEMORY);
    }
    let number = |before: &str| number_after(reason, before);
    if let (Some(own), Some(max)) = (number("Opset "), number(" is till opset ")) {
        let domain = reason.split("support for domain ").nth(1).and_then(|rest| rest.split(' ').next());
        return Advice::graph(format!(
            "The graph has opset {own} of {}, but ONNX Runtime {version} reads up to opset {max}: use a newer ONNX Runtime, \
             or export the model at opset {max} or lower",
            domain.unwrap_or("ai.onnx")
        ));
    }
    if let (Some(own), Some(max)) = (number("model IR version: "), number("max supported IR version: ")) {
        return Advice::graph(format!(
            "The file has IR version {own}, but ONNX Runtime {version} reads up to {max}: use a newer ONNX Runtime, or save \
             the model again with ir_version {max}"
        ));
    }
    let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    if says(&["escapes model directory"]) {
        return Advice::graph(LINKS);
    }
    if says(&["Protobuf parsing failed", "does not have a graph", "No graph was found"]) {
        return Advice::graph(DAMAGED);
    }
    if let Some(text) = compiled_for_a_device(header) {
        return Advice::provider(text);
    }
    if says(&[
        "is not a registered function/op",
        "No Op registered for",
        "Could not find an implementation for",
    ]) {
        return operator(version, header, reason);
    }
    if says(&["Type Error", "tensor(bfloat16)", "tensor(float8"]) {
        return Advice::graph(element_types(header).unwrap_or_else(|| CONTRADICTION.to_owned()));
    }
    if says(&["ShapeInferenceError", "is not a graph input", "Incompatible dimensions", "not in range [min="])
    {
        return Advice::graph(CONTRADICTION);
    }
    Advice::provider(format!(
        "If another version of ONNX Runtime loads this graph, use that one instead of {version}; if none does, export the \
         model again"
    ))
}

/// Advice for an operator that ONNX Runtime does not know, or has no implementation of.
fn operator(version: &str, header: &Header, reason: &str) -> Advice {
    let named = header.operators.iter().filter(|operator| {
        let after = |before: &str| reason.contains(&format!("{before}{}(", operator.name));
        after(&format!("{}:", operator.domain))
            || after("implementation for ")
            || reason.contains(&format!("registered for {} ", operator.name))
    });
    let Some(operator) = named.max_by_key(|operator| !operator.domain.is_empty()) else {
        return Advice::provider("Export the model again without this operator");
    };
    if let Some(text) = made_for_tensorrt(operator) {
        return Advice::provider(text);
    }
    let exists = reason.contains("Could not find an implementation for");
    if exists && let Some(text) = element_types(header) {
        return Advice::provider(text);
    }
    Advice::provider(match (operator.domain.as_str(), exists) {
        ("", true) => format!(
            "ONNX Runtime {version} has no implementation of {operator} for these types: use a newer ONNX Runtime, or export \
             the model in float32"
        ),
        (_, true) => format!(
            "{operator} is made for a GPU, and this processor has no implementation of it: set [engine] providers to the \
             provider that the graph was optimized for, or export the model without optimizations for a GPU"
        ),
        ("", false) => format!(
            "ONNX Runtime {version} has no operator {operator} in opset {}: use a newer ONNX Runtime, or export the model again",
            header.opset().unwrap_or_default()
        ),
        (_, false) => format!(
            "ONNX Runtime {version} has no operator {operator}, which another program or a library of custom operators \
             brings: export the model without it"
        ),
    })
}

/// Advice for a graph that the embedded engine cannot load.
pub(super) fn embedded(header: &Header, reason: &str) -> String {
    if is_out_of_memory(reason) {
        return MEMORY.to_owned();
    }
    if let Some(text) = compiled_for_a_device(header)
        .or_else(|| header.custom_operators().find_map(made_for_tensorrt).map(str::to_owned))
    {
        return text;
    }
    let says = |text: &str| reason.contains(text);
    if says("parse error") || says("unknown model file type") {
        return DAMAGED.to_owned();
    }
    if says("operator not supported") || says("operator not enabled") {
        return format!("The embedded engine lacks this operator: {USE_ONNX_RUNTIME}");
    }
    if let Some(text) = element_types(header).filter(|_| says("unsupported data type")) {
        return format!("{text}, or {USE_ONNX_RUNTIME}");
    }
    if says("opset version") {
        return format!(
            "The graph is too old for the embedded engine: export it at opset 17, or {USE_ONNX_RUNTIME}"
        );
    }
    if says("does not match shape") {
        return CONTRADICTION.to_owned();
    }
    format!("The embedded engine does not serve all of ONNX: {USE_ONNX_RUNTIME}")
}

/// Advice for an evaluation that failed, if its message shows the cause.
pub(super) fn evaluation(reason: &str) -> Option<String> {
    let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    if is_out_of_memory(reason) {
        return Some(MEMORY.to_owned());
    }
    if says(&["unsupported input", "unsupported output"]) {
        return Some(format!("The embedded engine does not serve this: {USE_ONNX_RUNTIME}"));
    }
    let about_shapes = [
        "incompatible input shapes",
        "Invalid rank for input",
        "cannot be reshaped",
        "kernel channels",
        "broadcast",
        "Incompatible",
        "ShapeInferenceError",
        "dimension",
    ];
    says(&about_shapes).then(|| SHAPES.to_owned())
}

/// A message with advice after it, if there is any.
pub(super) fn with_advice(message: &str, advice: Option<String>) -> String {
    let message = message.trim().trim_end_matches('.');
    advice.map_or_else(|| message.to_owned(), |advice| format!("{message}. {advice}"))
}

fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["allocate memory", "bad_alloc", "bad allocation", "out of memory", "alloc_failed"]
        .iter()
        .any(|text| reason.contains(text))
}

/// The number after a text.
fn number_after(reason: &str, before: &str) -> Option<u32> {
    let rest = reason.split(before).nth(1)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn compiled_for_a_device(header: &Header) -> Option<String> {
    let is_context = |operator: &&Operator| operator.name == "EPContext";
    header.operators.iter().find(is_context).map(|_| {
        "The graph holds an engine that was compiled for one device (EPContext): use the graph that it was compiled from"
            .to_owned()
    })
}

fn made_for_tensorrt(operator: &Operator) -> Option<&'static str> {
    (operator.domain == "trt.plugins").then_some(
        "This operator is a plugin of TensorRT, which no other engine has: export the model without plugins",
    )
}

/// Advice for element types that engines serve on few devices only.
fn element_types(header: &Header) -> Option<String> {
    let types: Vec<_> =
        header.element_types.iter().filter(|kind| kind.is_uncommon()).map(ElementType::to_string).collect();
    (!types.is_empty()).then(|| {
        format!(
            "The graph computes with {}, which few engines do: export the model in float16 or float32",
            types.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(domain: &str, name: &str, types: &[i32]) -> Header {
        Header {
            opsets: vec![(String::new(), 17)],
            operators: [Operator { domain: domain.to_owned(), name: name.to_owned() }].into(),
            element_types: types.iter().map(|&kind| ElementType(kind)).collect(),
            ..Header::default()
        }
    }

    #[test]
    fn advice_of_onnx_runtime_fits_its_message() {
        for (domain, operator, types, reason, expected) in [
            (
                "",
                "Relu",
                &[1][..],
                "Opset 27 is under development and support for this is limited. Current official support for domain \
                 ai.onnx is till opset 25.",
                "The graph has opset 27 of ai.onnx, but ONNX Runtime 1.24.1 reads up to opset 25",
            ),
            (
                "",
                "Relu",
                &[1],
                "Unsupported model IR version: 14, max supported IR version: 13",
                "The file has IR version 14, but ONNX Runtime 1.24.1 reads up to 13",
            ),
            (
                "",
                "Relu",
                &[1],
                "External data path: \"x\" escapes model directory: \"/m\"",
                "copy the folder without links",
            ),
            ("", "Relu", &[1], "Protobuf parsing failed.", "The file is damaged"),
            (
                "",
                "Swish",
                &[1],
                "Error No Op registered for Swish with domain_version of 17",
                "has no operator Swish in opset 17: use a newer ONNX Runtime",
            ),
            (
                "com.microsoft",
                "Frobnicate",
                &[1],
                "Fatal error: com.microsoft:Frobnicate(-1) is not a registered function/op",
                "has no operator com.microsoft:Frobnicate, which another program",
            ),
            (
                "com.microsoft",
                "GroupNorm",
                &[1],
                "Could not find an implementation for GroupNorm(1) node with name ''",
                "com.microsoft:GroupNorm is made for a GPU",
            ),
            (
                "trt.plugins",
                "Q",
                &[1],
                "Fatal error: trt.plugins:Q(-1) is not a registered function/op",
                "a plugin of TensorRT",
            ),
            (
                "com.microsoft",
                "EPContext",
                &[1],
                "Could not find an implementation for EPContext(1) node with name ''",
                "compiled for one device",
            ),
            (
                "",
                "Add",
                &[1, 16],
                "Could not find an implementation for Add(14) node with name ''",
                "computes with bfloat16, which few engines do: export the model in float16 or float32",
            ),
            (
                "",
                "Relu",
                &[17],
                "Type Error: Type 'tensor(float8e4m3fn)' of input parameter (c) of operator (Relu) in node () is invalid.",
                "computes with float8e4m3fn",
            ),
            (
                "",
                "MatMul",
                &[1],
                "Node () Op (MatMul) [ShapeInferenceError] Incompatible dimensions",
                "contradict each other",
            ),
            ("", "Relu", &[1], "std::bad_alloc", "Memory is short"),
            ("", "Relu", &[1], "something else", "If another version of ONNX Runtime loads this graph"),
        ] {
            let advice = onnx_runtime("1.24.1", &header(domain, operator, types), reason).text;
            assert!(advice.contains(expected), "{reason}: {advice}");
        }
    }

    #[test]
    fn advice_of_the_embedded_engine_fits_its_message() {
        for (domain, types, reason, expected) in [
            (
                "",
                &[1][..],
                "operator error: GroupNormalization operator not supported or not enabled",
                "lacks this operator",
            ),
            (
                "",
                &[1, 16],
                "graph error: initializer has unsupported data type BFLOAT16",
                "computes with bfloat16",
            ),
            ("", &[1], "parse error: unexpected end", "The file is damaged"),
            (
                "",
                &[1],
                "Resize operator uses opset version 10 but only version 11 and later",
                "export it at opset 17",
            ),
            ("", &[1], "error in attribute \"mode\": unsupported value", "does not serve all of ONNX"),
            (
                "trt.plugins",
                &[1],
                "trt.plugins/Q operator not supported or not enabled",
                "a plugin of TensorRT",
            ),
        ] {
            let advice = embedded(&header(domain, "Q", types), reason);
            assert!(advice.contains(expected), "{reason}: {advice}");
        }
    }

    #[test]
    fn an_evaluation_gets_advice_only_if_its_message_shows_the_cause() {
        for (reason, expected) in [
            ("operator \"Concat\" failed: incompatible input shapes: dim 2", Some(SHAPES)),
            ("Failed to allocate memory for requested buffer of size 8", Some(MEMORY)),
            ("CUDA failure 100", None),
        ] {
            assert_eq!(evaluation(reason).as_deref(), expected, "{reason}");
        }
        assert_eq!(with_advice("a failed.\n", Some("Do b".to_owned())), "a failed. Do b");
    }
}
