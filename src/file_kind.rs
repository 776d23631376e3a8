//! Recognises files whose contents are not what their names promise: pointers of Git LFS, web pages, other formats.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a file should contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// An ONNX graph.
    Graph,
    /// The values of tensors, which may be any bytes.
    Weights,
    /// JSON, TOML or plain text.
    Text,
}

/// How many bytes of a file are looked at.
const HEAD: usize = 512;

/// What a file contains instead, with what to do. `None` if nothing speaks against the file.
pub(crate) fn unexpected_content(path: &Path, expected: Expected) -> std::io::Result<Option<&'static str>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(recognise(&head, expected))
}

fn recognise(head: &[u8], expected: Expected) -> Option<&'static str> {
    let text = head.trim_ascii_start().to_ascii_lowercase();
    let starts_with = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if head.starts_with(b"version https://git-lfs") {
        return Some("this is a pointer of Git LFS, not the file; run `git lfs pull` in the folder");
    }
    if starts_with(&[b"<!doctype html", b"<html", b"<?xml"]) {
        return Some("this is a web page, not the file; download the file itself");
    }
    if starts_with(&[b"../", b"./"]) && !head.contains(&0) {
        return Some(
            "this is the text of a link, not the file; copy the folder with the files that its links lead to",
        );
    }
    match expected {
        Expected::Weights => None,
        Expected::Text => text.is_empty().then_some("this file is empty; copy or download it again"),
        Expected::Graph => other_model(head, starts_with(&[b"{", b"["])),
    }
}

/// The format of a file that is not an ONNX graph, whose first byte is the tag of a field of `ModelProto`.
fn other_model(head: &[u8], is_json: bool) -> Option<&'static str> {
    let is_safetensors = head.get(8) == Some(&b'{') && head.get(4..8) == Some(&[0; 4]);
    Some(if head.is_empty() {
        "this file is empty; copy or download it again"
    } else if is_safetensors {
        "these are safetensors, which are weights without a graph; export the model to ONNX"
    } else if head.starts_with(b"PK\x03\x04") {
        "this is a zip archive, as PyTorch saves checkpoints; export the model to ONNX, or unpack the archive"
    } else if head.starts_with(&[0x80]) {
        "this is a pickle of Python, as PyTorch saves checkpoints; export the model to ONNX"
    } else if head.starts_with(b"GGUF") {
        "this is GGUF, another format of models; export the model to ONNX"
    } else if head.get(4..8) == Some(b"ORTM") {
        "this is ONNX Runtime's own format, which is made for one version and device; use the ONNX file"
    } else if head.starts_with(b"\x1f\x8b") {
        "this file is compressed with gzip; unpack it"
    } else if is_json || head.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')) {
        "this is text, not an ONNX graph; copy or download it again"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_recognised() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438\n";
        for expected in [Expected::Graph, Expected::Weights, Expected::Text] {
            assert!(recognise(pointer, expected).unwrap().contains("run `git lfs pull` in the folder"));
            assert!(recognise(b"\n<!DOCTYPE html><html>", expected).unwrap().contains("this is a web page"));
            assert!(recognise(b"../../blobs/4d7a", expected).unwrap().contains("this is the text of a link"));
        }
        let safetensors = [&[88, 0, 0, 0, 0, 0, 0, 0], &b"{\"w\":"[..]].concat();
        for (head, found) in [
            (&b""[..], "this file is empty"),
            (&safetensors, "these are safetensors"),
            (b"PK\x03\x04archive/data.pkl", "this is a zip archive"),
            (b"\x80\x02}q\x00", "this is a pickle"),
            (b"GGUF\x03\x00", "this is GGUF"),
            (b"\x18\x00\x00\x00ORTM", "this is ONNX Runtime's own format"),
            (b"\x1f\x8b\x08", "this file is compressed"),
            (b"{\"error\": \"not found\"}", "this is text"),
            (b"Entry not found", "this is text"),
        ] {
            let recognised = recognise(head, Expected::Graph).unwrap_or_default();
            assert!(recognised.starts_with(found), "{recognised}");
            assert_eq!(recognise(head, Expected::Weights), None);
        }
        assert_eq!(recognise(b"\x08\x08\x12\x07pytorch", Expected::Graph), None);
        assert_eq!(recognise(b" \n", Expected::Text), Some("this file is empty; copy or download it again"));
        assert_eq!(recognise(b"{}", Expected::Text), None);
    }
}
