//! EXIF data, XMP and texts in the files of pictures.
//!
//! A PNG file can hold EXIF data in a chunk of its own or as hexadecimal text, which ImageMagick writes.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::jpeg_markers::segments;
use super::{png_chunks, webp_chunks};

/// The most text that is read from a compressed chunk, in bytes. Pillow refuses more.
pub(super) const MAX_TEXT: u64 = 1 << 20;
/// What the EXIF data of a JPEG file begins with.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";
/// What XMP in a JPEG file begins with.
pub(super) const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// The EXIF data and the XMP of a picture.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
}

impl Metadata {
    /// Reads a PNG, JPEG or WebP file.
    pub(super) fn read(file: &[u8]) -> Self {
        match file {
            [0x89, b'P', b'N', b'G', ..] => of_png(file),
            [b'R', b'I', b'F', b'F', ..] => of_webp(file),
            _ => of_jpeg(file),
        }
    }
}

/// The text of a PNG file with this keyword; the last one of several.
pub(super) fn png_text(file: &[u8], keyword: &str) -> Option<Vec<u8>> {
    let texts = png_chunks::chunks(file).filter_map(|(kind, data)| TextChunk::parse(kind, data));
    texts.filter(|chunk| chunk.keyword == keyword.as_bytes()).last()?.text()
}

fn of_jpeg(file: &[u8]) -> Metadata {
    let mut metadata = Metadata::default();
    let before_scan = segments(file).take_while(|segment| segment.marker != 0xda);
    for segment in before_scan.filter(|segment| segment.marker == 0xe1) {
        if let Some(exif) = segment.payload.strip_prefix(EXIF_PREFIX) {
            // Long EXIF data continues in the next segment.
            metadata.exif.get_or_insert_default().extend_from_slice(exif);
        } else if let Some(xmp) = segment.payload.strip_prefix(XMP_PREFIX) {
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
                metadata.exif = Some(data.strip_prefix(EXIF_PREFIX).unwrap_or(data).to_owned());
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
    for (kind, data) in png_chunks::chunks(file) {
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
