//! Clients that are slow, wrong or many cost no job.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::Served;
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::http::receive;

/// The anonymous resident memory of the daemon in bytes, which the kernel reports.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn an_idle_server_takes_at_most_two_mebibytes() {
    let broker = Broker::start();
    let with = Served::start("");
    with.http.get("/metrics");
    let models = [&*model("digits"), &*golden("gaussian")];
    let mut without =
        Daemon::start(&configuration(&broker, "test", &models, "[engine]\nkind = \"embedded\""));
    without.wait_for("ready: requests are accepted");
    let grown = resident(&with.daemon).saturating_sub(resident(&without));
    assert!(grown <= 2 << 20, "{grown} bytes");
}

/// Waits until the server has closed the connection, and returns what it sent.
fn closed(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    drop(stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn slow_and_large_headers_end_their_connection_and_no_job() {
    let mut served = Served::start("");
    let mut slow: Vec<_> = (0..3).map(|_| served.http.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    }
    let mut large = served.http.connect();
    large.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let line = format!("X-Large: {}\r\n", "x".repeat(1000));
    // The server may close the connection before all 10 MB are sent.
    let sent = (0..10_000).take_while(|_| large.write_all(line.as_bytes()).is_ok()).count();
    let response = closed(large);
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431"), "{response}");
    assert!(sent < 10_000 || response.starts_with("HTTP/1.1 431"));
    served.image_over_mqtt(&json!({"id": "meanwhile", "steps": 2}));
    for stream in slow {
        let response = closed(stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 408"), "{response}");
    }
    served.http.generate(&json!({"prompt": "", "steps": 2})).image(0);
}

#[test]
fn more_connections_than_places_wait_and_take_no_memory() {
    let mut served = Served::start("[limits]\npayload = \"64 KiB\"\n");
    served.http.generate(&json!({"prompt": "", "steps": 2})).image(0);
    let before = resident(&served.daemon);
    // Each holds its place until the timeout for headers.
    let mut idle: Vec<_> = (0..400).map(|_| served.http.connect()).collect();
    for stream in &mut idle {
        // Beyond the places, the kernel keeps what is sent.
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    }
    for job in 0..5 {
        served.image_over_mqtt(&json!({"id": format!("job-{job}"), "steps": 2}));
    }
    let grown = resident(&served.daemon).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    drop(idle);
    served.http.generate(&json!({"prompt": "", "steps": 2})).image(0);
}

#[test]
fn bodies_that_are_too_large_are_dropped_while_jobs_go_on() {
    let mut served = Served::start("");
    let before = resident(&served.daemon);
    let body = vec![b'x'; 20 << 20];
    let large = receive(served.http.send("POST", "/v1/images/generations", "application/json", &body));
    assert_eq!(large.status, 413, "{}", large.text());
    served.image_over_mqtt(&json!({"id": "after", "steps": 2}));
    let grown = resident(&served.daemon).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

/// Without a token, a page of any site that a browser on this machine shows could draw.
#[test]
fn pages_of_other_sites_are_refused() {
    let served = Served::start("");
    for (header, status) in
        [("Origin: https://evil.example", 403), ("Origin: null", 403), ("X-Nothing: 1", 200)]
    {
        let mut stream = served.http.connect();
        let port = served.http.port;
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n{header}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(receive(stream).status, status, "{header}");
    }
    let mut stream = served.http.connect();
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(receive(stream).status, 403);
}

#[test]
fn clients_beyond_those_that_may_wait_are_told_to_come_back() {
    let mut served = Served::start("");
    let job = json!({"model": "gaussian", "prompt": "", "steps": 1000, "sampler": "ddpm"}).to_string();
    let send = |served: &Served| {
        served.http.send("POST", "/v1/images/generations", "application/json", job.as_bytes())
    };
    let waiting: Vec<_> = (0..48).map(|_| send(&served)).collect();
    served.subscriber.next(|m| m.topic.ends_with("/state") && m.json()["queue"] == 48);
    let refused = receive(send(&served));
    assert_eq!((refused.status, refused.error().1.as_str()), (429, "queue_full"));
    // The other places are for monitors.
    assert_eq!(served.http.get("/healthz").status, 200);
    for stream in waiting {
        assert_eq!(receive(stream).status, 200);
    }
    assert_eq!(served.http.metric(r#"denoised_jobs_total{model="gaussian",outcome="finished"}"#), Some(48.0));
}
