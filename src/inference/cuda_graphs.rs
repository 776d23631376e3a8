//! Which evaluations become CUDA graphs. Knows neither engines nor GPUs.

mod batch_ladder;
mod capture_plan;
mod capture_status;
mod replay_check;

pub(crate) use batch_ladder::padded_batch;
pub(super) use capture_plan::{Action, CapturePlan, EvaluationShape};
pub(crate) use capture_status::CaptureStatus;
pub(super) use replay_check::{OtherValues, difference};
