//! ONNX files, read without an engine and without their weights.

mod decode;
mod error;
mod external_data;
mod header;
mod live_graph;
mod model_files;
mod real_files;
mod representable;
mod rewrite;
pub(crate) mod rewriting;
mod topology;
mod widening;

pub(crate) use decode::decode_without_weights;
pub use error::OnnxError;
pub(crate) use error::decoding_fault;
pub(crate) use header::{Header, Operator};
pub(crate) use live_graph::{LiveGraphError, PLAIN, make_live, make_plain};
pub(crate) use model_files::ModelFiles;
pub(crate) use real_files::{OWN_VALUES, RealFiles};
pub(crate) use representable::lost_content;
pub(crate) use rewrite::{InlineData, Rewrite};
pub(crate) use rewriting::LoraLayers;
pub(crate) use topology::{Node, Topology};
pub(crate) use widening::{FLOAT16, STORED_TYPE, widen_float16, widen_values};
