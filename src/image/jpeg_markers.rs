//! The structure of a JPEG file: its segments, and whether it ends.

/// A marker and the data that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// The marker's second byte.
    pub(super) marker: u8,
    /// The data without its length; empty for a marker without data.
    pub(super) payload: &'a [u8],
}

/// The most bytes of a segment's payload.
pub(super) const MAX_PAYLOAD: usize = 0xffff - 2;

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;

/// The segments of a file, up to the end of the image or of the file. The data of a scan is skipped.
pub(super) fn segments(file: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = file;
    std::iter::from_fn(move || {
        let (segment, after) = next_segment(rest)?;
        rest = if segment.marker == END_OF_IMAGE { &[] } else { after };
        Some(segment)
    })
}

/// Returns whether the end of the image is in the file. An end within a thumbnail does not count.
pub(super) fn has_end(file: &[u8]) -> bool {
    segments(file).any(|segment| segment.marker == END_OF_IMAGE)
}

/// The position after the segments APP0 to APP15 at the beginning of a file without fill bytes.
pub(super) fn end_of_headers(file: &[u8]) -> usize {
    let headers =
        segments(file).skip(1).take_while(|segment| matches!(segment.marker, 0xe0..=0xef)).map(|segment| {
            // The marker and the length.
            4 + segment.payload.len()
        });
    2 + headers.sum::<usize>()
}

fn next_segment(mut rest: &[u8]) -> Option<(Segment<'_>, &[u8])> {
    loop {
        // Between segments lies the data of a scan, in which 0xff is followed by 0, or fill bytes.
        let start = rest.iter().position(|byte| *byte == 0xff)?;
        let marker = *rest.get(start + 1)?;
        rest = &rest[start + 1..];
        match marker {
            0xff => {}
            // An escaped 0xff and the restart markers within a scan.
            0x00 | 0x01 | 0xd0..=0xd7 => rest = &rest[1..],
            START_OF_IMAGE | END_OF_IMAGE => return Some((Segment { marker, payload: &[] }, &rest[1..])),
            _ => {
                let length = usize::from(u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]));
                let payload = rest.get(3..length.checked_add(1)?)?;
                return Some((Segment { marker, payload }, &rest[length + 1..]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_end_before_the_first_table() {
        let file = b"\xff\xd8\xff\xe0\0\x04JF\xff\xe1\0\x03E\xff\xdb\0\x02\xff\xd9";
        assert_eq!(end_of_headers(file), 2 + 6 + 5);
        assert_eq!(end_of_headers(b"\xff\xd8\xff\xdb\0\x02\xff\xd9"), 2);
    }

    #[test]
    fn the_end_of_a_thumbnail_or_an_escaped_byte_is_not_the_end_of_the_image() {
        let thumbnail = b"\xff\xd8\xff\xe1\0\x06\xff\xd8\xff\xd9";
        let scan = b"\xff\xda\0\x02\x12\xff\0\xd9\xff\xd0\x34\xff\xff";
        let whole = [&thumbnail[..], scan, b"\xd9 more"].concat();
        let markers: Vec<_> = segments(&whole).map(|segment| segment.marker).collect();
        assert_eq!(markers, [0xd8, 0xe1, 0xda, 0xd9]);
        assert_eq!(segments(&whole).nth(1).unwrap().payload, b"\xff\xd8\xff\xd9");
        let end = whole.len() - b" more".len();
        assert!(has_end(&whole[..end]));
        assert!((0..end).all(|length| !has_end(&whole[..length])));
        assert!(!has_end(b"\xff\xd8\xff\xe1\0\0\xff\xd9\0"));
    }
}
