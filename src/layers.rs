//! Tests that each module imports only from the layers below it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules of this crate with the modules that each one imports. A module may import only from those above it in
/// this table, so there are no cycles.
const LAYERS: [(&str, &[&str]); 25] = [
    ("units", &[]),
    ("topic_name", &[]),
    ("serde_message", &[]),
    ("file_kind", &[]),
    ("json_input", &["file_kind", "serde_message"]),
    ("npy", &[]),
    ("panics", &[]),
    ("toml_document", &["file_kind"]),
    ("tensor", &[]),
    ("lora", &[]),
    ("regular_file", &[]),
    ("onnx", &["file_kind", "regular_file", "tensor"]),
    ("mqtt", &[]),
    ("spool", &["mqtt", "panics"]),
    (
        "bundle",
        &[
            "file_kind",
            "json_input",
            "lora",
            "onnx",
            "regular_file",
            "serde_message",
            "tensor",
            "toml_document",
            "units",
        ],
    ),
    ("image", &["bundle", "npy", "tensor"]),
    ("inference", &["file_kind", "onnx", "regular_file", "tensor", "units"]),
    ("platform", &["inference"]),
    (
        "model",
        &["bundle", "inference", "json_input", "lora", "regular_file", "serde_message", "tensor", "units"],
    ),
    ("job", &["bundle", "image", "inference", "json_input", "model", "tensor", "topic_name", "units"]),
    ("pipeline", &["bundle", "inference", "job", "model", "tensor"]),
    (
        "config",
        &[
            "bundle",
            "inference",
            "job",
            "mqtt",
            "platform",
            "serde_message",
            "toml_document",
            "topic_name",
            "units",
        ],
    ),
    ("home_assistant", &["config", "job", "json_input", "mqtt"]),
    (
        "service",
        &[
            "bundle",
            "config",
            "home_assistant",
            "image",
            "inference",
            "job",
            "model",
            "mqtt",
            "panics",
            "pipeline",
            "platform",
            "spool",
            "topic_name",
            "units",
        ],
    ),
    ("http", &["config", "image", "job", "json_input", "platform", "service"]),
];

/// The top layer, which may import from every module.
const TOP: &str = "cli";

fn source_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The source files of a module of this crate.
fn sources(module: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(module).into_iter().flatten().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    let is_source = |file: &PathBuf| file.extension().is_some_and(|name| name == "rs") && file.is_file();
    [module.with_extension("rs")].into_iter().chain(nested).filter(is_source).collect()
}

/// The identifiers that follow `prefix` in a module, where the prefix does not continue another identifier. An import of
/// several names in braces counts as an empty identifier.
fn followers(module: &str, prefix: &str) -> BTreeSet<String> {
    followers_in(&sources(&source_directory().join(module)), prefix)
}

fn followers_in(files: &[PathBuf], prefix: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    assert!(!files.is_empty());
    let mut found = BTreeSet::new();
    for text in files.iter().map(|file| std::fs::read_to_string(file).unwrap()) {
        for (start, _) in text.match_indices(prefix).filter(|(start, _)| !text[..*start].ends_with(is_word)) {
            found.insert(text[start + prefix.len()..].chars().take_while(|c| is_word(*c)).collect());
        }
    }
    found
}

#[test]
fn every_module_uses_only_the_layers_below() {
    for (index, (module, expected)) in LAYERS.iter().enumerate() {
        let mut used = followers(module, "crate::");
        used.remove(*module);
        let below: BTreeSet<_> = LAYERS[..index].iter().map(|(name, _)| (*name).to_owned()).collect();
        let above: Vec<_> = used.difference(&below).collect();
        assert!(above.is_empty(), "{module} uses {above:?}");
        let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(used, expected, "{module}; update LAYERS if the dependency is intended");
    }
}

#[test]
fn every_module_has_a_layer() {
    let entries = std::fs::read_dir(source_directory()).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|name| name == "rs"));
    let modules: BTreeSet<_> = files
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["error_texts", "layers", "lib", "main"].contains(&name.as_str()))
        .collect();
    let layers: BTreeSet<_> = LAYERS.iter().map(|(name, _)| *name).chain([TOP]).map(str::to_owned).collect();
    assert_eq!(modules, layers);
}

#[test]
fn the_broker_and_the_spool_know_no_diffusion() {
    for module in ["mqtt", "spool"] {
        assert_eq!(followers(module, "diffusion_samplers::"), BTreeSet::new(), "{module}");
    }
}

/// A board boots in the past, and its clock jumps by decades once it is set.
#[test]
fn no_module_depends_on_the_wall_clock() {
    // OpenAI's responses have the time, on which nothing depends.
    let modules = LAYERS.iter().map(|(name, _)| *name).filter(|name| *name != "http");
    for module in modules.chain([TOP]) {
        assert_eq!(followers(module, "SystemTime"), BTreeSet::new(), "{module}");
    }
}

/// The tests of rewritten graphs evaluate them with ONNX Runtime.
#[test]
fn only_one_module_uses_ort() {
    let modules = LAYERS.iter().map(|(name, _)| *name).filter(|name| *name != "inference");
    let tests = source_directory().join("onnx/rewriting/tests");
    for module in modules.chain([TOP, "inference/provider", "inference/rten"]) {
        let mut files = sources(&source_directory().join(module));
        files.retain(|file| !file.starts_with(&tests));
        assert_eq!(followers_in(&files, "ort::"), BTreeSet::new(), "{module}");
    }
    assert!(!followers("inference/onnx_runtime", "ort::").is_empty());
}
