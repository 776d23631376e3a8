//! The structure of a PNG file.

use std::borrow::Cow;

/// The last chunk of a file.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// The chunks of a file: their types and data, up to the end of the image or of the file.
pub(super) fn chunks(file: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    // After the signature.
    let mut rest = file.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let data = after.get(..length)?;
        // After the checksum.
        rest = if kind == b"IEND" { &[] } else { after.get(length.checked_add(4)?..).unwrap_or_default() };
        Some((*kind, data))
    })
}

/// The file with an end if only that is missing, as Pillow reads it. Returns `None` if a chunk after the pixels is cut off.
pub(super) fn with_end(file: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut position = 8;
    while let Some(header) = file.get(position..position + 8) {
        let (length, kind) = header.split_at(4);
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let rest = file.len() - position;
        match kind {
            b"IEND" => return Some(Cow::Borrowed(file)),
            // The decoder reports pixels that are missing.
            b"IDAT" if rest < length.saturating_add(12) => return Some(Cow::Borrowed(file)),
            _ if rest < length.saturating_add(8) => return None,
            // Only the checksum is cut off.
            _ if rest < length.saturating_add(12) => break,
            _ => position += length + 12,
        }
    }
    Some(Cow::Owned([file.get(..position)?, END].concat()))
}
