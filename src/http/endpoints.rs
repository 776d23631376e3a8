//! The endpoints: one file for each.

pub(super) mod edits;
pub(super) mod generations;
pub(super) mod healthz;
pub(super) mod metrics;
pub(super) mod models;
pub(super) mod page;
pub(super) mod state;
