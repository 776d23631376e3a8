//! The command `denoised`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match denoised::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("denoised: {:#}", error.cause);
            ExitCode::from(error.code)
        }
    }
}
