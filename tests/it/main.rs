//! The integration tests: the library, the program and the daemon, with real parts.
//!
//! Tests that need a broker, systemd's tools or a library of ONNX Runtime are behind the feature `system-tests`;
//! `tests/run` installs what they need and runs all of them. The others need nothing but Rust and a C linker.
//! The words after `tests/run` select tests by name: `tests/run soak`.
#![cfg_attr(not(feature = "system-tests"), allow(dead_code, unused_imports))]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod batching;
mod cli;
mod corpora;
mod demo;
mod doctor;
mod examples;
#[cfg(feature = "system-tests")]
mod exports;
mod figures;
#[cfg(feature = "system-tests")]
mod full_disk;
mod init;
mod latent;
mod mqtt_client;
#[cfg(feature = "system-tests")]
mod providers;
#[cfg(feature = "system-tests")]
mod retained;
#[cfg(feature = "system-tests")]
mod service;
#[cfg(feature = "system-tests")]
mod soak;
#[cfg(feature = "system-tests")]
mod spool;
mod surface;
#[cfg(feature = "system-tests")]
mod systemd;
#[cfg(feature = "system-tests")]
mod thermal;
#[cfg(feature = "system-tests")]
mod tls;
