//! MQTT topic names, for every module that reads one from a user.

/// The most bytes of a text in MQTT, such as a topic (MQTT 5, section 1.5.4).
pub(crate) const MAX_BYTES: usize = 65_535;
/// The most levels of a topic that mosquitto accepts.
const MAX_LEVELS: usize = 200;

/// Returns what is wrong with a topic name, as the end of a sentence about it.
///
/// Beside the rules of MQTT (sections 4.7 and 1.5.4) these are the limits of common brokers, which close the connection
/// on a topic beyond them.
pub(crate) fn topic_fault(topic: &str) -> Option<&'static str> {
    if topic.is_empty() {
        Some("it is empty")
    } else if topic.len() > MAX_BYTES {
        Some("it has more than 65,535 bytes")
    } else if topic.contains(['+', '#']) {
        Some("it has a wildcard, + or #")
    } else if topic.contains(is_refused) {
        Some("it has a control character or a noncharacter, on which brokers close the connection")
    } else if topic.split('/').count() > MAX_LEVELS {
        Some("it has more than 200 levels, on which brokers close the connection")
    } else {
        None
    }
}

/// Returns what is wrong with a text in a packet, such as a user name.
pub(crate) fn text_fault(text: &str) -> Option<&'static str> {
    if text.len() > MAX_BYTES {
        Some("it has more than 65,535 bytes")
    } else if text.contains(is_refused) {
        Some("it has a control character or a noncharacter, on which brokers close the connection")
    } else {
        None
    }
}

/// U+0000 is forbidden in MQTT; brokers may refuse the others (MQTT 5, section 1.5.4).
fn is_refused(c: char) -> bool {
    let is_noncharacter = matches!(u32::from(c), 0xFDD0..=0xFDEF) || u32::from(c) & 0xFFFE == 0xFFFE;
    c.is_control() || is_noncharacter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_closed_the_connection_was_accepted() {
        assert_eq!(topic_fault("camera/front door/é/\u{FFFD}/😀"), None);
        assert_eq!(topic_fault(&"a".repeat(65_535)), None);
        assert_eq!(topic_fault(&vec!["a"; 200].join("/")), None);
        let (long, deep) = ("a".repeat(65_536), vec!["a"; 201].join("/"));
        for (topic, fault) in [
            ("", "it is empty"),
            ("camera/+", "it has a wildcard"),
            ("camera/#", "it has a wildcard"),
            (&long, "it has more than 65,535 bytes"),
            (&deep, "it has more than 200 levels"),
        ] {
            assert!(topic_fault(topic).unwrap().starts_with(fault), "{topic:?}");
        }
        for c in [
            '\0',
            '\u{1}',
            '\n',
            '\u{1F}',
            '\u{7F}',
            '\u{9F}',
            '\u{FDD0}',
            '\u{FFFE}',
            '\u{FFFF}',
            '\u{10FFFF}',
        ] {
            let topic = format!("camera/{c}");
            assert!(topic_fault(&topic).unwrap().starts_with("it has a control character"), "{topic:?}");
            assert_eq!(text_fault(&topic), topic_fault(&topic));
        }
    }
}
