//! Seeds that the program chooses.

use crate::common::bundles::model;
use crate::common::commands::{denoised, succeeds};

/// Runs `sample`, and returns the seed that it reports and the samples.
fn sample(more: &[&str]) -> (u64, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.npy");
    let mut command = denoised();
    command.arg("sample").arg(model("digits")).args(["--class", "3", "--steps", "2", "--engine", "embedded"]);
    let output = succeeds(command.args(more).arg("--output").arg(&path));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let (_, seed) = stderr.rsplit_once(" seed ").expect(&stderr);
    let digits = seed.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    (digits.parse().unwrap(), std::fs::read(&path).unwrap())
}

#[test]
fn a_seed_that_sample_chose_was_rounded_by_javascript() {
    for _ in 0..4 {
        let (seed, samples) = sample(&[]);
        let as_float = seed as f64;
        assert_eq!(as_float as u64, seed);
        assert!(seed < 1 << 53);
        assert_eq!(sample(&["--seed", &as_float.to_string()]), (seed, samples));
    }
    let largest = u64::MAX.to_string();
    assert_eq!(sample(&["--seed", &largest]).0, u64::MAX);
}
