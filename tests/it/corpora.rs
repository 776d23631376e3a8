//! Runs the fuzz targets on their corpora.

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
fn every_request_of_the_corpus_passes() {
    replay("request", inputs::request);
}

#[test]
fn every_receipt_of_the_corpus_passes() {
    replay("receipt", inputs::receipt);
}

#[test]
fn every_configuration_of_the_corpus_passes() {
    replay("configuration", inputs::configuration);
}

#[test]
fn every_scheduler_configuration_of_the_corpus_passes() {
    replay("scheduler_config", inputs::scheduler_config);
}

#[test]
fn every_manifest_of_the_corpus_passes() {
    replay("manifest", inputs::manifest);
}

#[test]
fn every_npy_file_of_the_corpus_passes() {
    replay("npy", inputs::npy);
}

#[test]
fn every_spool_record_of_the_corpus_passes() {
    replay("spool_record", inputs::spool_record);
}
