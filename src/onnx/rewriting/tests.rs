//! The passes on small graphs, on exported ones, and against ONNX Runtime.

mod blocks;
mod exports;
mod forms;
mod graph;
#[cfg(feature = "system-tests")]
mod inferred;
#[cfg(feature = "system-tests")]
mod live_inputs;
#[cfg(feature = "system-tests")]
mod numbers;
#[cfg(feature = "system-tests")]
mod onnx_runtime;
