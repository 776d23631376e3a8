//! `denoised demo`, the README's first command.

#[cfg(feature = "demo")]
use std::process::Command;

use crate::common::broker::Broker;
use crate::common::commands::{denoised, fails, free_port, succeeds, without_variables};
use crate::common::repository;

#[cfg(feature = "demo")]
#[test]
fn the_demo_saves_ten_digits_and_a_swiss_roll() {
    let directory = tempfile::tempdir().unwrap();
    let images = directory.path().join("images");
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--output"]).arg(&images);
    let output = succeeds(&mut command);
    let stdout = String::from_utf8(output.stdout).unwrap();
    for class in 0..10 {
        let picture = image::open(images.join(format!("digit-{class}.png"))).unwrap().to_luma8();
        assert_eq!(picture.dimensions(), (28, 28));
        let ink = picture.pixels().filter(|pixel| pixel.0[0] > 128).count();
        assert!((20..400).contains(&ink), "digit {class} has {ink} bright pixels");
        assert!(stdout.contains(&format!("digit-{class} ")), "{stdout}");
    }
    assert!(image::open(images.join("swissroll.png")).is_ok());
    assert!(image::open(images.join("digits.png")).is_ok());
}

/// `cargo install` installs only the program, without the directory of models.
#[cfg(feature = "demo")]
#[test]
fn the_program_contains_the_models_of_the_demo() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("denoised");
    std::fs::copy(env!("CARGO_BIN_EXE_denoised"), &program).unwrap();
    let mut command = without_variables(Command::new(&program));
    succeeds(command.current_dir(directory.path()).arg("demo").env("DENOISED_ENGINE__KIND", "embedded"));
    let images = directory.path().join("demo");
    assert!(
        image::open(images.join("digits.png")).is_ok() && image::open(images.join("swissroll.png")).is_ok()
    );
}

#[cfg(not(feature = "demo"))]
#[test]
fn a_program_without_a_broker_names_the_command_that_starts_one() {
    let message = fails(denoised().arg("demo"), 2);
    assert!(message.contains("mosquitto -p 1883"), "{message}");
}

#[cfg(feature = "system-tests")]
#[test]
fn the_demo_uses_the_given_broker_or_reports_that_there_is_none() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--broker", &broker.url(), "--output"]);
    succeeds(command.arg(directory.path()));

    let unused = format!("mqtt://127.0.0.1:{}", free_port());
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--broker", &unused, "--output"]);
    let stderr = fails(command.arg(directory.path()), 1);
    assert!(stderr.contains(&format!("no broker for the demo at {unused}")), "{stderr}");
    // The cause is printed once, with what to do.
    assert_eq!(stderr.matches("nothing listens on this port").count(), 1, "{stderr}");
    assert!(!stderr.contains("refused"), "{stderr}");
    // The address is that of the flag, and no key of the configuration.
    assert!(stderr.contains("start the broker, or correct --broker"), "{stderr}");
    assert!(!stderr.contains("mqtt.url"), "{stderr}");
}
