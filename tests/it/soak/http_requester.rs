//! A client that requests one image after the other over HTTP, whatever happens to the daemon.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::common::http::{HttpServer, try_receive};

/// The wait between two requests, which leaves most of the daemon to the other jobs.
const PAUSE: Duration = Duration::from_millis(100);

/// What the client received.
#[derive(Debug, Default)]
pub(super) struct OverHttp {
    /// The images by the id of their job.
    pub(super) images: BTreeMap<String, Vec<u8>>,
    /// The requests that were refused or interrupted.
    pub(super) failures: u64,
}

/// The client's thread.
pub(super) struct HttpRequester {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<OverHttp>>,
}

impl HttpRequester {
    pub(super) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (http, mut over_http) = (HttpServer::new(port), OverHttp::default());
            while !is_stopped.load(Ordering::Relaxed) {
                match image(&http) {
                    Some((id, file)) => drop(over_http.images.insert(id, file)),
                    None => over_http.failures += 1,
                }
                std::thread::sleep(PAUSE);
            }
            over_http
        });
        Self { stop, thread: Some(thread) }
    }

    /// Waits for the last answer, and returns all of them.
    pub(super) fn stop(&mut self) -> OverHttp {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for HttpRequester {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Requests an image. `None` if the daemon refuses it or ends.
fn image(http: &HttpServer) -> Option<(String, Vec<u8>)> {
    // A daemon that was killed does not listen.
    TcpStream::connect((Ipv4Addr::LOCALHOST, http.port)).ok()?;
    let job = json!({"prompt": "", "steps": 5}).to_string();
    let stream = http.send("POST", "/v1/images/generations", "application/json", job.as_bytes());
    let response = try_receive(stream).filter(|response| response.status == 200)?;
    Some((response.json()["denoised"]["id"].as_str()?.to_owned(), response.image(0)))
}
