//! Types of configuration values. Each one validates itself when it is deserialized.

use crate::topic_name::topic_fault;
use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// The daemon's name: `[A-Za-z0-9._-]{1,64}`. Default: the host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    name: String,
    is_host_name: bool,
}

impl NodeName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns whether the host name is used because no name is configured.
    pub(crate) fn is_host_name(&self) -> bool {
        self.is_host_name
    }
}

impl Default for NodeName {
    fn default() -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let name: String = host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
            .take(64)
            .collect();
        let name = if name.is_empty() { "denoised".to_owned() } else { name };
        Self { name, is_host_name: true }
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "" => Ok(Self::default()),
            name if crate::job::is_id(name) => Ok(Self { name: name.to_owned(), is_host_name: false }),
            _ => Err(invalid(&name, "1 to 64 of the characters A-Z a-z 0-9 . _ -")),
        }
    }
}

/// The placeholder of the node's name in the prefix of all topics.
const NODE: &str = "{node}";

/// The prefix of all topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRoot(String);

impl TopicRoot {
    /// Returns the prefix with the node's name filled in.
    pub fn for_node(&self, node: &NodeName) -> String {
        self.0.replace(NODE, node.as_str())
    }

    /// Returns the key that distinguishes this prefix from that of another daemon.
    pub(crate) fn distinguishing_key(&self) -> &'static str {
        if self.0.contains(NODE) { "node" } else { "mqtt.root" }
    }

    /// Returns the parts before and after the node's name, if it is there once.
    pub(crate) fn around_node(&self) -> Option<(&str, &str)> {
        self.0.split_once(NODE).filter(|(_, after)| !after.contains(NODE))
    }

    /// Returns the node's name with which the prefix is `root`, if there is one.
    pub(crate) fn node_in<'a>(&self, root: &'a str) -> Option<&'a str> {
        let (before, after) = self.0.split_once(NODE)?;
        let node = root.strip_prefix(before)?.strip_suffix(after)?;
        (self.0.replace(NODE, node) == root && crate::job::is_id(node)).then_some(node)
    }
}

impl Default for TopicRoot {
    fn default() -> Self {
        Self("denoised/{node}".to_owned())
    }
}

impl<'de> Deserialize<'de> for TopicRoot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let root = String::deserialize(deserializer)?;
        let is_invalid = root.is_empty()
            || root.len() > 1024
            || root.contains(['+', '#', '\0'])
            || root.starts_with(['/', '$'])
            || root.ends_with('/');
        if root.replace(NODE, "").contains(['{', '}']) {
            return Err(invalid(&root, "no other placeholder than {node}"));
        }
        if is_invalid {
            let expected =
                "a topic of 1 to 1024 bytes without + and #, which does not start with / or $ or end with /";
            return Err(invalid(&root, expected));
        }
        // The longest topics have two levels below the root.
        if let Some(fault) = topic_fault(&format!("{root}/progress/id")) {
            return Err(D::Error::custom(format!("{root:?} cannot be the root of all topics: {fault}")));
        }
        Ok(Self(root))
    }
}

/// A shared subscription: `$share/GROUP/TOPIC`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedQueue {
    filter: String,
    topic: String,
}

impl SharedQueue {
    /// Returns the filter to subscribe to and the topic on which its messages arrive, if it is set.
    pub fn parts(&self) -> Option<(&str, &str)> {
        (!self.filter.is_empty()).then_some((&self.filter, &self.topic))
    }

    /// Returns a valid filter of a shared subscription with its topic.
    pub(crate) fn split(filter: &str) -> Option<(&str, &str)> {
        let (group, topic) = filter.strip_prefix("$share/")?.split_once('/')?;
        let is_valid = !group.is_empty()
            && !group.contains(['+', '#'])
            && topic_fault(topic).or(topic_fault(filter)).is_none();
        is_valid.then_some((filter, topic))
    }
}

impl<'de> Deserialize<'de> for SharedQueue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let filter = String::deserialize(deserializer)?;
        if filter.is_empty() {
            return Ok(Self::default());
        }
        match Self::split(&filter) {
            _ if filter.contains(['{', '}']) => {
                Err(invalid(&filter, "a filter without {node}, which only mqtt.root has"))
            }
            Some((_, topic)) => {
                let topic = topic.to_owned();
                Ok(Self { filter, topic })
            }
            _ => Err(invalid(
                &filter,
                "$share/GROUP/TOPIC, of at most 200 levels, without + and #, and without control characters",
            )),
        }
    }
}

/// The MQTT client id; unset: made of the node's name and an id of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientId(String);

impl ClientId {
    /// Returns the id, if it is set.
    pub fn as_str(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        let is_valid =
            id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic() && !b"+#".contains(&byte));
        if !is_valid {
            return Err(invalid(&id, "at most 128 visible ASCII characters other than + and #"));
        }
        Ok(Self(id))
    }
}

/// The broker's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// The host name or IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the connection uses TLS.
    pub tls: bool,
}

impl Default for BrokerUrl {
    fn default() -> Self {
        Self { host: "localhost".to_owned(), port: 1883, tls: false }
    }
}

impl std::fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl std::str::FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("{what}; write mqtt://host:1883 or mqtts://host:8883");
        // "host:1883" is a URL of the scheme "host".
        if !text.contains("//") && !text.is_empty() {
            return match format!("mqtt://{text}").parse::<Self>() {
                Ok(_) => Err(format!("{text:?} has no scheme; write mqtt://{text}")),
                Err(_) => Err(fault(&format!("{text:?} has no scheme"))),
            };
        }
        if text.is_empty() {
            return Err(fault("the address of the broker is missing"));
        }
        let url = url::Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => fault(&format!("{text:?} has no scheme")),
            error => fault(&format!("{text:?} is not a URL ({error})")),
        })?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            "ws" | "wss" => {
                return Err(fault("denoised does not speak MQTT over WebSockets; use the broker's TCP port"));
            }
            other => return Err(fault(&format!("the scheme {other:?} is not supported"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("credentials belong in username and password_file, not in the URL"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(fault("the URL must end with the port"));
        }
        if url.port() == Some(0) {
            return Err(fault("the port must be 1 to 65535"));
        }
        match url.host_str() {
            Some(host) if !host.is_empty() => Ok(Self {
                // A URL has an IPv6 address in brackets.
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port().unwrap_or(if tls { 8883 } else { 1883 }),
                tls,
            }),
            _ => Err(fault("the host is missing")),
        }
    }
}

impl<'de> Deserialize<'de> for BrokerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The QoS of published images, results and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PublishQos {
    /// QoS 1, at least once.
    #[default]
    AtLeastOnce,
    /// QoS 2, exactly once.
    ExactlyOnce,
}

impl<'de> Deserialize<'de> for PublishQos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(D::Error::invalid_value(Unexpected::Unsigned(other), &"1 or 2")),
        }
    }
}

/// The most verbose level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub log::LevelFilter);

impl Default for LogLevel {
    fn default() -> Self {
        Self(log::LevelFilter::Info)
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(|_| invalid(&name, "off, error, warn, info, debug or trace"))
    }
}

pub(super) fn invalid<E: Error>(found: &str, expected: &str) -> E {
    E::invalid_value(Unexpected::Str(found), &expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a fixed root, another `node` changes no topic.
    #[test]
    fn a_fixed_root_is_distinguished_by_its_own_key() {
        for (root, key) in [("home/printer", "mqtt.root"), ("home/{node}", "node"), ("{node}/{node}", "node")]
        {
            assert_eq!(TopicRoot(root.to_owned()).distinguishing_key(), key);
        }
    }

    #[test]
    fn broker_urls_have_default_ports_and_no_secrets() {
        let url: BrokerUrl = "mqtts://broker.example".parse().unwrap();
        assert_eq!((url.port, url.tls), (8883, true));
        let url: BrokerUrl = "mqtt://[::1]:1999".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", 1999, false));
        assert_eq!(url.to_string(), "mqtt://[::1]:1999");
        for text in ["broker", "http://x", "mqtt://u:p@host", "mqtt://host/path", "mqtt://", "mqtt://host:0"]
        {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
        assert_eq!(
            "localhost:1883".parse::<BrokerUrl>().unwrap_err(),
            "\"localhost:1883\" has no scheme; write mqtt://localhost:1883"
        );
        let missing = "".parse::<BrokerUrl>().unwrap_err();
        assert!(missing.starts_with("the address of the broker is missing; write mqtt://"), "{missing}");
        for text in ["ws://host:9001", "wss://host/mqtt"] {
            let message = text.parse::<BrokerUrl>().unwrap_err();
            assert!(message.contains("WebSockets; use the broker's TCP port"), "{message}");
        }
    }
}
