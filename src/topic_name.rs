//! MQTT topic names, for every module that reads one from a user.

/// Returns whether `topic` is a valid topic name: 1 to 65,535 bytes without wildcards or null
/// characters (MQTT 5, section 4.7).
pub(crate) fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 65_535 && !topic.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_null_characters_and_impossible_lengths_are_rejected() {
        assert!(is_topic_name("camera/front door/é"));
        assert!(is_topic_name(&"a".repeat(65_535)));
        for invalid in ["", "camera/+", "camera/#", "camera/\0", &"a".repeat(65_536)] {
            assert!(!is_topic_name(invalid), "{invalid:?}");
        }
    }
}
