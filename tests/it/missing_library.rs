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
        (missing.as_path(), "there is no such file"),
        (path, "it is a directory; name the file libonnxruntime.so.X.Y.Z in it"),
        (&text, "it is not an ELF file, as every library of Linux is; name the file libonnxruntime.so.X.Y.Z"),
    ] {
        let stderr = fails(&mut sample(path, &format!("[engine]\nlibrary = {library:?}\n")), 1);
        let expected = format!(
            "engine.library is {}: cannot load ONNX Runtime: {fault}; unset or correct engine.library\n",
            library.display()
        );
        assert!(stderr.ends_with(&expected), "{stderr}");
    }
}

/// `doctor` had a note, and good models, where `sample` drew nothing. Neither named the variable.
#[test]
fn doctor_was_content_with_a_library_that_ended_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let weights = directory.path().join("model.safetensors");
    std::fs::write(&weights, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let missing = directory.path().join("libonnxruntime.so");
    let not_elf =
        "it is not an ELF file, as every library of Linux is; name the file libonnxruntime.so.X.Y.Z";
    for (library, fault) in [(&missing, "there is no such file"), (&weights, not_elf)] {
        for variable in ["ORT_DYLIB_PATH", "DENOISED_ENGINE__LIBRARY"] {
            let cause = format!("{variable} is {}: cannot load ONNX Runtime: {fault}", library.display());
            let mut command = sample(directory.path(), "");
            let stderr = fails(command.env(variable, library), 1);
            assert!(stderr.ends_with(&format!("{cause}; unset or correct {variable}\n")), "{stderr}");
            let mut command = denoised();
            command.env("DENOISED_MODELS__PATHS", golden("gaussian")).env(variable, library);
            let (found, code) = crate::doctor::findings(&mut command);
            let finding = crate::doctor::about(&found, "ONNX Runtime");
            assert_eq!((&finding["state"], code), (&"missing".into(), Some(1)), "{finding}");
            assert_eq!(finding["found"], cause);
            let next = finding["next"].as_str().unwrap();
            assert!(next.starts_with(&format!("unset or correct {variable}; ")), "{next}");
            assert!(!next.contains("/usr/lib/denoised"), "{next}");
        }
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
