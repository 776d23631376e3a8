//! Standard output.

use std::io::{Result, Write};

/// Standard output with errors that name it. `println!` would panic on a full disk or a closed pipe.
#[derive(Debug)]
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        std::io::stdout().write(bytes).map_err(with_name)
    }

    fn flush(&mut self) -> Result<()> {
        std::io::stdout().flush().map_err(with_name)
    }
}

fn with_name(error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}
