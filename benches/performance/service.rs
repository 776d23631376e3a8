//! The service: latencies over MQTT, and the costs of a long queue, deadlines and fleets.

use std::time::{Duration, Instant};

use denoised::bundle::TimestepShape;
use denoised::pipeline::{JobEvent, Pipeline};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::json;

use crate::clock::median;
use crate::common::broker::Broker;
use crate::common::daemon::{Daemon, configuration};
use crate::common::gaussian_model::{Delayed, Exact};
use crate::common::golden;
use crate::common::subscriber::Subscriber;
use crate::jobs::{drain, job};
use crate::table::Row;

/// Connects a client that is subscribed to images and progress.
async fn client(port: u16) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new("bench", "127.0.0.1", port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 64);
    for topic in ["denoised/test/image", "denoised/test/progress/+"] {
        client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    }
    (client, events)
}

/// Returns the milliseconds from publishing a request to its progress message, and from there to its image. The job has
/// one step, and its network takes no time.
async fn round_trips(port: u16, count: usize) -> [Vec<f64>; 2] {
    let (client, mut events) = client(port).await;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..count {
        let request = json!({"id": format!("{round}"), "seed": 1, "steps": 1, "sampler": "ddim"}).to_string();
        let mut start = Instant::now();
        client.publish("denoised/test/request", QoS::AtLeastOnce, false, request).await.unwrap();
        for (times, topic) in times.iter_mut().zip(["progress", "image"]) {
            let message = loop {
                if let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() {
                    break message;
                }
            };
            let name = String::from_utf8(message.topic.to_vec()).unwrap();
            assert!(name.starts_with(&format!("denoised/test/{topic}")), "{name}");
            times.push(start.elapsed().as_secs_f64() * 1e3);
            start = Instant::now();
        }
        // Exchange the remaining acknowledgements.
        let _ =
            tokio::time::timeout(Duration::from_millis(5), async { while events.poll().await.is_ok() {} })
                .await;
    }
    times
}

fn latencies() -> Vec<Row> {
    // Without this option mosquitto delays small packets by about 40 ms.
    let broker = Broker::with_config("set_tcp_nodelay true");
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let gaussian = golden("gaussian");
    let _daemon =
        Daemon::start(&configuration(&broker, "test", &[&gaussian], "[engine]\nkind = \"embedded\""));
    subscriber.wait_for_phase("ready");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [first, last] = runtime.block_on(round_trips(broker.port, 200)).map(median);
    let row = |label: &str, measured: f64, remark: &str| {
        Row::new(format!("{label}, with a network that takes no time"), measured, "ms")
            .at_most(3.0)
            .remark(remark)
    };
    vec![
        row(
            "from publishing a request to its first progress message",
            first,
            "through the broker twice, and written to disk",
        ),
        row(
            "from the last progress message to the image at the subscriber",
            last,
            "encoded, written to disk, and through the broker",
        ),
    ]
}

/// Returns the microseconds per image of ten steps with `queued` jobs, and a network that takes no time.
fn cost_per_image(queued: usize) -> f64 {
    let (model, _) = Exact::model(&[1, 4, 5], 8, TimestepShape::PerSample);
    let mut pipeline = Pipeline::new(model);
    let request = job(&pipeline, json!({"sampler": "ddim", "steps": 10, "seed": 1, "class": 1}));
    let start = Instant::now();
    (0..queued).for_each(|_| pipeline.accept(request.clone()));
    drain(&mut pipeline);
    start.elapsed().as_secs_f64() * 1e6 / queued as f64
}

fn queue() -> Vec<Row> {
    let cost = |queued: usize, rounds: usize| median((0..rounds).map(|_| cost_per_image(queued)).collect());
    let hundred = cost(100, 21);
    let thousands = cost(10_000, 3);
    let resident = || crate::timed_process::memory_mib(std::process::id(), "VmRSS:");
    let (before, _, after) = (resident(), cost(100, 100), resident());
    vec![
        Row::new("resident memory after 10,000 further jobs, beside before", after / before, "×")
            .at_most(1.05)
            .remark(format!(
                "{after:.1} MiB beside {before:.1} MiB; docs/reliability.md measures it over MQTT"
            )),
        Row::new("time per image with 10,000 queued requests, beside 100", thousands / hundred, "×")
            .at_most(1.1)
            .remark(format!("{thousands:.0} µs beside {hundred:.0} µs, without the network")),
    ]
}

/// Returns the images per second of several pipelines that share a queue of jobs.
fn fleet(daemons: usize) -> f64 {
    const JOBS: usize = 96;
    let remaining = std::sync::atomic::AtomicUsize::new(JOBS);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..daemons {
            scope.spawn(|| {
                let mut pipeline = Pipeline::new(Delayed::model(&[1, 4, 5], 1, Duration::from_millis(2)));
                let request = job(
                    &pipeline,
                    json!({"sampler": "ddim", "steps": 10, "seed": 1, "class": 1, "guidance": 1}),
                );
                let ordering = std::sync::atomic::Ordering::Relaxed;
                while remaining.fetch_update(ordering, ordering, |n| n.checked_sub(1)).is_ok() {
                    pipeline.accept(request.clone());
                    drain(&mut pipeline);
                }
            });
        }
    });
    JOBS as f64 / start.elapsed().as_secs_f64()
}

fn fleets() -> Vec<Row> {
    let one = fleet(1);
    let row = |daemons: usize| {
        let shortfall = 1.0 - fleet(daemons) / one / daemons as f64;
        Row::new(
            format!(
                "{daemons} daemons with a simulated network: throughput below {daemons} times that of one"
            ),
            shortfall * 100.0,
            "%",
        )
        .at_most(5.0)
        .remark("the daemons are threads")
    };
    vec![row(2), row(4)]
}

/// Measures the percentage of jobs that miss their deadline. Each job arrives while two others run, and has time for at
/// least three evaluations.
fn deadlines() -> Row {
    const JOBS: u64 = 60;
    const DELAY: Duration = Duration::from_millis(2);
    let mut pipeline = Pipeline::new(Delayed::model(&[1, 4, 5], 2, DELAY));
    let (mut missed, mut steps, mut accepted) = (0, Vec::new(), 0);
    while accepted < JOBS || !pipeline.is_idle() {
        if accepted < JOBS && pipeline.job_count() < 3 {
            let deadline = 20 + 7 * (accepted * 13 % 20);
            let request = json!({"id": format!("{accepted}"), "steps": 1000, "seed": 1, "class": 1, "deadline_ms": deadline});
            pipeline.accept(job(&pipeline, request));
            accepted += 1;
        }
        pipeline.step(&mut |_, event| match event {
            JobEvent::Failed(_) => missed += 1,
            JobEvent::Image { receipt, .. } => steps.push(receipt.image.steps as f64),
            _ => {}
        });
    }
    let remark =
        format!("{JOBS} jobs of 1,000 steps, due in 20 to 153 ms; median of {} steps", median(steps));
    Row::new("jobs that miss a deadline that can be met", f64::from(missed) / JOBS as f64 * 100.0, "%")
        .at_most(5.0)
        .remark(remark)
}

/// Measures the section about the service.
pub fn rows() -> Vec<Row> {
    [latencies(), queue(), vec![deadlines()], fleets()].concat()
}
