//! Integration tests of the library, the program and the daemon.
//!
//! Tests that need a broker, systemd's tools or a library of ONNX Runtime are behind the feature `system-tests`;
//! `tests/run` installs what they need and runs all tests. The others need only Rust and a C linker.
//! `tests/run` passes its arguments to `cargo test`: `tests/run --test it soak` runs the tests of `soak.rs`.
#![cfg_attr(not(feature = "system-tests"), allow(dead_code, unused_imports))]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod batching;
mod bench;
#[cfg(feature = "system-tests")]
mod broker_limits;
#[cfg(feature = "system-tests")]
mod broker_settings;
#[cfg(feature = "system-tests")]
mod build_engines;
#[cfg(feature = "system-tests")]
mod cancellations;
mod cli;
mod configuration;
mod control;
mod corpora;
mod deadlines;
mod demo;
mod doctor;
mod doctor_boards;
#[cfg(feature = "system-tests")]
mod doctor_user;
mod embedded_receipts;
mod examples;
#[cfg(feature = "system-tests")]
mod exports;
#[cfg(feature = "system-tests")]
mod external_data;
mod families;
mod family_jobs;
mod few_steps;
mod figures;
#[cfg(feature = "system-tests")]
mod fleet;
#[cfg(feature = "system-tests")]
mod fleet_models;
mod folder;
mod folder_defaults;
mod followed_topics;
#[cfg(feature = "system-tests")]
mod full_disk;
#[cfg(feature = "system-tests")]
mod home_assistant;
#[cfg(feature = "system-tests")]
mod http;
mod init;
mod inspect;
mod latent;
mod live;
mod live_cases;
#[cfg(feature = "system-tests")]
mod load_errors;
mod memory;
mod missing_library;
mod model_defaults;
#[cfg(feature = "system-tests")]
mod models;
mod mqtt_client;
#[cfg(feature = "system-tests")]
mod prepared_graphs;
#[cfg(feature = "system-tests")]
mod providers;
#[cfg(feature = "system-tests")]
mod reconnection;
#[cfg(feature = "system-tests")]
mod reference;
mod replay;
mod replay_refusals;
#[cfg(feature = "system-tests")]
mod replayed_results;
#[cfg(feature = "system-tests")]
mod request_errors;
#[cfg(feature = "system-tests")]
mod retained;
#[cfg(feature = "system-tests")]
mod retained_commands;
mod sample_flags;
mod sample_inputs;
mod sample_job;
mod sample_refusals;
#[cfg(feature = "system-tests")]
mod second_prompts;
mod seeds;
mod service;
#[cfg(feature = "system-tests")]
mod signatures;
#[cfg(feature = "system-tests")]
mod soak;
#[cfg(feature = "system-tests")]
mod spool;
#[cfg(feature = "system-tests")]
mod stream;
mod surface;
#[cfg(feature = "system-tests")]
mod systemd;
#[cfg(feature = "system-tests")]
mod thermal;
#[cfg(feature = "system-tests")]
mod tls;
#[cfg(feature = "system-tests")]
mod warmup;
