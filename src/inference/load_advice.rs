//! What to do about a graph that an engine cannot load or evaluate.

use crate::onnx::{Header, Operator};
use crate::tensor::ElementType;

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
const LINKS: &str = "This version does not follow links out of the folder: copy the folder without links (cp -rL), or \
     use another version of ONNX Runtime";
const FOREIGN: &str =
    "which another program or a library of custom operators brings: export the model without it";
const CONTRADICTION: &str =
    "The shapes, types or names in the graph contradict each other: export the model again";
const SHAPES: &str = "The shapes in the graph do not fit its inputs: use a size that the network can take, or export the \
     model again with dynamic axes";

/// Advice for a graph that ONNX Runtime of this version cannot load.
pub(super) fn onnx_runtime(version: &str, header: &Header, reason: &str) -> Advice {
    if is_out_of_memory(reason) {
        return Advice::provider(MEMORY);
    }
    if let Some(max) = number_after(reason, " is newer than opset ") {
        return Advice::graph(format!(
            "Use a newer ONNX Runtime than {version}, or export the model at opset {max} or lower"
        ));
    }
    if let Some(max) = number_after(reason, " is newer than IR version ") {
        return Advice::graph(format!(
            "Use a newer ONNX Runtime than {version}, or save the model again with ir_version {max}"
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
        "If another version of ONNX Runtime loads this graph, use that one instead of {version}; if none does, export \
         the model again"
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
            "ONNX Runtime {version} has no implementation of {operator} for these types: use a newer ONNX Runtime, or \
             export the model in float32"
        ),
        (_, true) => format!(
            "{operator} is made for a GPU, and this processor has no implementation of it: set [engine] providers to the \
             provider that the graph was optimized for, or export the model without optimizations for a GPU"
        ),
        ("", false) => format!(
            "ONNX Runtime {version} has no operator {operator} in opset {}: use a newer ONNX Runtime, or export the \
             model again",
            header.opset().unwrap_or_default()
        ),
        (_, false) => format!("ONNX Runtime {version} has no operator {operator}, {FOREIGN}"),
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
    if let Some(operator) = header.custom_operators().find(|operator| !is_of_onnx_runtime(operator)) {
        return format!("No engine here has the operator {operator}, {FOREIGN}");
    }
    let says = |text: &str| reason.contains(text);
    let is_damaged = ["parse error", "unknown model file type", "it ends early", "its contents are damaged"];
    if is_damaged.iter().any(|text| says(text)) {
        return DAMAGED.to_owned();
    }
    if let Some((before, _)) = reason.split_once(" operator not ") {
        let operator = before.rsplit(' ').next().unwrap_or_default().replacen('/', ":", 1);
        let is_function = header.functions.iter().any(|function| function.to_string() == operator);
        let lacks = if is_function { "does not expand the function" } else { "has no operator" };
        return format!("The embedded engine {lacks} {operator}: {USE_ONNX_RUNTIME}");
    }
    if let Some(text) = element_types(header).filter(|_| says("unsupported data type")) {
        return format!("{text}, or {USE_ONNX_RUNTIME}");
    }
    if says("opset version") {
        return format!(
            "The graph is too old for the embedded engine: export it at opset 17, or {USE_ONNX_RUNTIME}"
        );
    }
    if says("does not match shape") || says("Missing input") {
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

/// Whether ONNX Runtime has operators of this domain.
fn is_of_onnx_runtime(operator: &Operator) -> bool {
    ["com.microsoft", "com.ms.", "ai.onnx"].iter().any(|domain| operator.domain.starts_with(domain))
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
mod tests;
