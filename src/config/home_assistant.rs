//! The section `[home_assistant]`.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::values::invalid;
use crate::topic_name::topic_fault;

/// Home Assistant's MQTT discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HomeAssistantConfig {
    /// Whether the daemon announces itself to Home Assistant.
    pub enabled: bool,
    /// The discovery prefix, as configured in Home Assistant.
    pub prefix: DiscoveryPrefix,
    /// The form of the announcement.
    pub discovery: DiscoveryForm,
}

/// The prefix of the topics on which Home Assistant expects announcements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryPrefix(String);

impl DiscoveryPrefix {
    /// Returns the prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DiscoveryPrefix {
    /// Home Assistant's default.
    fn default() -> Self {
        Self("homeassistant".to_owned())
    }
}

impl<'de> Deserialize<'de> for DiscoveryPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let prefix = String::deserialize(deserializer)?;
        if prefix.is_empty() || prefix.starts_with(['/', '$']) || prefix.ends_with('/') {
            let expected = "a topic such as homeassistant, which does not start with / or $ or end with /";
            return Err(invalid(&prefix, expected));
        }
        // The longest topic has four levels below the prefix.
        match topic_fault(&format!("{prefix}/binary_sensor/node/entity/config")) {
            Some(fault) => {
                Err(D::Error::custom(format!("{prefix:?} cannot be the prefix of topics: {fault}")))
            }
            None => Ok(Self(prefix)),
        }
    }
}

/// The form of the announcement, in Home Assistant's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscoveryForm {
    /// A message for each entity, which every release understands.
    #[default]
    Component,
    /// One message for the whole device, which Home Assistant 2024.11 and newer understand.
    Device,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HomeAssistantConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn a_prefix_is_a_topic_without_wildcards() {
        assert_eq!(parse("").unwrap().prefix.as_str(), "homeassistant");
        assert_eq!(parse("prefix = \"ha/discovery\"").unwrap().prefix.as_str(), "ha/discovery");
        for prefix in ["", "/ha", "ha/", "$ha"] {
            let message = parse(&format!("prefix = {prefix:?}")).unwrap_err();
            assert!(message.contains("expected a topic such as homeassistant"), "{message}");
        }
        assert_eq!(
            parse("prefix = \"ha/#\"").unwrap_err(),
            "\"ha/#\" cannot be the prefix of topics: it has a wildcard, + or #"
        );
    }

    #[test]
    fn the_forms_are_those_of_home_assistant() {
        for (name, form) in [("component", DiscoveryForm::Component), ("device", DiscoveryForm::Device)] {
            assert_eq!(parse(&format!("discovery = {name:?}")).unwrap().discovery, form);
        }
        assert!(parse("discovery = \"both\"").is_err());
    }
}
