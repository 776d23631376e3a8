//! Runs the program, and finds the libraries that the tests need.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::Duration;

/// Longer than any wait in these tests takes on a slow machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a command for `denoised` that ignores this machine's configuration.
pub fn denoised() -> Command {
    without_variables(Command::new(env!("CARGO_BIN_EXE_denoised")))
}

/// Removes the environment variables that configure the program and the tests from a command.
pub fn without_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("DENOISED_") || name == "ORT_DYLIB_PATH" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the command, which must exit with this code, and returns its stderr.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Runs the command, which must succeed.
pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

/// Returns the path of the ONNX Runtime library that `tests/run` downloads.
pub fn onnxruntime() -> PathBuf {
    library("DENOISED_TEST_ONNXRUNTIME")
}

/// Returns the path of a library that `tests/run` downloads, from the variable that contains the path.
pub fn library(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("{variable} is not the path of a libonnxruntime.so; run the tests with tests/run, which downloads it")
    })
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A process that is killed when this value is dropped.
pub struct ChildGuard {
    pub child: Child,
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
