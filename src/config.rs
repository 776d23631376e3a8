//! The configuration: defaults, overridden by a file, overridden by environment variables.

mod automatic;
mod checked;
mod consistency;
mod engine;
mod environment;
mod file;
mod home_assistant;
mod known_keys;
mod layers;
mod listen_address;
#[cfg(test)]
mod message_tests;
mod unused_engine_options;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::job::JobLimits;
use crate::platform::Platform;

pub use crate::units::{Bounded, ByteSize};
pub use automatic::{BatchLimit, MemoryLimit};
pub use engine::{EngineConfig, ModelEngineConfig};
pub use environment::process_environment;
pub use home_assistant::{DiscoveryForm, DiscoveryPrefix, HomeAssistantConfig};
pub use layers::{ConfigErrors, ConfigFault, DEFAULT_FILE, load};
pub use listen_address::ListenAddress;
pub use values::{BrokerUrl, ClientId, LogLevel, NodeName, PublishQos, SharedQueue, TopicRoot};

/// The configuration. `systemd/config.toml` documents every key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The daemon's name.
    pub node: NodeName,
    /// `[mqtt]`
    pub mqtt: MqttConfig,
    /// `[home_assistant]`
    pub home_assistant: HomeAssistantConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[models]`
    pub models: ModelsConfig,
    /// `[engine]`
    pub engine: EngineConfig,
    /// `[spool]`
    pub spool: SpoolConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[receipt]`
    pub receipt: ReceiptConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[board]`
    pub board: BoardConfig,
    /// Environment variables that begin with `DENOISED_` and that others set for their own purposes.
    #[serde(skip)]
    pub ignored_variables: Vec<String>,
    /// The bytes that an automatic memory limit of the sessions means since it was fixed.
    #[serde(skip)]
    automatic_memory: Option<u64>,
}

/// The broker and the connection to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// `mqtt://host:port`, or `mqtts://` for TLS.
    pub url: BrokerUrl,
    /// The prefix of all topics; `{node}` is replaced by the node's name.
    pub root: TopicRoot,
    /// The client id. Default: the node's name and an id of the machine.
    pub client_id: ClientId,
    /// The user name; empty: none.
    #[serde(deserialize_with = "checked::user_name")]
    pub username: String,
    /// A file with the password.
    #[serde(deserialize_with = "checked::optional_file")]
    pub password_file: Option<PathBuf>,
    /// A PEM file with the CA of the broker's certificate. Default: the system's CAs.
    #[serde(deserialize_with = "checked::optional_file")]
    pub ca_file: Option<PathBuf>,
    /// A shared subscription for requests, such as `$share/denoised/denoised/request`; empty: none.
    pub shared_queue: SharedQueue,
    /// A PEM file with the client certificate.
    #[serde(deserialize_with = "checked::optional_file")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the client certificate's private key.
    #[serde(deserialize_with = "checked::optional_file")]
    pub key_file: Option<PathBuf>,
    /// The QoS of images, results and errors.
    pub qos: PublishQos,
    /// The maximum size of a packet, received or sent.
    pub max_packet: ByteSize,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            url: BrokerUrl::default(),
            root: TopicRoot::default(),
            client_id: ClientId::default(),
            username: String::new(),
            password_file: None,
            ca_file: None,
            shared_queue: SharedQueue::default(),
            cert_file: None,
            key_file: None,
            qos: PublishQos::default(),
            max_packet: ByteSize::mebibytes(16),
        }
    }
}

impl MqttConfig {
    /// Returns a key that is set without another one, and the key that it needs.
    pub fn incomplete_pair(&self) -> Option<[&'static str; 2]> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => return Some(["mqtt.cert_file", "mqtt.key_file"]),
            (None, Some(_)) => return Some(["mqtt.key_file", "mqtt.cert_file"]),
            _ => {}
        }
        let lacks_user = self.username.is_empty() && self.password_file.is_some();
        lacks_user.then_some(["mqtt.password_file", "mqtt.username"])
    }
}

/// The HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The address and the port to listen on; empty: no HTTP.
    pub listen: ListenAddress,
    /// A file with the token that requests must have. Required on addresses that other machines reach.
    #[serde(deserialize_with = "checked::optional_file")]
    pub token_file: Option<PathBuf>,
}

/// The models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// The bundles' directories; the first is the default model.
    #[serde(deserialize_with = "checked::model_paths")]
    pub paths: Vec<PathBuf>,
    /// Directories whose models requests can load, besides those of `paths`.
    #[serde(deserialize_with = "checked::directories")]
    pub directories: Vec<PathBuf>,
    /// Directories of LoRA files for all models, beside the folder `loras` of each.
    pub loras: Vec<PathBuf>,
    /// How long a model stays in memory without jobs, in seconds; unset: for ever.
    pub idle_unload_s: Option<Bounded<1, 31_536_000>>,
    /// Overrides of `[engine]`, by the model's name.
    pub engine: BTreeMap<String, ModelEngineConfig>,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        let paths = vec![PathBuf::from("/usr/share/denoised/models/digits")];
        Self {
            paths,
            directories: Vec::new(),
            loras: Vec::new(),
            idle_unload_s: None,
            engine: BTreeMap::new(),
        }
    }
}

impl ModelsConfig {
    /// How long a model stays in memory without jobs; `None` for ever.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.idle_unload_s.map(|seconds| Duration::from_secs(seconds.0))
    }
}

/// The spool: what must survive a restart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// The directory.
    #[serde(deserialize_with = "checked::directory")]
    pub path: PathBuf,
    /// The maximum size of undelivered messages and of the responses of finished jobs.
    pub max_bytes: ByteSize,
    /// How long the responses of a finished job are kept for a repeated request, in seconds that the daemon runs.
    pub keep_s: Bounded<0, 31_536_000>,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/denoised"),
            max_bytes: ByteSize::mebibytes(256),
            keep_s: Bounded(86_400),
        }
    }
}

/// Limits on jobs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The maximum number of unfinished jobs.
    pub queue: Bounded<1, 1_000_000>,
    /// The maximum number of steps of a job.
    pub steps: Bounded<1, 100_000>,
    /// The maximum number of images of a job.
    pub count: Bounded<1, 10_000>,
    /// The maximum number of pixels of an image, sent or made.
    pub pixels: Bounded<1, 1_000_000_000>,
    /// The maximum size of a request.
    pub payload: ByteSize,
    /// How long a stopping daemon finishes and delivers jobs, in seconds.
    pub drain_s: Bounded<0, 3600>,
    /// The maximum rank of a layer, that of a job's LoRAs together.
    pub lora_rank: Bounded<1, 4096>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            queue: Bounded(1000),
            steps: Bounded(1000),
            count: Bounded(64),
            pixels: Bounded(2048 * 2048),
            payload: ByteSize::mebibytes(1),
            drain_s: Bounded(10),
            lora_rank: Bounded(128),
        }
    }
}

impl LimitsConfig {
    /// Returns the limits on a single job; `memory` is `[engine] memory` in bytes.
    pub fn job(&self, memory: Option<u64>) -> JobLimits {
        JobLimits { steps: self.steps.0, count: self.count.0, pixels: self.pixels.0, memory }
    }
}

/// The receipts of images.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiptConfig {
    /// Whether pictures contain their receipts.
    pub embed: bool,
}

impl Default for ReceiptConfig {
    fn default() -> Self {
        Self { embed: true }
    }
}

/// The log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The most verbose level that is logged; `RUST_LOG` overrides it.
    pub level: LogLevel,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardConfig {
    /// The root directory of the files that describe the machine.
    #[serde(deserialize_with = "checked::file_tree")]
    pub root: PathBuf,
    /// The temperature of the hottest zone at which new jobs wait, in °C.
    pub pause_above_c: Option<Bounded<30, 150>>,
}

impl Default for BoardConfig {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), pause_above_c: None }
    }
}

impl BoardConfig {
    /// Returns the machine.
    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.root)
    }

    /// Returns the temperature at which new jobs wait, in °C.
    pub fn pause_above_celsius(&self) -> Option<f64> {
        self.pause_above_c.map(|celsius| celsius.0 as f64)
    }
}

impl Config {
    /// Returns the prefix of all topics.
    pub fn root(&self) -> String {
        self.mqtt.root.for_node(&self.node)
    }
}
