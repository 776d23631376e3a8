//! Compares what users see with the snapshots in `tests/it/surface/snapshots`: help, reports, receipts, state and
//! errors.
//!
//! A change is accepted with `cargo insta review`, or with `INSTA_UPDATE=always tests/run --test it surface`.

mod daemon;
mod doctor;
mod errors;
mod failures;
mod help;
mod inspect;
mod receipts;
mod snapshot;
