//! Helpers that several tests and benchmarks share.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

pub mod board;
pub mod broker;
pub mod bundles;
pub mod commands;
pub mod daemon;
pub mod fault_proxy;
pub mod gaussian_model;
pub mod http;
pub mod large_network;
pub mod live_fixtures;
pub mod mock_broker;
pub mod onnx_files;
pub mod onnx_graphs;
pub mod pipelines;
pub mod recorded_jobs;
pub mod small_disk;
pub mod subscriber;
pub mod systemd_notify;
pub mod thermal;

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn golden(path: &str) -> PathBuf {
    repository().join("tests/golden").join(path)
}

pub fn read_json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| {
        // `f32::max` ignores NaN, so a NaN counts as infinite.
        let difference = (a - b).abs();
        if difference.is_nan() { f32::INFINITY } else { difference }
    });
    differences.fold(0.0, f32::max)
}
