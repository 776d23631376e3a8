//! The chunks of a WebP file (RFC 9649, section 2).

/// The length of `RIFF`, the size and `WEBP`.
const HEADER_LEN: usize = 12;
/// The length of a chunk's type and size.
const CHUNK_HEADER_LEN: usize = 8;

/// Returns whether the file has all bytes that its header declares.
pub(super) fn is_whole(file: &[u8]) -> bool {
    size(file, 4).is_some_and(|size| file.len() - CHUNK_HEADER_LEN >= size)
}

/// The type and the data of each chunk.
pub(super) fn chunks(file: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut start = HEADER_LEN;
    std::iter::from_fn(move || {
        let kind = file.get(start..start + 4)?.try_into().ok()?;
        let size = size(file, start + 4)?;
        let data = file.get(start + CHUNK_HEADER_LEN..)?.get(..size)?;
        // A chunk of an odd size is followed by a byte of padding.
        start += CHUNK_HEADER_LEN + size.next_multiple_of(2);
        Some((kind, data))
    })
}

fn size(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}
