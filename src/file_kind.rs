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

/// What a text contains that is not JSON, with what to do. `None` if nothing speaks against it.
pub(crate) fn unexpected_text(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    recognise(&bytes[..bytes.len().min(HEAD)], Expected::Text)
}

fn recognise(head: &[u8], expected: Expected) -> Option<&'static str> {
    let text = head.trim_ascii_start().to_ascii_lowercase();
    let starts_with = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if head.starts_with(b"version https://git-lfs") {
        return Some("this is a pointer of Git LFS, not the file; run `git lfs pull` in the folder");
    }
    if text.starts_with(b"<?xml") && contains(&text, b"<net ") {
        return Some("this is a graph of OpenVINO; export the model to ONNX");
    }
    if starts_with(&[b"<!doctype", b"<html", b"<head", b"<body", b"<?xml"]) {
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
        Expected::Graph => other_model(head),
    }
}

/// The beginnings of files that are no models, and what to do about them.
const MAGICS: [(&[u8], &str); 29] = [
    (b"\x80", "this is a pickle of Python, as PyTorch saves checkpoints; export the model to ONNX"),
    (b"GGUF", "this is GGUF, another format of models; export the model to ONNX"),
    (b"\x89HDF\r\n", "this is HDF5, as Keras saves models; export the model to ONNX"),
    (b"ftrt", "this is an engine of TensorRT, which is made for one version and device; use the ONNX file"),
    (b"\x89PNG", PICTURE),
    (b"\xff\xd8\xff", PICTURE),
    (b"GIF8", PICTURE),
    (b"II*\0", PICTURE),
    (b"MM\0*", PICTURE),
    (b"8BPS", PICTURE),
    (b"\x93NUMPY", "this is an array of NumPy (.npy), not an ONNX graph; name the ONNX file of the model"),
    (b"\x7fELF", PROGRAM),
    (b"MZ", PROGRAM),
    (b"\xcf\xfa\xed\xfe", PROGRAM),
    (b"#!", "this is a script, not an ONNX graph; name the ONNX file of the model"),
    (b"\0asm", PROGRAM),
    (b"%PDF", "this is a PDF document, not an ONNX graph; name the ONNX file of the model"),
    (b"SQLite format 3", "this is a database of SQLite, not an ONNX graph; name the ONNX file of the model"),
    (b"\x1f\x8b", COMPRESSED),
    (b"BZh", COMPRESSED),
    (b"\xfd7zXZ", COMPRESSED),
    (b"\x28\xb5\x2f\xfd", COMPRESSED),
    (b"\x04\x22\x4d\x18", COMPRESSED),
    (b"7z\xbc\xaf", ARCHIVE),
    (b"Rar!", ARCHIVE),
    (b"!<arch>", ARCHIVE),
    (b"OggS", MEDIA),
    (b"ID3", MEDIA),
    (b"\x1a\x45\xdf\xa3", MEDIA),
];

const PICTURE: &str = "this is a picture, not an ONNX graph; name the ONNX file of the model";
const MEDIA: &str = "this is a video or sound, not an ONNX graph; name the ONNX file of the model";
const PROGRAM: &str = "this is a program or a library, not an ONNX graph; name the ONNX file of the model";
const COMPRESSED: &str = "this file is compressed; unpack it";
const ARCHIVE: &str = "this is an archive of files; unpack it, and name the ONNX file in it";

/// Magics that are not at the beginning, with their offsets.
const MAGICS_WITHIN: [(usize, &[u8], &str); 6] = [
    (257, b"ustar", ARCHIVE),
    (8, b"WEBP", PICTURE),
    (8, b"WAVE", MEDIA),
    (4, b"ftyp", MEDIA),
    (4, b"TFL3", "this is TensorFlow Lite, another format of models; export the model to ONNX"),
    (
        4,
        b"ORTM",
        "this is ONNX Runtime's own format, which is made for one version and device; use the ONNX file",
    ),
];

/// The first bytes of an ONNX file: the tags of the fields of `ModelProto`, in protobuf's encoding.
const FIRST_TAGS: [u8; 12] = [0x08, 0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72, 0xa2, 0xca, 0xd2];

/// The format of a file that is not an ONNX graph.
fn other_model(head: &[u8]) -> Option<&'static str> {
    if head.is_empty() {
        return Some("this file is empty; copy or download it again");
    }
    if head.get(8) == Some(&b'{') && head.get(4..8) == Some(&[0; 4]) {
        return Some("these are safetensors, which are weights without a graph; export the model to ONNX");
    }
    if head.starts_with(b"PK\x03\x04") {
        return Some(zip_archive(head));
    }
    let at_start = || MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, found)| *found);
    let is_at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let within =
        || MAGICS_WITHIN.iter().find(|(offset, magic, _)| is_at(*offset, magic)).map(|(_, _, found)| *found);
    // The size of a bitmap picture follows as four bytes, and then four zeros.
    let bitmap = || (head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4])).then_some(PICTURE);
    if let Some(found) = at_start().or_else(within).or_else(bitmap) {
        return Some(found);
    }
    if is_text(head) {
        return Some("this is text, not an ONNX graph; copy or download it again");
    }
    (!FIRST_TAGS.contains(&head[0])).then_some(
        "this is not an ONNX file, which begins in another way; name the ONNX file of the model, or download it again",
    )
}

/// What a zip archive is, by the name of its first file.
fn zip_archive(head: &[u8]) -> &'static str {
    let length = head.get(26..28).map_or(0, |length| usize::from(u16::from_le_bytes([length[0], length[1]])));
    let name = head.get(30..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
    if name.ends_with(b".npy") {
        "this is a zip archive of NumPy arrays (.npz), not an ONNX graph; name the ONNX file of the model"
    } else if name.ends_with(b".pkl") || name.ends_with(b"/version") {
        "this is a zip archive, as PyTorch saves checkpoints; export the model to ONNX"
    } else {
        "this is a zip archive; unpack it and name the ONNX file in it, or export the model to ONNX if it is a checkpoint of \
         PyTorch"
    }
}

/// Whether a head has only characters of a text in UTF-8 or UTF-16. Its last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let is_printable = |c: char| !c.is_control() || matches!(c, '\t' | '\r' | '\n' | '\x0c');
    let utf8 = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let is_utf16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    is_utf16 || utf8.is_some_and(|text| text.chars().all(is_printable))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
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
            (b"PK\x03\x04archive/data.pkl", "this is a zip archive; unpack it"),
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

    /// Each of them was read as protobuf, and reported with the names of Rust types.
    #[test]
    fn files_that_are_no_models_were_read_as_graphs() {
        let zip = |name: &str| {
            let mut head = b"PK\x03\x04".to_vec();
            head.resize(30, 0);
            head[26] = u8::try_from(name.len()).unwrap();
            head.extend(name.bytes());
            head
        };
        let mut tar = b"unet/model.onnx".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar\x0000");
        let picture = "this is a picture, not an ONNX graph; name the ONNX file of the model";
        let cases: [(&[u8], &str); 16] = [
            (b"\x89PNG\r\n\x1a\n", picture),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", picture),
            (b"RIFF\x24\0\0\0WEBPVP8L", picture),
            (b"BM\x36\0\0\0\0\0\0\0\x36", picture),
            (b"\x93NUMPY\x01\0", "this is an array of NumPy (.npy), not an ONNX graph"),
            (&tar, "this is an archive of files; unpack it, and name the ONNX file in it"),
            (b"\x7fELF\x02\x01", "this is a program or a library, not an ONNX graph"),
            (b"BZh91AY", "this file is compressed; unpack it"),
            (&zip("arr_0.npy"), "this is a zip archive of NumPy arrays (.npz)"),
            (
                &zip("archive/data.pkl"),
                "this is a zip archive, as PyTorch saves checkpoints; export the model",
            ),
            (&zip("unet/model.onnx"), "this is a zip archive; unpack it and name the ONNX file in it"),
            ("B\u{e4}ume und Wiesen".as_bytes(), "this is text, not an ONNX graph"),
            (b"\xff\xfeh\0i\0", "this is text, not an ONNX graph"),
            (b"<head><title>Not found</title>", "this is a web page, not the file"),
            (b"<?xml version=\"1.0\"?>\n<net name=\"unet\" version=\"11\">", "this is a graph of OpenVINO"),
            (b"\xde\xad\xbe\xef", "this is not an ONNX file, which begins in another way"),
        ];
        for (head, expected) in cases {
            let found = recognise(head, Expected::Graph).unwrap_or_default();
            assert!(found.starts_with(expected), "{:?}: {found}", String::from_utf8_lossy(head));
        }
    }
}
