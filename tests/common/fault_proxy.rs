//! A network between a client and a broker that can be cut, and can stall.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

#[derive(Default)]
struct State {
    cuts: u64,
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

    fn cuts(&self) -> u64 {
        self.state.lock().unwrap().cuts
    }

    /// Wait while bytes are held back; tells whether a connection lives that was made after so many cuts.
    fn lets_through(&self, born: u64) -> bool {
        let held = |state: &mut State| state.stalled && state.cuts == born;
        self.changed.wait_while(self.state.lock().unwrap(), held).unwrap().cuts == born
    }
}

/// A proxy to a port of this machine.
pub struct Cable {
    pub port: u16,
    faults: Arc<Faults>,
}

impl Cable {
    pub fn to(broker: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let seen = Arc::clone(&faults);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)) else { continue };
                let born = seen.cuts();
                for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let seen = Arc::clone(&seen);
                    std::thread::spawn(move || pump(from, to, &seen, born));
                }
            }
        });
        Self { port, faults }
    }

    /// Break every connection.
    pub fn cut(&self) {
        self.faults.change(|state| state.cuts += 1);
    }

    /// Hold back every byte, of old connections and new ones, or let them go on.
    pub fn stall(&self, stalled: bool) {
        self.faults.change(|state| state.stalled = stalled);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, faults: &Faults, born: u64) {
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while faults.lets_through(born) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            // What was read before a stall began is held back too.
            Ok(count) if !faults.lets_through(born) || to.write_all(&buffer[..count]).is_err() => break,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
