//! Runs an ONNX graph; knows no diffusion.

pub(crate) mod engine_cache;
pub mod host;
pub(crate) mod load;
pub(crate) mod onnx_runtime;
pub(crate) mod provider;
pub(crate) mod rten;
pub(crate) mod session;
pub(crate) mod session_pool;
