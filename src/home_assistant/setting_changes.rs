//! Changes of the settings, as an entity or a user publishes them.

use serde::{Deserialize, Deserializer};

use crate::job::{ErrorCode, JobError};
use crate::json_input::Document;

/// The name of such a message in errors.
const SUBJECT: &str = "the change of settings";

/// Changes of settings. The outer `None` changes nothing; the inner one, `null` in JSON, sets the default.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SettingChanges {
    #[serde(deserialize_with = "nullable")]
    pub(super) model: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) prompt: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) negative_prompt: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) seed: Option<Option<i64>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) steps: Option<Option<u64>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) guidance: Option<Option<f64>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) class: Option<Option<i64>>,
    /// The option of a class, in place of its number.
    #[serde(deserialize_with = "nullable")]
    pub(super) class_name: Option<Option<String>>,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SettingChanges {
    /// Parses a JSON object.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, JobError> {
        let document = Document::parse(payload).map_err(|message| {
            JobError::new(ErrorCode::BadRequest, format!("{SUBJECT} is not valid JSON: {message}"))
        })?;
        document.read(SUBJECT).map_err(|error| JobError {
            code: ErrorCode::BadRequest,
            field: error.field,
            message: error.message,
        })
    }

    /// Returns the names of the changed settings, as an error of a job names them.
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let fields = [
            ("model", self.model.is_some()),
            ("prompt", self.prompt.is_some()),
            ("negative_prompt", self.negative_prompt.is_some()),
            ("seed", self.seed.is_some()),
            ("steps", self.steps.is_some()),
            ("guidance", self.guidance.is_some()),
            ("class", self.class.is_some() || self.class_name.is_some()),
        ];
        fields.iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_change_and_a_missing_field_is_none() {
        let changes = SettingChanges::parse(br#"{"steps": null, "seed": 7.0, "prompt": "a"}"#).unwrap();
        let expected = SettingChanges {
            steps: Some(None),
            seed: Some(Some(7)),
            prompt: Some(Some("a".to_owned())),
            ..SettingChanges::default()
        };
        assert_eq!(changes, expected);
        assert_eq!(changes.fields(), ["prompt", "seed", "steps"]);
    }

    #[test]
    fn a_wrong_change_is_reported_with_its_field() {
        for (payload, field, message) in [
            ("PRESS", None, "the change of settings is not valid JSON: "),
            ("3", None, "the change of settings is 3, but must be an object"),
            (r#"{"steps": "ten"}"#, Some("steps"), "steps is the string \"ten\", but must be "),
            (r#"{"step": 3}"#, Some("step"), "unknown field `step`; did you mean `steps`?"),
        ] {
            let error = SettingChanges::parse(payload.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::BadRequest, field), "{payload}");
            assert!(error.message.starts_with(message), "{}", error.message);
        }
    }
}
