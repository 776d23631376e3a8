//! Standard output, for what a command was asked to tell.

use std::io::{Result, Write};

/// Standard output whose failure is an error that names it, where `println!` would panic: a disk
/// can be full, and a reader can be gone.
#[derive(Debug)]
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        std::io::stdout().write(bytes).map_err(named)
    }

    fn flush(&mut self) -> Result<()> {
        std::io::stdout().flush().map_err(named)
    }
}

fn named(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("standard output can't be written to: {error}"))
}
