//! ONNX Runtime's library is missing, or the file that is named is no library.

use std::path::Path;
use std::process::Command;

use crate::common::commands::{denoised, fails, succeeds};
use crate::common::golden;

/// Returns a `sample` command with this section `[engine]`.
fn sample(directory: &Path, engine: &str) -> Command {
    let file = directory.join("config.toml");
    std::fs::write(&file, engine).unwrap();
    let mut command = denoised();
    command.arg("sample").arg(golden("gaussian")).arg("--output").arg(directory.join("x.npy"));
    command.args(["--steps", "1", "--config"]).arg(file);
    command
}

/// The embedded engine served.
#[test]
fn a_required_provider_was_ignored_without_a_library() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let expected = "the execution provider cuda is required but does not work here: no ONNX Runtime library was \
                    found in [engine] library, ORT_DYLIB_PATH, /usr/lib/denoised or the loader's path. Name \
                    libonnxruntime.so.X.Y.Z in one of them, or set [engine] policy = \"preferred\" to let the next \
                    provider serve";
    let required = "[engine]\nproviders = [\"cuda\", \"cpu\"]\npolicy = \"required\"\n";
    let stderr = fails(&mut sample(path, required), 1);
    assert!(stderr.contains(expected), "{stderr}");
    let models = format!("[models]\npaths = [{:?}]\n{required}cache = {:?}\n", golden("gaussian"), path);
    std::fs::write(path.join("config.toml"), models).unwrap();
    let command = |name: &str| {
        let mut command = denoised();
        command.args([name, "--config"]).arg(path.join("config.toml"));
        command
    };
    let stderr = fails(&mut command("build-engines"), 1);
    assert!(stderr.contains(expected), "{stderr}");
    let report = String::from_utf8(command("doctor").output().unwrap().stdout).unwrap();
    assert!(report.contains("MISSING  ONNX Runtime "), "{report}");
    // The embedded engine runs on the CPU.
    succeeds(&mut sample(path, "[engine]\nproviders = [\"cpu\"]\npolicy = \"required\"\n"));
}

#[test]
fn options_of_providers_had_no_effect_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let output = succeeds(&mut sample(directory.path(), "[engine.cuda]\ntf32 = false\n"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(
            "[engine.cuda] has no effect: the embedded engine serves, because no ONNX Runtime library was found"
        ),
        "{stderr}"
    );
}

/// Each of them had the advice to name another file, and the path twice.
#[test]
fn every_file_that_cannot_be_loaded_had_the_same_advice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let text = path.join("libonnxruntime.so.1");
    std::fs::write(&text, "not a library").unwrap();
    let missing = path.join("none.so");
    for (library, fault) in [
        (missing.as_path(), "there is no such file; correct the path"),
        (path, "it is a directory; name the file libonnxruntime.so.X.Y.Z in it"),
        (&text, "it is not an ELF file, as every library of Linux is; name the file libonnxruntime.so.X.Y.Z"),
    ] {
        let stderr = fails(&mut sample(path, &format!("[engine]\nlibrary = {library:?}\n")), 1);
        let expected = format!("{}: cannot load ONNX Runtime: {fault}\n", library.display());
        assert!(stderr.ends_with(&expected), "{stderr}");
    }
}

/// A truncated library ended the process with SIGBUS.
#[cfg(feature = "system-tests")]
#[test]
fn a_truncated_library_ended_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let library = path.join("libonnxruntime.so.1.23.2");
    std::fs::copy(crate::common::commands::onnxruntime(), &library).unwrap();
    let whole = library.metadata().unwrap().len();
    let engine = format!("[engine]\nproviders = [\"cpu\"]\nlibrary = {library:?}\n");
    succeeds(&mut sample(path, &engine));
    std::fs::File::options().write(true).open(&library).unwrap().set_len(whole / 2).unwrap();
    let stderr = fails(&mut sample(path, &engine), 1);
    assert!(stderr.contains(&format!("it ends after {} of ", whole / 2)), "{stderr}");
}
