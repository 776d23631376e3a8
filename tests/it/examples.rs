//! Runs every example and checks its output.

use std::path::Path;
use std::process::Command;

#[cfg(feature = "system-tests")]
use crate::common::broker::Broker;
use crate::common::bundles::model;
use crate::common::commands::{fails, succeeds};
#[cfg(feature = "system-tests")]
use crate::common::daemon::{Daemon, configuration};
use crate::common::repository;
#[cfg(feature = "system-tests")]
use crate::common::subscriber::Subscriber;

/// Returns a command for an example. `cargo test` builds the examples before it runs the tests.
fn example(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_denoised")).with_file_name("examples").join(name);
    assert!(program.is_file(), "{} is missing; run `cargo build --examples`", program.display());
    let mut command = Command::new(program);
    command.current_dir(repository());
    command
}

fn output(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stdout).unwrap()
}

#[test]
fn own_network_generates_the_points_of_its_data() {
    for sampler in ["dpmpp_2m_karras", "euler_a", "heun"] {
        let text = output(example("own_network").arg(sampler));
        assert_eq!(text.lines().count(), 8, "{text}");
        for line in text.lines() {
            let distance = line.split(", ").nth(2).and_then(|rest| rest.split(' ').next()).unwrap();
            assert!(distance.parse::<f64>().unwrap() < 0.1, "{sampler}: {line}");
        }
    }
}

#[test]
fn custom_sampler_is_of_second_order() {
    let text = output(&mut example("custom_sampler"));
    let errors: Vec<f64> =
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(errors.len(), 5, "{text}");
    assert!(errors[1] / errors[2] > 3.0 && errors[2] / errors[3] > 3.0, "{text}");
}

#[test]
fn forward_process_prints_both_schedules() {
    let text = output(&mut example("forward_process"));
    assert!(text.contains("linear") && text.contains("cosine"), "{text}");
    assert!(text.lines().any(|line| line.starts_with(" 999 ")), "{text}");
}

#[test]
fn sample_to_png_writes_a_picture() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("digit.png");
    output(example("sample_to_png").arg(model("digits")).arg(&path));
    assert_eq!(image::open(&path).unwrap().to_luma8().dimensions(), (28, 28));
}

#[test]
fn mqtt_request_prints_its_usage() {
    assert!(output(&mut example("mqtt_request")).starts_with("usage: mqtt_request"));
}

#[cfg(feature = "system-tests")]
#[test]
fn mqtt_request_saves_the_image_that_it_requested() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
    let engine = "[engine]\nkind = \"embedded\"";
    let _daemon = Daemon::start(&configuration(&broker, "test", &[&model("digits")], engine));
    subscriber.wait_for_phase("ready");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("three.png");
    let mut command = example("mqtt_request");
    command.args([&broker.url(), "test", r#"{"class": 3, "seed": 7, "steps": 5}"#]).arg(&path);
    let text = output(&mut command);
    assert!(text.contains("\"receipt\""), "{text}");
    assert_eq!(image::open(&path).unwrap().to_luma8().dimensions(), (28, 28));

    // It waited forever for a daemon that is not there.
    let message = fails(example("mqtt_request").args([&broker.url(), "other"]), 1);
    assert!(message.contains("no answer from other; compare NODE with `node`"), "{message}");
}
