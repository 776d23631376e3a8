//! The program's public surface as text, compared with the snapshots in `tests/surface/snapshots`: help, reports,
//! receipts, state and errors.
//!
//! A change is accepted with `cargo insta review`, or with `INSTA_UPDATE=always tests/run --test surface`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

#[path = "surface/daemon.rs"]
mod daemon;
#[path = "surface/doctor.rs"]
mod doctor;
#[path = "surface/errors.rs"]
mod errors;
#[path = "surface/failures.rs"]
mod failures;
#[path = "surface/help.rs"]
mod help;
#[path = "surface/inspect.rs"]
mod inspect;
#[path = "surface/receipts.rs"]
mod receipts;
#[path = "surface/snapshot.rs"]
mod snapshot;
