//! Replays the fuzzing corpora.

#[path = "../../fuzz/inputs.rs"]
mod inputs;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{} holds {} files", corpus.display(), files.len());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(file).unwrap());
    }
}

#[test]
fn requests() {
    replay("request", inputs::request);
}

#[test]
fn configurations() {
    replay("configuration", inputs::configuration);
}

#[test]
fn scheduler_configurations() {
    replay("scheduler_config", inputs::scheduler_config);
}

#[test]
fn manifests() {
    replay("manifest", inputs::manifest);
}

#[test]
fn npy_files() {
    replay("npy", inputs::npy);
}

#[test]
fn spool_records() {
    replay("spool_record", inputs::spool_record);
}
