//! Files of low-rank adaptation (LoRA, Hu et al. 2021) as matrices for the layers of a graph that take them as inputs.
//!
//! A layer that is adapted computes y = layer(x) + (x · a) · b, eq. 3 there, with a = Aᵀ and b = weight · α/r · Bᵀ. Knows
//! neither the graph nor the directory of the files: a file comes as bytes, and the layers as their names and lengths.

mod adapter;
mod error;
mod factors;
mod key;
mod low_rank;
mod metadata;
mod module_names;

pub(crate) use adapter::check_rank;
pub use adapter::{AdaptedLayer, Adapter, Matched};
pub use error::LoraError;
pub use key::Component;
pub use low_rank::LowRank;
