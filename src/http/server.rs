//! Listens, and serves each connection in a task of its own, within bounds on their number, size and time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;

use super::HttpError;
use super::router::{AppState, router};
use super::token::Token;
use crate::config::Config;
use crate::platform::Platform;
use crate::service::local::LocalHandle;
use crate::service::metrics::Metrics;

/// The most open connections. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long the headers of a request may take, and how long a connection may be idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may read nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest headers of a request, and about the size of the buffers of a connection, in bytes.
const BUFFER_BYTES: usize = 32 << 10;
/// How long responses may take to be sent when the daemon stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait after a connection could not be accepted, for example because the process has too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// A server that listens and does not serve yet.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Arc<Token>>,
    platform: Platform,
}

/// A server that serves.
#[derive(Debug)]
pub(crate) struct RunningServer {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Reads the token and starts to listen, if the configuration has an address.
    pub(crate) async fn bind(config: &Config) -> Result<Option<Self>, HttpError> {
        let Some(address) = config.http.listen.address() else { return Ok(None) };
        let token = config.http.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
        let listener =
            TcpListener::bind(address).await.map_err(|error| HttpError::from_listen(address, &error))?;
        Ok(Some(Self { listener, address, token, platform: config.board.platform() }))
    }

    /// Starts to serve.
    pub(crate) fn start(self, local: LocalHandle) -> RunningServer {
        log::info!("HTTP is served on http://{}", self.address);
        let (stop, stopped) = watch::channel(false);
        let metrics = local.metrics.clone();
        let router = router(AppState::new(local, self.token, self.platform));
        RunningServer { stop, task: tokio::spawn(accept(self.listener, router, metrics, stopped)) }
    }
}

impl RunningServer {
    /// Ends the connections once their responses are sent, or after two seconds.
    pub(crate) async fn close(self) {
        self.stop.send_replace(true);
        // Fails only if the task has panicked.
        drop(self.task.await);
    }
}

async fn accept(listener: TcpListener, router: Router, metrics: Metrics, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        metrics.set_http_connections(MAX_CONNECTIONS - slots.available_permits());
        tokio::select! {
            accepted = next_connection(&listener, &slots) => match accepted {
                Ok((stream, slot)) => {
                    connections.spawn(serve(stream, slot, router.clone(), stop.clone()));
                }
                Err(error) => {
                    log::warn!("cannot accept an HTTP connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Waits for a slot, and then for a connection.
async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn serve(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    // A failure only delays small responses.
    drop(stream.set_nodelay(true));
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(BUFFER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    log::debug!("an HTTP connection ended: {error}");
                }
                break;
            }
            _ = stop.changed(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    drop(slot);
}
