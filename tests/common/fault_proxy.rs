//! A TCP proxy between a client and a broker that can break connections and stall them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

#[derive(Default)]
struct State {
    /// How often all connections were broken.
    generation: u64,
    stalled: bool,
}

#[derive(Default)]
struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

impl Faults {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn generation(&self) -> u64 {
        self.state.lock().unwrap().generation
    }

    /// Waits while the proxy is stalled. Returns whether connections of this generation still exist.
    fn wait_until_open(&self, generation: u64) -> bool {
        let is_held = |state: &mut State| state.stalled && state.generation == generation;
        self.changed.wait_while(self.state.lock().unwrap(), is_held).unwrap().generation == generation
    }
}

/// A proxy to a port of this machine.
pub struct FaultProxy {
    pub port: u16,
    faults: Arc<Faults>,
}

impl FaultProxy {
    pub fn new(target_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)) else { continue };
                let generation = shared.generation();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let faults = Arc::clone(&shared);
                    std::thread::spawn(move || forward(from, to, &faults, generation));
                }
            }
        });
        Self { port, faults }
    }

    /// Breaks every connection.
    pub fn disconnect_all(&self) {
        self.faults.change(|state| state.generation += 1);
    }

    /// Sets whether all bytes are held back, on existing connections and on new ones.
    pub fn set_stalled(&self, stalled: bool) {
        self.faults.change(|state| state.stalled = stalled);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, faults: &Faults, generation: u64) {
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while faults.wait_until_open(generation) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            // Bytes that were read before a stall are held back too.
            Ok(count) if !faults.wait_until_open(generation) || to.write_all(&buffer[..count]).is_err() => {
                break;
            }
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
