//! `denoised demo`: a broker, the daemon and a subscriber in one process, connected by MQTT.
//!
//! The feature `demo` adds the broker and copies of the models to the program. Without it, the demo needs a broker and
//! a directory of models.

#[cfg(feature = "demo")]
mod broker;
mod models;
mod subscriber;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use image::DynamicImage;
use tokio::sync::{mpsc, watch};

use super::output::OutputTarget;
use super::progress::ProgressDisplay;
use super::stdout::Stdout;
use super::{CommandError, ConfigFile};
use crate::config::{BrokerUrl, Config};
use crate::mqtt::probe;
use crate::mqtt::{Message, Topics};
use crate::service::broker::settings as broker_settings;
use crate::service::{LocalPort, Signals};
use subscriber::{Answer, Subscriber};

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// The broker, as mqtt://host:port [default: one in this process, if the program contains one]
    #[arg(long, value_name = "URL")]
    broker: Option<BrokerUrl>,
    /// The directory of the images
    #[arg(long, value_name = "DIR", default_value = "demo")]
    output: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
}

/// The longest time that the demo may take; the slowest known machine needs far less.
const DEMO_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(arguments: &DemoArguments) -> Result<(), CommandError> {
    super::start_log(log::LevelFilter::Warn);
    OutputTarget::Directory(arguments.output.clone()).check().map_err(CommandError::usage)?;
    let config = super::configuration(arguments.file.config.as_deref())?;
    let began = Instant::now();
    let url = broker(arguments.broker.as_ref())?;
    writeln!(Stdout, "broker       {url} {}", since(began))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    Ok(runtime.block_on(show(url, config, arguments))?)
}

async fn show(url: BrokerUrl, mut config: Config, arguments: &DemoArguments) -> anyhow::Result<()> {
    let began = Instant::now();
    config.mqtt.url = url;
    check_broker(&config).await?;
    let scratch = tempfile::tempdir().context("creating a temporary directory")?;
    let models = models::directory(&scratch.path().join("models"))?;
    config.models.paths = vec![models.join("digits"), models.join("swissroll")];
    config.spool.path = scratch.path().join("spool");
    let (stop, stopped) = watch::channel(false);
    let (_unchanged, reload) = mpsc::channel(1);
    let daemon = {
        let config = config.clone();
        tokio::spawn(async move {
            crate::service::run(&config, Signals { stop: stopped, reload, local: LocalPort::default() }).await
        })
    };
    let result = tokio::select! {
        result = run_jobs(&config, &arguments.output, began) => result,
        () = tokio::time::sleep(DEMO_TIMEOUT) => Err(anyhow::anyhow!("the demo did not finish within {DEMO_TIMEOUT:?}")),
    };
    stop.send_replace(true);
    let daemon_result = daemon.await.context("the daemon")?;
    // If the daemon failed, its error explains the timeout.
    daemon_result.context("the daemon")?;
    result
}

/// Connects to the broker once, so that a fault is reported before the daemon and the subscriber try for themselves.
async fn check_broker(config: &Config) -> anyhow::Result<()> {
    let url = &config.mqtt.url;
    if url.tls {
        bail!("the demo supports mqtt:// only; use `denoised run` with mqtts://");
    }
    let settings = broker_settings(config, "denoised-demo-check".to_owned())?;
    let topics = Topics::new(config.root());
    let message = Message::new(topics.progress("demo"), r#"{"step":0,"of":0,"eta_ms":0}"#);
    // The demo takes the broker from its flag, not from the configuration.
    let with_flag = |reason: String| reason.replace("mqtt.url", "--broker");
    let report = probe::check(&settings, &topics, message).await.map_err(|reason| {
        let reason = with_flag(reason.to_string());
        anyhow::anyhow!(
            "no broker for the demo at {url}: {reason}; or leave out --broker, if this build has its own"
        )
    })?;
    match report.refused.first() {
        Some((topic, reason)) => {
            bail!("the broker at {url} refuses {topic}: {}", with_flag(reason.to_string()))
        }
        None => Ok(()),
    }
}

/// Requests all digits and a Swiss roll, and saves the images.
async fn run_jobs(config: &Config, output: &Path, began: Instant) -> anyhow::Result<()> {
    let mut subscriber = Subscriber::connect(&config.mqtt.url, &config.root()).await?;
    let state = subscriber.ready().await?;
    writeln!(
        Stdout,
        "daemon       {} on {} {} {}",
        state["node"].as_str().unwrap_or_default(),
        state["engine"].as_str().unwrap_or_default(),
        state["provider"].as_str().unwrap_or_default(),
        since(began)
    )?;
    std::fs::create_dir_all(output).with_context(|| output.display().to_string())?;
    let mut digits = Vec::new();
    for class in 0..10 {
        let request = serde_json::json!({"id": format!("digit-{class}"), "model": "digits", "class": class, "seed": class});
        digits.push(request_image(&mut subscriber, output, &format!("digit-{class}"), request).await?);
    }
    let sheet = crate::image::grid(&digits, 4)?;
    let path = output.join("digits.png");
    std::fs::write(&path, crate::image::png(&sheet)?).with_context(|| path.display().to_string())?;
    let request = serde_json::json!({"id": "swissroll", "model": "swissroll", "seed": 1});
    request_image(&mut subscriber, output, "swissroll", request).await?;
    writeln!(Stdout, "all ten digits on one sheet: {}", path.display())?;
    Ok(())
}

/// Publishes a request, shows its progress, saves its image and returns it.
async fn request_image(
    subscriber: &mut Subscriber,
    output: &Path,
    id: &str,
    request: serde_json::Value,
) -> anyhow::Result<DynamicImage> {
    let began = Instant::now();
    subscriber.request(&request).await?;
    let mut progress = ProgressDisplay::new(id);
    let mut image = None;
    loop {
        match subscriber.answer(id).await? {
            Answer::Progress { step, of, eta_ms } => progress.show(step, of, eta_ms),
            Answer::Image(png) => {
                let path = output.join(format!("{id}.png"));
                std::fs::write(&path, &png).with_context(|| path.display().to_string())?;
                image = Some(::image::load_from_memory(&png).context("decoding the received image")?);
            }
            Answer::Error(message) => bail!("{id}: {message}"),
            Answer::Result(result) => {
                progress.end();
                let receipt = &result["images"][0]["receipt"];
                writeln!(
                    Stdout,
                    "{id:<12} {}, {} steps, seed {} -> {} {}",
                    receipt["sampler"].as_str().unwrap_or_default(),
                    receipt["steps"],
                    receipt["seed"],
                    output.join(format!("{id}.png")).display(),
                    since(began)
                )?;
                return image.context("the result arrived before its image");
            }
        }
    }
}

fn since(began: Instant) -> String {
    format!("({:.2} s)", began.elapsed().as_secs_f64())
}

/// Returns the broker given by the arguments, or starts one in this process.
#[cfg(feature = "demo")]
fn broker(given: Option<&BrokerUrl>) -> Result<BrokerUrl, CommandError> {
    Ok(given.map_or_else(broker::start, |url| Ok(url.clone()))?)
}

/// Returns the broker given by the arguments.
#[cfg(not(feature = "demo"))]
fn broker(given: Option<&BrokerUrl>) -> Result<BrokerUrl, CommandError> {
    given.cloned().ok_or_else(|| {
        CommandError::usage(anyhow::anyhow!(
            "this build contains no MQTT broker; start one, for example with `mosquitto -p 1883`, and run `denoised \
             demo --broker mqtt://localhost:1883`"
        ))
    })
}
