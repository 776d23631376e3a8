//! An HTTP/1.1 client that shares no code with the server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::commands::TIMEOUT;

/// A server on this machine.
pub struct HttpServer {
    pub port: u16,
    pub token: Option<String>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The header lines, in lower case.
    pub headers: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Returns the image with this index.
    pub fn image(&self, index: usize) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", self.text());
        BASE64.decode(self.json()["data"][index]["b64_json"].as_str().unwrap()).unwrap()
    }

    /// Returns the names and the data of the events.
    pub fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert!(self.headers.contains("content-type: text/event-stream"), "{}", self.headers);
        let text = self.text();
        let events = text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            (name.to_owned(), serde_json::from_str(data).unwrap())
        });
        events.collect()
    }

    /// Returns the status, and the code, the field and the message of the error.
    pub fn error(&self) -> (u16, String, String, String) {
        let error = self.json()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap_or("").to_owned();
        (self.status, text("code"), text("param"), text("message"))
    }
}

impl HttpServer {
    pub fn new(port: u16) -> Self {
        Self { port, token: None }
    }

    /// Connects, once the server listens.
    pub fn connect(&self) -> TcpStream {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// Sends a request, and returns the connection.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> TcpStream {
        let token =
            self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n{token}\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        let mut stream = self.connect();
        // A server that has ended shows when its response is read.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        receive(self.send("GET", path, "text/plain", b""))
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        receive(self.send("POST", path, "application/json", body.to_string().as_bytes()))
    }

    pub fn generate(&self, body: &Value) -> Response {
        self.post("/v1/images/generations", body)
    }

    /// Sends a form with these texts and files.
    pub fn edit(&self, texts: &[(&str, &str)], files: &[(&str, &[u8])]) -> Response {
        let mut body = Vec::new();
        for (name, text) in texts {
            let head = format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
            body.extend(head.into_bytes());
        }
        for (name, file) in files {
            let head = format!(
                "--edge\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\
                 Content-Type: image/png\r\n\r\n"
            );
            body.extend(head.into_bytes());
            body.extend(*file);
            body.extend(b"\r\n");
        }
        body.extend(b"--edge--\r\n");
        receive(self.send("POST", "/v1/images/edits", "multipart/form-data; boundary=edge", &body))
    }

    /// Waits until the daemon accepts jobs.
    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.get("/healthz").status != 200 {
            assert!(Instant::now() < deadline, "the daemon does not become ready");
        }
    }

    /// Returns the value of a metric with its labels, as it is written.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }
}

/// Reads a response up to the end of the connection.
pub fn receive(stream: TcpStream) -> Response {
    try_receive(stream).expect("the connection ended without a response")
}

/// The body that is sent in chunks; `None` if the last one is missing.
fn joined_chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return Some(body);
        }
        body.extend(bytes.get(end + 2..end + 2 + size)?);
        bytes = &bytes[end + 2 + size + 2..];
    }
}

/// Reads a response up to the end of the connection; `None` if it ends early.
pub fn try_receive(mut stream: TcpStream) -> Option<Response> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let headers = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    let body = match headers.contains("transfer-encoding: chunked") {
        true => joined_chunks(&bytes[end + 4..])?,
        false => bytes[end + 4..].to_vec(),
    };
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| length == body.len().to_string()).then_some(Response { status, headers, body })
}
