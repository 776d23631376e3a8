//! The configuration: defaults, then a file, then the environment.

mod layers;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::inference::{
    Cuda, EngineKind, EngineOptions, OpenVino, Policy, Provider, ProviderOptions, TensorRt,
};
use crate::job::JobLimits;
use crate::platform::Platform;

pub use crate::units::{Bounded, ByteSize};
pub use layers::{ConfigErrors, DEFAULT_FILE, Fault, load};
pub use values::{BrokerUrl, LogLevel, Node, Qos, Root, SharedQueue};

/// Everything that can be set; see `systemd/config.toml` for what each key means.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The daemon's name.
    pub node: Node,
    /// The broker.
    pub mqtt: Mqtt,
    /// The bundles.
    pub models: Models,
    /// What runs them.
    pub engine: Engine,
    /// What must not be lost.
    pub spool: Spool,
    /// Bounds.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// The machine.
    pub board: BoardSection,
}

/// The broker and how it is reached.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtt://host:port`, or `mqtts://` for TLS.
    pub url: BrokerUrl,
    /// What all topics begin with; `{node}` stands for the node's name.
    pub root: Root,
    /// The user, if the broker asks for one.
    pub username: String,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The authority that signed the broker's certificate; the system's own if missing.
    pub ca_file: Option<PathBuf>,
    /// A shared queue that is served besides the daemon's own topic, as
    /// `$share/denoised/denoised/request`; empty: none.
    pub shared_queue: SharedQueue,
    /// A certificate that proves who we are, in PEM form, with its key.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, in PEM form.
    pub key_file: Option<PathBuf>,
    /// The quality of service of images, results and errors.
    pub qos: Qos,
    /// The largest packet that is taken or sent.
    pub max_packet: ByteSize,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            url: BrokerUrl::default(),
            root: Root::default(),
            username: String::new(),
            password_file: None,
            ca_file: None,
            shared_queue: SharedQueue::default(),
            cert_file: None,
            key_file: None,
            qos: Qos::default(),
            max_packet: ByteSize::mebibytes(16),
        }
    }
}

/// The bundles.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// Their directories; the first is the default.
    pub paths: Vec<PathBuf>,
    /// By a model's name, what it has of its own in place of `[engine]`.
    pub engine: BTreeMap<String, ModelEngine>,
}

impl Default for Models {
    fn default() -> Self {
        let paths = vec![PathBuf::from("/usr/share/denoised/models/digits")];
        Self { paths, engine: BTreeMap::new() }
    }
}

/// What runs the models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Which engine.
    pub kind: EngineKind,
    /// ONNX Runtime's library; empty to search for it.
    pub library: PathBuf,
    /// Execution providers, first choice first.
    pub providers: Vec<Provider>,
    /// Whether the first choice must work.
    pub policy: Policy,
    /// The most samples in one evaluation.
    pub batch: Bounded<1, 1024>,
    /// The directory in which providers keep the engines that they build.
    pub cache: PathBuf,
    /// An engine is built only where so much memory is free.
    pub build_memory: ByteSize,
    /// The most that all open graphs with their weights may take; unset: all stay open.
    pub memory: Option<ByteSize>,
    /// The longest side in pixels that an autoencoder works on at once; unset: whole pictures.
    pub vae_tile: Option<Bounded<64, 65536>>,
    /// The provider that serves while the first one's engine is built.
    pub meanwhile: Option<Provider>,
    /// TensorRT's options.
    pub tensorrt: TensorRt,
    /// CUDA's options.
    pub cuda: Cuda,
    /// OpenVINO's options.
    pub openvino: OpenVino,
}

/// What one model has of its own in place of `[engine]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelEngine {
    /// Execution providers, first choice first.
    pub providers: Option<Vec<Provider>>,
    /// Whether the first choice must work.
    pub policy: Option<Policy>,
    /// The most samples in one evaluation.
    pub batch: Option<Bounded<1, 1024>>,
    /// TensorRT's options, all of them.
    pub tensorrt: Option<TensorRt>,
    /// CUDA's options, all of them.
    pub cuda: Option<Cuda>,
    /// OpenVINO's options, all of them.
    pub openvino: Option<OpenVino>,
}

impl Default for Engine {
    fn default() -> Self {
        let options = EngineOptions::default();
        Self {
            kind: options.kind,
            library: PathBuf::new(),
            providers: options.providers,
            policy: options.policy,
            batch: Bounded(options.batch as u64),
            cache: options.cache,
            build_memory: ByteSize(options.build_memory),
            memory: None,
            vae_tile: None,
            meanwhile: options.interim_provider,
            tensorrt: TensorRt::default(),
            cuda: Cuda::default(),
            openvino: OpenVino::default(),
        }
    }
}

impl Config {
    /// What runs the bundle in a directory.
    pub fn engine_of(&self, bundle: &Path) -> EngineOptions {
        let name = bundle.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let own = self.models.engine.get(&name).cloned().unwrap_or_default();
        let Engine {
            kind,
            library,
            providers,
            policy,
            batch,
            cache,
            build_memory,
            memory,
            vae_tile,
            meanwhile,
            ..
        } = self.engine.clone();
        EngineOptions {
            kind,
            library: (!library.as_os_str().is_empty()).then_some(library),
            providers: own.providers.unwrap_or(providers),
            policy: own.policy.unwrap_or(policy),
            batch: own.batch.unwrap_or(batch).0 as usize,
            provider: ProviderOptions {
                tensorrt: own.tensorrt.unwrap_or_else(|| self.engine.tensorrt.clone()),
                cuda: own.cuda.unwrap_or_else(|| self.engine.cuda.clone()),
                openvino: own.openvino.unwrap_or_else(|| self.engine.openvino.clone()),
            },
            cache,
            build_memory: build_memory.0,
            memory: memory.map(|bytes| bytes.0),
            vae_tile: vae_tile.map(|side| side.0 as usize),
            host: std::sync::Arc::new(self.board.machine()),
            interim_provider: meanwhile,
        }
    }
}

/// What must not be lost.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Its directory.
    pub path: PathBuf,
    /// The most that waits for the broker, and that is kept of finished jobs.
    pub max_bytes: ByteSize,
    /// For how long a repeated request is answered from what is kept, in seconds.
    pub keep_s: Bounded<0, 31_536_000>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/denoised"),
            max_bytes: ByteSize::mebibytes(256),
            keep_s: Bounded(86_400),
        }
    }
}

/// Bounds on jobs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most jobs that wait or are worked on.
    pub queue: Bounded<1, 1_000_000>,
    /// The most steps of a job.
    pub steps: Bounded<1, 100_000>,
    /// The most images of a job.
    pub count: Bounded<1, 10_000>,
    /// The most pixels of a picture, given or drawn.
    pub pixels: Bounded<1, 1_000_000_000>,
    /// The largest request.
    pub payload: ByteSize,
    /// For how long a daemon that stops works on and delivers, in seconds.
    pub drain_s: Bounded<0, 3600>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: Bounded(1000),
            steps: Bounded(1000),
            count: Bounded(64),
            pixels: Bounded(2048 * 2048),
            payload: ByteSize::mebibytes(1),
            drain_s: Bounded(10),
        }
    }
}

impl Limits {
    /// As jobs are checked against it.
    pub fn job(&self, memory: Option<u64>) -> JobLimits {
        JobLimits { steps: self.steps.0, count: self.count.0, pixels: self.pixels.0, memory }
    }
}

/// The log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least urgent level that is shown; `RUST_LOG` counts before it.
    pub level: LogLevel,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardSection {
    /// The directory under which its files are read.
    pub root: PathBuf,
    /// New jobs wait while the warmest zone has so many degrees Celsius or more.
    pub pause_above_c: Option<Bounded<30, 150>>,
}

impl Default for BoardSection {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), pause_above_c: None }
    }
}

impl BoardSection {
    /// As its files tell it.
    pub fn machine(&self) -> Platform {
        Platform::at(&self.root)
    }

    /// Its limit in degrees Celsius.
    pub fn limit(&self) -> Option<f64> {
        self.pause_above_c.map(|celsius| celsius.0 as f64)
    }
}

impl Config {
    /// The beginning of all topics.
    pub fn root(&self) -> String {
        self.mqtt.root.of(&self.node)
    }
}
