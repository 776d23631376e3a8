//! The command `denoised`.

use std::io::Write;

fn main() {
    let code = match denoised::cli::run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("denoised: {:#}", error.cause);
            error.code
        }
    };
    // A thread may still open a model or build an engine. An ordinary exit destroys what the library under it uses,
    // and ends in a crash now and then; here nothing is left to be destroyed.
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(code.into());
}
