//! Job ids, and what a sender wrote in place of one.

use crate::json_input::{Document, find_field, shortened};

/// The longest id, in bytes.
const MAX_LEN: usize = 64;

/// How much of a message that is too long is searched for its id, in bytes.
const MAX_SEARCHED: usize = 4096;

/// Returns whether this is a valid job id.
pub fn is_id(id: &str) -> bool {
    (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(is_id_byte)
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Returns a valid id that resembles this text: what an id cannot hold is replaced by `_`.
pub fn to_id(text: &str) -> String {
    let is_allowed = |c: char| u8::try_from(c).is_ok_and(is_id_byte);
    let id: String = text.chars().take(MAX_LEN).map(|c| if is_allowed(c) { c } else { '_' }).collect();
    if id.is_empty() { "_".to_owned() } else { id }
}

/// Returns the id as the sender of a message wrote it, which may be no valid one. It is shortened if it is too long.
pub(super) fn written_id(payload: &[u8]) -> Option<String> {
    let id = match Document::parse(payload) {
        Ok(document) => document.field("id").cloned(),
        Err(_) => find_field(payload, "id"),
    };
    id.map(|id| shortened_id(&id.to_text()))
}

/// Returns the id as the sender wrote it near the start of a message that is too long to be parsed.
pub fn id_near_start(payload: &[u8]) -> Option<String> {
    let start = &payload[..payload.len().min(MAX_SEARCHED)];
    find_field(start, "id").map(|id| shortened_id(&id.to_text()))
}

/// Returns the id, or its beginning if it is too long for one.
pub fn shortened_id(id: &str) -> String {
    shortened(id, MAX_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_becomes_a_valid_id() {
        for (text, id) in [
            ("camera-1.front", "camera-1.front"),
            ("a/b+c#d", "a_b_c_d"),
            ("", "_"),
            ("é\n\u{0}", "___"),
            ("{\"a\":1}", "__a__1_"),
        ] {
            assert_eq!(to_id(text), id);
            assert!(is_id(id), "{id}");
        }
        assert_eq!(to_id(&"é".repeat(100)), "_".repeat(64));
    }

    #[test]
    fn an_id_is_read_from_a_message_that_is_no_valid_request() {
        for (payload, id) in [
            (r#"{"id": "a/b"}"#, Some("a/b")),
            (r#"{"id": 7}"#, Some("7")),
            (r#"{"id": ""}"#, Some("")),
            (r#"{"id": "x", "steps": }"#, Some("x")),
            (r#"["id"]"#, None),
            ("", None),
        ] {
            assert_eq!(written_id(payload.as_bytes()).as_deref(), id, "{payload}");
        }
        let payload = format!("{{\"id\": \"a/b\", \"image\": \"{}", "A".repeat(10_000));
        assert_eq!(id_near_start(payload.as_bytes()).as_deref(), Some("a/b"));
        let long = "n".repeat(1000);
        assert_eq!(
            written_id(format!("{{\"id\": \"{long}\"}}").as_bytes()),
            Some(format!("{}…", &long[..63]))
        );
    }
}
