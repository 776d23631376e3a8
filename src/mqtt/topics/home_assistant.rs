//! The topics between the daemon and Home Assistant.

use super::{MessageKind, Topics};

/// The commands of Home Assistant's entities, by their topics below the root.
const COMMANDS: [(&str, MessageKind); 3] = [
    ("home_assistant/settings/set", MessageKind::Settings),
    ("home_assistant/draw", MessageKind::Draw),
    ("home_assistant/cancel", MessageKind::CancelDrawn),
];

impl Topics {
    /// Adds the topics of Home Assistant, with its discovery prefix.
    pub fn with_home_assistant(self, prefix: Option<&str>) -> Self {
        Self { discovery_prefix: prefix.map(str::to_owned), ..self }
    }

    /// The topic of the settings that the entities show, as JSON.
    pub fn settings(&self) -> String {
        self.under_root("home_assistant/settings")
    }

    /// The topic of the facts about the last picture, as JSON.
    pub fn picture(&self) -> String {
        self.under_root("home_assistant/picture")
    }

    /// The topic of the end of the last job, as JSON.
    pub fn job(&self) -> String {
        self.under_root("home_assistant/job")
    }

    /// The topic on which the daemon receives changes of the settings.
    pub fn set_settings(&self) -> String {
        self.under_root(COMMANDS[0].0)
    }

    /// The topic on which the daemon receives requests for a job with the settings.
    pub fn draw(&self) -> String {
        self.under_root(COMMANDS[1].0)
    }

    /// The topic on which the daemon receives cancellations of those jobs.
    pub fn cancel_drawn(&self) -> String {
        self.under_root(COMMANDS[2].0)
    }

    /// The topic of Home Assistant's birth message, if Home Assistant is enabled.
    pub fn home_assistant_status(&self) -> Option<String> {
        self.discovery_prefix.as_ref().map(|prefix| format!("{prefix}/status"))
    }

    /// The topics of the entities' commands, if Home Assistant is enabled.
    pub fn home_assistant_commands(&self) -> Vec<String> {
        let commands = COMMANDS.iter().filter(|_| self.discovery_prefix.is_some());
        commands.map(|(name, _)| self.under_root(name)).collect()
    }

    /// Returns whether this is a topic of an entity's commands, whether Home Assistant is enabled or not.
    pub fn is_home_assistant_command(&self, topic: &str) -> bool {
        self.command(topic).is_some()
    }

    /// Returns whether Home Assistant reads announcements on this topic.
    pub fn is_discovery_topic(&self, topic: &str) -> bool {
        let prefix = self.discovery_prefix.as_deref();
        prefix.and_then(|prefix| topic.strip_prefix(prefix)).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns the kind of a message of Home Assistant.
    pub(super) fn home_assistant_kind(&self, topic: &str) -> Option<MessageKind> {
        let prefix = self.discovery_prefix.as_deref()?;
        if topic.strip_prefix(prefix) == Some("/status") {
            return Some(MessageKind::HomeAssistantStatus);
        }
        self.command(topic)
    }

    fn command(&self, topic: &str) -> Option<MessageKind> {
        let name = topic.strip_prefix(&self.root)?.strip_prefix('/')?;
        COMMANDS.iter().find(|(command, _)| *command == name).map(|(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_only_while_home_assistant_is_enabled() {
        let enabled = Topics::new("d/a").with_home_assistant(Some("ha/discovery"));
        let disabled = Topics::new("d/a").with_home_assistant(None);
        for (topic, kind) in [
            (enabled.set_settings(), MessageKind::Settings),
            (enabled.draw(), MessageKind::Draw),
            (enabled.cancel_drawn(), MessageKind::CancelDrawn),
            ("ha/discovery/status".to_owned(), MessageKind::HomeAssistantStatus),
        ] {
            assert_eq!((enabled.kind(&topic), disabled.kind(&topic)), (Some(kind), None), "{topic}");
        }
        let commands =
            ["d/a/home_assistant/settings/set", "d/a/home_assistant/draw", "d/a/home_assistant/cancel"];
        assert_eq!(enabled.home_assistant_commands(), commands);
        assert_eq!(disabled.home_assistant_commands(), [""; 0]);
        assert!(commands.iter().all(|topic| disabled.is_home_assistant_command(topic)));
        for other in [enabled.settings(), enabled.picture(), enabled.job(), "ha/status".to_owned()] {
            assert_eq!(enabled.kind(&other), None, "{other}");
        }
    }

    #[test]
    fn topics_below_the_prefix_are_home_assistant_s() {
        let topics = Topics::new("d").with_home_assistant(Some("ha"));
        assert!(topics.is_discovery_topic("ha/image/x/config") && topics.is_discovery_topic("ha/status"));
        for other in ["ha", "hat/x", "d/ha/x"] {
            assert!(!topics.is_discovery_topic(other), "{other}");
        }
        assert!(!Topics::new("d").is_discovery_topic("ha/x"));
    }
}
