//! How a picture is to be turned, as Pillow's `ImageOps.exif_transpose` reads it from a file.
//!
//! The orientation is a tag of the EXIF data, or of XMP where EXIF has none. A PNG file can hold EXIF data in a chunk of
//! its own or as hexadecimal text, which ImageMagick writes.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::jpeg_markers::segments;
use super::png_chunks::chunks;
use super::webp_chunks;

/// The most text that is read from a compressed chunk. Pillow refuses more.
const MAX_TEXT: u64 = 1 << 20;
/// The tag of the orientation in EXIF data.
const ORIENTATION: u32 = 0x0112;

/// What a file says about its orientation.
#[derive(Debug, Default)]
struct Metadata {
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
}

/// The orientation of a PNG, JPEG or WebP file.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    let metadata = match file {
        [0x89, b'P', b'N', b'G', ..] => of_png(file),
        [b'R', b'I', b'F', b'F', ..] => of_webp(file),
        _ => of_jpeg(file),
    };
    let tag = match metadata.exif.as_deref().and_then(exif_orientation) {
        Some(tag) => Some(tag),
        None => metadata.xmp.as_deref().and_then(xmp_orientation),
    };
    tag.and_then(|tag| u8::try_from(tag).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

fn of_jpeg(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let before_scan = segments(file).take_while(|segment| segment.marker != 0xda);
    for segment in before_scan.filter(|segment| segment.marker == 0xe1) {
        if let Some(exif) = segment.payload.strip_prefix(b"Exif\0\0") {
            // Long EXIF data continues in the next segment.
            metadata.exif.get_or_insert_default().extend_from_slice(exif);
        } else if let Some(xmp) = segment.payload.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            metadata.xmp = Some(xmp.to_owned());
        }
    }
    metadata
}

fn of_webp(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    for (kind, data) in webp_chunks::chunks(file) {
        match &kind {
            b"EXIF" => {
                metadata.exif = Some(data.strip_prefix(b"Exif\0\0").unwrap_or(data).to_owned());
            }
            b"XMP " => metadata.xmp = Some(data.to_owned()),
            _ => {}
        }
    }
    metadata
}

fn of_png(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let mut raw_profile = None;
    for (kind, data) in chunks(file) {
        if kind == *b"eXIf" {
            metadata.exif = Some(data.to_owned());
        }
        let Some((keyword, text)) = text_chunk(kind, data) else { continue };
        match keyword {
            b"exif" if kind == *b"tEXt" => metadata.exif = Some(text),
            b"Raw profile type exif" => raw_profile = Some(text),
            b"XML:com.adobe.xmp" => metadata.xmp = Some(text),
            _ => {}
        }
    }
    metadata.exif = metadata.exif.or_else(|| raw_profile.as_deref().and_then(decode_raw_profile));
    metadata
}

/// The keyword and the text of a text chunk.
fn text_chunk(kind: [u8; 4], data: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let split = |bytes: &'_ [u8]| {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some((end, end + 1))
    };
    let (end, start) = split(data)?;
    let (keyword, rest) = (&data[..end], &data[start..]);
    let text = match &kind {
        b"tEXt" => rest.to_owned(),
        b"zTXt" => inflate(rest.strip_prefix(&[0])?)?,
        b"iTXt" => {
            let (is_compressed, method, rest) = (*rest.first()?, *rest.get(1)?, &rest[2..]);
            // The language and the translated keyword.
            let rest = &rest[split(rest)?.1..];
            let text = &rest[split(rest)?.1..];
            match (is_compressed, method) {
                (0, _) => text.to_owned(),
                (_, 0) => inflate(text)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((keyword, text))
}

fn inflate(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(compressed).take(MAX_TEXT).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Decodes EXIF data in hexadecimal, which follows three lines: an empty one, its kind and its length.
fn decode_raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |byte| *byte == b'\n').nth(3)?;
    let digits: Vec<u8> = digits.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// The orientation in EXIF data: a TIFF file, whose first directory has it.
fn exif_orientation(exif: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"Exif\0\0";
    let once = exif.strip_prefix(PREFIX).unwrap_or(exif);
    let tiff = once.strip_prefix(PREFIX).unwrap_or(once);
    let is_little_endian = match tiff.get(..4)? {
        b"II\x2a\0" => true,
        b"MM\0\x2a" => false,
        _ => return None,
    };
    let number = |start: usize, length: usize| {
        let bytes = tiff.get(start..start.checked_add(length)?)?;
        let push = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
        Some(if is_little_endian { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
    };
    let directory = number(4, 4)? as usize;
    let entries = number(directory, 2)?;
    let mut found = None;
    for index in 0..entries as usize {
        let entry = directory.saturating_add(2 + 12 * index);
        let Some(tag) = number(entry, 2).filter(|_| tiff.len() >= entry.saturating_add(12)) else { break };
        if tag != ORIENTATION {
            continue;
        }
        // Pillow takes one integer of any type but bytes. Anything else is no orientation, even if XMP has one.
        let length = match (number(entry + 2, 2)?, number(entry + 4, 4)?) {
            (6, 1) => 1,
            (3 | 8, 1) => 2,
            (4 | 9 | 13, 1) => 4,
            _ => 0,
        };
        found = number(entry + 8, length);
    }
    found
}

/// The orientation in XMP: `tiff:Orientation="6"`, or the same as an element.
fn xmp_orientation(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let starts = (0..xmp.len()).filter(|start| xmp[*start..].starts_with(NAME));
    let value = |start: usize| {
        let rest = &xmp[start + NAME.len()..];
        let rest = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        char::from(*rest.first()?).to_digit(10)
    };
    starts.filter_map(value).next()
}
