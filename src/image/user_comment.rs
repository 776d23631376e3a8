//! EXIF data with a comment, as AUTOMATIC1111's web UI writes and reads it in JPEG and WebP files (Exif 2.32, tags
//! 0x8769 and 0x9286).

/// How a comment in UTF-16 begins.
const UNICODE: &[u8] = b"UNICODE\0";
/// The tag of the position of the directory that has the comment.
const EXIF_DIRECTORY: u16 = 0x8769;
/// The tag of the comment.
const USER_COMMENT: u16 = 0x9286;
/// The type of a 32-bit number.
const LONG: u16 = 4;
/// The type of bytes.
const UNDEFINED: u16 = 7;
/// The length of the header of TIFF.
const HEADER_LEN: usize = 8;
/// The length of a directory with one entry: the count, the entry, and the position of the next directory.
const DIRECTORY_LEN: usize = 2 + 12 + 4;

/// EXIF data, a big-endian TIFF file, with this comment.
pub(super) fn with_user_comment(text: &str) -> Vec<u8> {
    let comment: Vec<u8> =
        UNICODE.iter().copied().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let [second, data] = [HEADER_LEN + DIRECTORY_LEN, HEADER_LEN + 2 * DIRECTORY_LEN].map(|at| at as u32);
    [
        &b"MM\0\x2a\0\0\0\x08"[..],
        &directory(EXIF_DIRECTORY, LONG, 1, second),
        &directory(USER_COMMENT, UNDEFINED, comment.len() as u32, data),
        &comment,
    ]
    .concat()
}

/// A directory with one entry.
fn directory(tag: u16, kind: u16, count: u32, value: u32) -> [u8; DIRECTORY_LEN] {
    let mut directory = [0; DIRECTORY_LEN];
    let fields = [&1_u16.to_be_bytes()[..], &tag.to_be_bytes(), &kind.to_be_bytes(), &count.to_be_bytes()];
    let bytes = [&fields.concat()[..], &value.to_be_bytes()].concat();
    directory[..bytes.len()].copy_from_slice(&bytes);
    directory
}

/// The comment in EXIF data that [`with_user_comment`] made.
pub(super) fn user_comment(exif: &[u8]) -> Option<String> {
    let comment = exif.get(HEADER_LEN + 2 * DIRECTORY_LEN..)?.strip_prefix(UNICODE)?;
    let units: Vec<u16> =
        comment.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_a_tag_of_the_second_directory() {
        let exif = with_user_comment("Füchse 🦊");
        let expected = [
            &b"MM\0\x2a\0\0\0\x08"[..],
            b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0",
            b"\0\x01\x92\x86\0\x07\0\0\0\x1a\0\0\0\x2c\0\0\0\0",
            b"UNICODE\0\0F\0\xfc\0c\0h\0s\0e\0\x20\xd8\x3e\xdd\x8a",
        ];
        assert_eq!(exif, expected.concat());
        assert_eq!(user_comment(&exif).as_deref(), Some("Füchse 🦊"));
    }

    #[test]
    fn a_comment_that_is_cut_off_is_none_or_shorter() {
        let exif = with_user_comment("🦊🦊");
        for length in 0..exif.len() {
            let read = user_comment(&exif[..length]);
            assert!(read.is_none_or(|text| "🦊🦊".starts_with(&text)), "{length}");
        }
    }
}
