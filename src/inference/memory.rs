//! The memory of sessions: what bounds it, what was measured, and what an evaluation needs.

mod bounds;
mod estimate;
mod growth;
mod measurements;
mod session_memory;
mod throughput;
mod working_memory;

pub use bounds::{MemoryBounds, ResidentMemory};
pub(crate) use session_memory::MeasuredGraph;
pub use session_memory::SessionMemory;
pub use working_memory::EvaluationSize;
