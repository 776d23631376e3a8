//! ONNX files, read without an engine and without their weights.

mod element_type;
mod error;
mod external_data;
mod header;
mod model_files;
mod rewrite;
#[allow(dead_code, unused_imports, reason = "prepared graphs call it")]
mod rewriting;
mod topology;

pub(crate) use element_type::ElementType;
pub use error::OnnxError;
pub(crate) use header::{Header, Operator};
pub(crate) use model_files::ModelFiles;
pub(crate) use rewrite::{InlineData, Rewrite};
pub(crate) use topology::{Node, Topology};
