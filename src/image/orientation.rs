//! How a picture is to be turned, as Pillow's `ImageOps.exif_transpose` reads it from a file: by a tag of the EXIF data, or
//! of XMP where EXIF has none.

use image::metadata::Orientation;

use super::metadata::Metadata;

/// The tag of the orientation in EXIF data.
const ORIENTATION: u32 = 0x0112;

/// The orientation of a PNG, JPEG or WebP file.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    let metadata = Metadata::read(file);
    let tag = match metadata.exif.as_deref().and_then(exif_orientation) {
        Some(tag) => Some(tag),
        None => metadata.xmp.as_deref().and_then(xmp_orientation),
    };
    tag.and_then(|tag| u8::try_from(tag).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
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
    use crate::image::metadata::MAX_TEXT;

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
