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

/// The most text that is read from a compressed chunk, in bytes. Pillow refuses more.
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
    // Of several chunks with a keyword the last one counts, so that no other one has to be inflated.
    let (mut raw_profile, mut xmp) = (None, None);
    for (kind, data) in chunks(file) {
        if kind == *b"eXIf" {
            metadata.exif = Some(data.to_owned());
        }
        let Some(chunk) = TextChunk::parse(kind, data) else { continue };
        match chunk.keyword {
            b"exif" if kind == *b"tEXt" => metadata.exif = chunk.text(),
            b"Raw profile type exif" => raw_profile = Some(chunk),
            b"XML:com.adobe.xmp" => xmp = Some(chunk),
            _ => {}
        }
    }
    let raw_profile = || decode_raw_profile(&raw_profile?.text()?);
    metadata.exif = metadata.exif.or_else(raw_profile);
    metadata.xmp = xmp.and_then(TextChunk::text);
    metadata
}

/// A text chunk of a PNG file.
#[derive(Debug, Clone, Copy)]
struct TextChunk<'a> {
    keyword: &'a [u8],
    data: &'a [u8],
    is_compressed: bool,
}

impl<'a> TextChunk<'a> {
    /// Returns `None` for other chunks, and for a text that can't be read.
    fn parse(kind: [u8; 4], data: &'a [u8]) -> Option<Self> {
        let is_text = matches!(&kind, b"tEXt" | b"zTXt" | b"iTXt");
        let (keyword, rest) = split_at_zero(data).filter(|_| is_text)?;
        let (data, is_compressed) = match &kind {
            b"tEXt" => (rest, false),
            b"zTXt" => (rest.strip_prefix(&[0])?, true),
            _ => {
                let (is_compressed, method) = (*rest.first()? != 0, *rest.get(1)?);
                let (_language, rest) = split_at_zero(&rest[2..])?;
                let (_translated_keyword, text) = split_at_zero(rest)?;
                (!is_compressed || method == 0).then_some((text, is_compressed))?
            }
        };
        Some(Self { keyword, data, is_compressed })
    }

    fn text(self) -> Option<Vec<u8>> {
        if self.is_compressed { inflate(self.data) } else { Some(self.data.to_owned()) }
    }
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn chunk(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let data = parts.concat();
        [&(data.len() as u32).to_be_bytes()[..], kind, &data, &[0; 4]].concat()
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
    }

    fn xmp(orientation: u8) -> String {
        format!("<x tiff:Orientation=\"{orientation}\"/>")
    }

    /// Together, these chunks inflate to gigabytes.
    #[test]
    fn only_the_last_chunk_of_a_used_keyword_is_inflated() {
        let bomb = compressed(&vec![b' '; MAX_TEXT as usize]);
        let bombs = |keyword: &[u8]| {
            [chunk(b"zTXt", &[keyword, b"\0\0", &bomb]), chunk(b"iTXt", &[keyword, b"\0\x01\0\0\0", &bomb])]
        };
        let keywords: [&[u8]; 3] = [b"Comment", b"XML:com.adobe.xmp", b"Raw profile type exif"];
        let mut chunks = vec![keywords.map(bombs).concat().concat(); 700];
        let text = compressed(xmp(6).as_bytes());
        chunks.push(chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\x01\0\0\0", &text]));
        let start = std::time::Instant::now();
        assert_eq!(orientation(&png(&chunks)), Orientation::Rotate90);
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn a_text_is_read_from_every_kind_of_chunk() {
        let (plain, zlib) = (xmp(8), compressed(xmp(8).as_bytes()));
        let keyword = b"XML:com.adobe.xmp";
        for (name, chunk) in [
            ("tEXt", chunk(b"tEXt", &[keyword, b"\0", plain.as_bytes()])),
            ("zTXt", chunk(b"zTXt", &[keyword, b"\0\0", &zlib])),
            ("iTXt", chunk(b"iTXt", &[keyword, b"\0\0\0en\0t\0", plain.as_bytes()])),
            ("compressed iTXt", chunk(b"iTXt", &[keyword, b"\0\x01\0\0\0", &zlib])),
        ] {
            assert_eq!(orientation(&png(&[chunk])), Orientation::Rotate270, "{name}");
        }
        for (name, chunk) in [
            ("unknown compression", chunk(b"iTXt", &[keyword, b"\0\x01\x01\0\0", &zlib])),
            ("unknown compression", chunk(b"zTXt", &[keyword, b"\0\x01", &zlib])),
            ("another kind", chunk(b"aTXt", &[keyword, b"\0", plain.as_bytes()])),
            ("no keyword", chunk(b"tEXt", &[plain.as_bytes()])),
        ] {
            assert_eq!(orientation(&png(&[chunk])), Orientation::NoTransforms, "{name}");
        }
    }
}
