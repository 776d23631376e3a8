//! The newest message of each followed topic. An older one is replaced, so that memory does not grow with their number.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The newest message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestMessage {
    /// Its payload, which is not empty.
    pub payload: Bytes,
    /// How many messages arrived since the topic is followed, this one included.
    pub received: u64,
}

/// The newest message of each followed topic on which one arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewestMessages(BTreeMap<String, NewestMessage>);

impl NewestMessages {
    /// Returns the newest message of a topic.
    pub fn get(&self, topic: &str) -> Option<&NewestMessage> {
        self.0.get(topic)
    }

    /// Stores a message. Returns `false` for an empty one, which clears a retained message, and for a retained one that is
    /// the newest already: the broker sends it again on each connection.
    pub(super) fn store(&mut self, topic: &str, payload: Bytes, is_retained: bool) -> bool {
        let known = self.0.get(topic);
        let is_repeated = is_retained && known.is_some_and(|known| known.payload == payload);
        if payload.is_empty() || is_repeated {
            return false;
        }
        let received = known.map_or(0, |known| known.received) + 1;
        self.0.insert(topic.to_owned(), NewestMessage { payload, received });
        true
    }

    pub(super) fn remove(&mut self, topic: &str) {
        self.0.remove(topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retained_message_counts_once_and_an_empty_one_never() {
        let mut newest = NewestMessages::default();
        let mut store = |payload: &'static str, is_retained| {
            newest.store("a", Bytes::from_static(payload.as_bytes()), is_retained)
        };
        assert_eq!([store("x", true), store("x", true), store("", false)], [true, false, false]);
        assert_eq!([store("x", false), store("y", false), store("x", true)], [true, true, true]);
        let expected = NewestMessage { payload: Bytes::from_static(b"x"), received: 4 };
        assert_eq!((newest.get("a"), newest.get("b")), (Some(&expected), None));
        newest.remove("a");
        assert_eq!(newest, NewestMessages::default());
    }
}
