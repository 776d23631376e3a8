//! The demo's MQTT broker, on a free port of the loopback interface.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::config::BrokerUrl;

/// The largest packet, in bytes.
const MAX_PAYLOAD: usize = 16 << 20;

/// The longest time until the broker listens. It usually takes milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the broker on a thread that lives as long as the process. Returns its address once it listens.
pub(super) fn start() -> anyhow::Result<BrokerUrl> {
    let port = free_port()?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = ServerSettings {
        name: "demo".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: MAX_PAYLOAD,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        router: RouterConfig {
            max_connections: 16,
            max_outgoing_packet_count: 200,
            max_segment_size: 100 << 20,
            max_segment_count: 4,
            ..RouterConfig::default()
        },
        v5: Some(HashMap::from([("demo".to_owned(), server)])),
        ..Config::default()
    };
    let mut broker = Broker::new(config);
    std::thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || {
            if let Err(error) = broker.start() {
                log::error!("the demo's broker ended: {error}");
            }
        })
        .context("starting the broker's thread")?;
    wait_until_listening(listen)?;
    Ok(BrokerUrl { host: Ipv4Addr::LOCALHOST.to_string(), port, tls: false })
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr().context("finding a free port")?.port())
}

fn wait_until_listening(address: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // Linux may give a client the port that it connects to as its own, so that it connects to itself. Waiting
        // first makes an attempt before the broker listens unlikely.
        std::thread::sleep(Duration::from_millis(5));
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > START_TIMEOUT => {
                return Err(error).with_context(|| format!("the demo's broker does not listen at {address}"));
            }
            Err(_) => {}
        }
    }
}
