//! The README's first command.
#![cfg(feature = "demo")]

use crate::common::daemon::{Broker, denoised, fails, free_port, succeeds};
use crate::common::repository;

#[test]
fn the_demo_saves_ten_digits_and_a_swiss_roll() {
    let directory = tempfile::tempdir().unwrap();
    let images = directory.path().join("images");
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--output"]).arg(&images);
    let output = succeeds(&mut command);
    let told = String::from_utf8(output.stdout).unwrap();
    for class in 0..10 {
        let picture = image::open(images.join(format!("digit-{class}.png"))).unwrap().to_luma8();
        assert_eq!(picture.dimensions(), (28, 28));
        let ink = picture.pixels().filter(|pixel| pixel.0[0] > 128).count();
        assert!((20..400).contains(&ink), "digit {class} has {ink} bright pixels");
        assert!(told.contains(&format!("digit-{class} ")), "{told}");
    }
    assert!(image::open(images.join("swissroll.png")).is_ok());
    assert!(image::open(images.join("digits.png")).is_ok());
}

#[cfg(feature = "system-tests")]
#[test]
fn the_demo_takes_a_broker_that_is_there_and_tells_of_one_that_is_not() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--broker", &broker.url(), "--output"]);
    succeeds(command.arg(directory.path()));

    let nobody = format!("mqtt://127.0.0.1:{}", free_port());
    let mut command = denoised();
    command.current_dir(repository()).args(["demo", "--broker", &nobody, "--output"]);
    let words = fails(command.arg(directory.path()), 1);
    assert!(words.contains(&format!("no broker answers at {nobody}")), "{words}");
}
