//! The command `denoised`.

use std::io::Write;

fn main() {
    let exit_code = denoised::cli::run();
    // Skip static destructors: they can tear down ONNX Runtime while a background thread is still loading a model,
    // which occasionally crashes.
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(exit_code.into());
}
