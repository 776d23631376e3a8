//! What must survive a restart: the settings, and what Home Assistant may have of earlier announcements.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// The name of the value in the spool.
pub(crate) const RECORD_NAME: &str = "home_assistant";

/// What must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) settings: Settings,
    /// The discovery topics that may have a retained message.
    pub(super) topics: BTreeSet<String>,
    /// The platforms of all components that the message for the device ever had, by their names.
    pub(super) components: BTreeMap<String, String>,
}

impl Record {
    /// Reads the value in the spool. One that is not valid is ignored.
    pub(super) fn read(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::default() };
        serde_json::from_slice(value).unwrap_or_else(|error| {
            log::warn!(
                "the stored settings of Home Assistant are ignored, because they are not valid: {error}"
            );
            Self::default()
        })
    }

    #[expect(clippy::expect_used, reason = "a record holds only values that JSON can represent")]
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the record has string keys only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_wrong_one_is_ignored() {
        let record = Record {
            topics: BTreeSet::from(["ha/image/x/config".to_owned()]),
            components: BTreeMap::from([("seed".to_owned(), "number".to_owned())]),
            ..Record::default()
        };
        assert_eq!(Record::read(Some(&record.to_bytes())), record);
        for value in [None, Some(&b"{"[..]), Some(b"{}")] {
            assert_eq!(Record::read(value), Record::default());
        }
    }
}
