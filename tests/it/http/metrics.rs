//! The metrics, read line by line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Served;
use crate::common::board::Tree;
use crate::common::broker::publish;
use crate::common::thermal::set_temperature;

/// Checks the text against Prometheus' exposition format 0.0.4, and returns the values by name and labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut values, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name, kind).is_none(), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let is_part = |suffix: &str| {
            name.strip_suffix(suffix).is_some_and(|name| types.get(name) == Some(&"histogram"))
        };
        assert!(types.contains_key(name) || ["_bucket", "_sum", "_count"].into_iter().any(is_part), "{line}");
        assert!(name.starts_with("denoised_") || name == "process_resident_memory_bytes", "{line}");
        assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
    }
    assert!(types.keys().all(|name| helped.contains(name)));
    values
}

#[test]
fn the_metrics_count_the_jobs_of_all_interfaces() {
    let mut served = Served::start("");
    for seed in 0..3 {
        served.http.generate(&json!({"prompt": "", "seed": seed, "steps": 4, "n": 2})).image(1);
    }
    let job = json!({"id": "mqtt", "model": "gaussian", "steps": 5});
    served.image_over_mqtt(&job);
    served.subscriber.on("denoised/test/result/mqtt");
    assert_eq!(served.http.generate(&json!({"colour": 1})).status, 400);
    assert_eq!(served.http.generate(&json!({"n": 11})).status, 400);
    assert_eq!(served.http.generate(&json!({"model": "x", "prompt": ""})).status, 404);
    served.request(&json!({"id": "late", "model": "gaussian", "steps": 1000, "sampler": "ddpm", "count": 8}));
    served.subscriber.on("denoised/test/progress/late");
    publish(&served.broker, "denoised/test/cancel", r#"{"id": "late"}"#, &[]);
    served.subscriber.on("denoised/test/error/late");
    // The next states have no job and the latency.
    served
        .subscriber
        .next(|m| m.topic.ends_with("/state") && m.json()["queue"] == 0 && !m.json()["ms_per_nfe"].is_null());

    let response = served.http.get("/metrics");
    assert!(response.headers.contains("content-type: text/plain; version=0.0.4"), "{}", response.headers);
    let values = parse(&response.text());
    for (series, value) in [
        (r#"denoised_jobs_total{model="digits",outcome="finished"}"#, 3.0),
        (r#"denoised_jobs_total{model="digits",outcome="failed"}"#, 0.0),
        (r#"denoised_jobs_total{model="gaussian",outcome="finished"}"#, 1.0),
        (r#"denoised_jobs_total{model="gaussian",outcome="cancelled"}"#, 1.0),
        (r#"denoised_images_total{model="digits"}"#, 6.0),
        (r#"denoised_images_total{model="gaussian"}"#, 1.0),
        (r#"denoised_evaluations_total{model="digits"}"#, 24.0),
        (r#"denoised_evaluations_total{model="gaussian"}"#, 5.0),
        (r#"denoised_job_duration_seconds_count{model="digits"}"#, 3.0),
        (r#"denoised_job_duration_seconds_bucket{model="digits",le="+Inf"}"#, 3.0),
        (r#"denoised_rejected_requests_total{code="bad_request"}"#, 1.0),
        // By HTTP, before the queue.
        (r#"denoised_rejected_requests_total{code="out_of_range"}"#, 1.0),
        (r#"denoised_rejected_requests_total{code="unknown_model"}"#, 1.0),
        (r#"denoised_http_requests_total{endpoint="/v1/images/generations",status="200"}"#, 3.0),
        (r#"denoised_http_requests_total{endpoint="/v1/images/generations",status="400"}"#, 2.0),
        (r#"denoised_phase{phase="ready"}"#, 1.0),
        (r#"denoised_phase{phase="draining"}"#, 0.0),
        ("denoised_broker_connected", 1.0),
        ("denoised_queue_jobs", 0.0),
    ] {
        assert_eq!(values.get(series), Some(&value), "{series} in {values:#?}");
    }
    assert!(values["process_resident_memory_bytes"] > 1e6);
    assert!(values["denoised_uptime_seconds"] > 0.0);
    assert!(values["denoised_http_connections"] >= 1.0);
    assert!(values[r#"denoised_evaluation_seconds{model="digits"}"#] > 0.0);
    let info = values.keys().filter(|series| series.starts_with("denoised_model_info{"));
    let info: Vec<_> = info.filter(|series| series.contains("engine=\"embedded\"")).collect();
    assert_eq!(info.len(), 2, "{info:?}");
    assert_eq!(values[&format!("denoised_build_info{{version={:?}}}", env!("CARGO_PKG_VERSION"))], 1.0);
}

#[test]
fn a_board_with_sensors_has_its_temperature_and_its_energy() {
    let board = Tree::jetson("NVIDIA Jetson Orin Nano", "R36 (release), REVISION: 4.3");
    set_temperature(board.path(), 48);
    board.write("sys/class/thermal/cooling_device0/type", "gpu-devfreq\n");
    board.write("sys/class/thermal/cooling_device0/cur_state", "2\n");
    board.write("sys/class/hwmon/hwmon0/name", "ina3221\n");
    for (file, text) in [("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "2000")] {
        board.write(&format!("sys/class/hwmon/hwmon0/{file}"), text);
    }
    board.write("proc/self/status", "RssAnon:\t 1024 kB\nVmRSS:\t 2048 kB\nVmHWM:\t 4096 kB\n");
    let served = Served::start(&format!("[board]\nroot = {:?}\n", board.path().display().to_string()));
    let values = loop {
        let values = parse(&served.http.get("/metrics").text());
        if values.contains_key("denoised_energy_joules_total") {
            break values;
        }
    };
    assert_eq!(values["denoised_temperature_celsius"], 48.0);
    assert_eq!(values["denoised_active_throttles"], 1.0);
    assert_eq!(values["denoised_power_watts"], 10.0);
    assert!(values["denoised_energy_joules_total"] > 0.0);
    assert_eq!(values["process_resident_memory_bytes"], 2048.0 * 1024.0);
}
