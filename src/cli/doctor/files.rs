//! The files and directories that the daemon needs, judged for its user.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::finding::{Finding, FindingState};
use super::judged_user::JudgedUser;
use super::spool_file;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::http::token_fault;
use crate::inference::EngineKind;
use crate::platform::{Access, AccessError};
use crate::service::broker;

const CREDENTIAL: &str = "mqtt-password";

pub(super) fn findings(config: &Config, user: &JudgedUser) -> Vec<Finding> {
    let mut findings: Vec<_> = config.models.paths.iter().map(|path| model(path, user)).collect();
    findings.push(spool(&config.spool.path, user));
    // Besides engines it keeps prepared graphs, embeddings of prompts, digests and measurements.
    findings.push(directory("engine.cache", &config.engine.cache, user));
    let mqtt = &config.mqtt;
    // The caller has tried to load it.
    let is_tried = user.is_caller() || config.engine.kind == EngineKind::Embedded;
    let library = config.onnxruntime_library().filter(|_| !is_tried);
    let files = [
        ("mqtt.password_file", mqtt.password_file.as_deref()),
        ("mqtt.ca_file", mqtt.ca_file.as_deref()),
        ("mqtt.cert_file", mqtt.cert_file.as_deref()),
        ("mqtt.key_file", mqtt.key_file.as_deref()),
        ("http.token_file", config.http.token_file.as_deref()),
        ("engine.library", library),
    ];
    let mut faults: Vec<_> = broker::file_faults(config).iter().map(ToString::to_string).collect();
    faults.extend(token_fault(&config.http).map(|error| error.to_string()));
    let judged = |(key, path): (&str, Option<&Path>)| Some(with_contents(file(key, path?, user), &faults));
    findings.extend(files.into_iter().filter_map(judged));
    if !is_tried && config.onnxruntime_library().is_none() {
        findings.extend(installed_libraries().iter().map(|path| file("ONNX Runtime file", path, user)));
    }
    findings.extend(password_credential(config, user));
    findings.extend(variables_of_the_caller(config, user));
    findings
}

/// The libraries of ONNX Runtime and its providers where the daemon looks for them by default.
fn installed_libraries() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/denoised").into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_library = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime"))
    };
    let mut libraries: Vec<_> = paths.filter(is_library).collect();
    libraries.sort();
    libraries
}

/// A model, all of whose files the daemon must be able to read.
fn model(path: &Path, user: &JudgedUser) -> Finding {
    if let Some(hidden) = hidden("model", path, user) {
        return hidden;
    }
    let next = || format!("sudo chmod -R a+rX {}", path.display());
    let check = |file: &Path| user.check(file, Access::Read);
    let unreadable =
        if user.is_caller() { None } else { first_unreadable(path, &check, &mut BTreeSet::new()) };
    match unreadable {
        Some((_, AccessError::Missing(_))) | None => {}
        Some((file, error)) => return user.denied("model", &file, "read", &error, next()),
    }
    match Bundle::open(path) {
        Ok(bundle) => Finding::good("model", format!("{} ({})", bundle.name, path.display())),
        Err(error) => Finding::missing(
            "model",
            error.to_string(),
            "set [models] paths to the directories of exported models; `denoised inspect DIRECTORY` shows what a directory has",
        ),
    }
}

/// Returns the first file of a directory tree that may not be read, with the reason. Each directory is visited once:
/// links can lead back to it.
fn first_unreadable(
    path: &Path,
    check: &impl Fn(&Path) -> Result<(), AccessError>,
    visited: &mut BTreeSet<PathBuf>,
) -> Option<(PathBuf, AccessError)> {
    if let Err(error) = check(path) {
        return Some((path.to_owned(), error));
    }
    if !path.is_dir() || path.canonicalize().is_ok_and(|real| !visited.insert(real)) {
        return None;
    }
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().find_map(|entry| first_unreadable(&entry.path(), check, visited)),
        Err(_) => Some((path.to_owned(), AccessError::Hidden(path.to_owned()))),
    }
}

/// The spool's directory, and the file in it.
fn spool(path: &Path, user: &JudgedUser) -> Finding {
    let key = "spool.path";
    let directory = directory(key, path, user);
    let fault =
        if directory.state == FindingState::Good { spool_file::finding(key, path, user) } else { None };
    fault.unwrap_or(directory)
}

/// A directory that the daemon writes to.
fn directory(key: &str, path: &Path, user: &JudgedUser) -> Finding {
    if let Some(hidden) = hidden(key, path, user) {
        return hidden;
    }
    let other = || format!("move it away, or set {key} to another directory");
    if let Some(found) = path.ancestors().find_map(|path| spool_file::obstacle(path, true)) {
        return Finding::missing(key, found, other());
    }
    let install = format!("sudo install -d -m 700 -o {} {}", user.argument(), path.display());
    let next = || format!("{install}, or set {key} to another directory");
    if let Some(unit) = &user.unit {
        if !unit.allows_writing(path) {
            return Finding::missing(
                key,
                format!("denoised.service may not write to {}", path.display()),
                format!(
                    "sudo systemctl edit denoised, and add to [Service]: ReadWritePaths={}; or set {key} to another \
                     directory",
                    path.display()
                ),
            );
        }
        if unit.makes(path) && !path.exists() {
            return Finding::note(
                key,
                format!(
                    "there is no directory {}; denoised.service makes it at its first start",
                    path.display()
                ),
                format!("nothing to do; {install} makes it now, for `denoised build-engines`"),
            );
        }
    }
    if !path.is_dir() {
        return match path.metadata() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !user.is_caller() => {
                user.denied(key, path, "write to", &AccessError::Hidden(path.to_owned()), next())
            }
            _ if will_be_created(path, user) => {
                Finding::good(key, format!("{} will be created", path.display()))
            }
            _ => Finding::missing(key, format!("there is no directory {}", path.display()), next()),
        };
    }
    let written = spool_file::try_writing(path);
    if let Err(error) = written.as_ref()
        && matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    {
        let cause = match error.kind() {
            ErrorKind::StorageFull => String::new(),
            _ => format!(": {error}"),
        };
        return Finding::missing(
            key,
            format!("{} has no room{cause}", path.display()),
            format!("free space on this disk, or set {key} to another directory"),
        );
    }
    if user.is_caller() {
        return match written {
            Ok(()) => Finding::good(key, format!("{} is writable", path.display())),
            Err(error) => {
                Finding::missing(key, format!("{} is not writable: {error}", path.display()), next())
            }
        };
    }
    match user.check(path, Access::Write) {
        Ok(()) => Finding::good(key, format!("{} is writable for {}", path.display(), user.name())),
        Err(error) => user.denied(key, path, "write to", &error, next()),
    }
}

/// Whether the daemon can create a directory that is missing, with those on the way to it.
fn will_be_created(path: &Path, user: &JudgedUser) -> bool {
    let existing = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir());
    // A relative path begins in the working directory.
    let parent = existing.unwrap_or(Path::new("."));
    match user.is_caller() {
        true => spool_file::try_writing(parent).is_ok(),
        false => user.check(parent, Access::Write).is_ok(),
    }
}

/// A file that the daemon reads.
fn file(key: &str, path: &Path, user: &JudgedUser) -> Finding {
    if let Some(hidden) = hidden(key, path, user) {
        return hidden;
    }
    let next = || match user.check(path, Access::Read) {
        Err(AccessError::Missing(_)) => format!("create it, or correct {key}"),
        _ => format!("sudo chown {0} {1} && sudo chmod u+r {1}", user.argument(), path.display()),
    };
    if user.is_caller() {
        return match std::fs::File::open(path) {
            Ok(_) => Finding::good(key, format!("{} is readable", path.display())),
            Err(error) => {
                Finding::missing(key, format!("{} is not readable: {error}", path.display()), next())
            }
        };
    }
    match user.check(path, Access::Read) {
        Ok(()) => Finding::good(key, format!("{} is readable for {}", path.display(), user.name())),
        Err(error) => user.denied(key, path, "read", &error, next()),
    }
}

/// The finding of a file that can be read, if its contents are at fault. An error begins with the key.
fn with_contents(readable: Finding, faults: &[String]) -> Finding {
    let key = &readable.about;
    let fault = faults.iter().find_map(|fault| fault.strip_prefix(key.as_str())?.strip_prefix(' '));
    match fault.filter(|_| readable.state == FindingState::Good) {
        Some(fault) => Finding::missing(key, fault, format!("correct the file, or set {key} to another one")),
        None => readable,
    }
}

/// A path that the unit hides from the daemon.
fn hidden(about: &str, path: &Path, user: &JudgedUser) -> Option<Finding> {
    let setting = user.unit.as_ref()?.hides(path)?;
    Some(Finding::missing(
        about,
        format!("denoised.service does not see {}, because of its setting {setting}", path.display()),
        "move it, for example to /srv, and change the configuration".to_owned(),
    ))
}

/// The password that systemd passes to the daemon, if the configuration has a user name and no password file.
fn password_credential(config: &Config, user: &JudgedUser) -> Option<Finding> {
    if config.mqtt.username.is_empty() || config.mqtt.password_file.is_some() {
        return None;
    }
    let about = "mqtt password";
    let path = Path::new(user.unit.as_ref().and_then(|unit| unit.credential(CREDENTIAL))?);
    Some(match path.metadata() {
        Ok(metadata) if metadata.len() > 0 => match broker::credential_fault(path) {
            Some(fault) => Finding::missing(about, fault.to_string(), "correct the file"),
            None => Finding::good(about, format!("{}, which systemd passes to the daemon", path.display())),
        },
        Ok(_) => Finding::note(
            about,
            format!("{} is empty, so that the user {} has no password", path.display(), config.mqtt.username),
            format!("write the password to {}", path.display()),
        ),
        Err(error) => Finding::missing(
            about,
            format!("denoised.service does not start without {}: {error}", path.display()),
            format!("sudo install -m 600 /dev/null {0}, and write the password to it", path.display()),
        ),
    })
}

/// Variables that change what `doctor` sees, and that the service does not have.
fn variables_of_the_caller(config: &Config, user: &JudgedUser) -> Option<Finding> {
    user.unit.as_ref()?;
    let is_ours = |name: &String| {
        (name.starts_with("DENOISED_") && !config.ignored_variables.contains(name))
            || name == "ORT_DYLIB_PATH"
    };
    let mut names: Vec<_> =
        crate::config::process_environment().map(|(name, _)| name).filter(is_ours).collect();
    names.sort();
    (!names.is_empty()).then(|| {
        Finding::note(
            "variables",
            format!("{} are set here, but not for denoised.service", names.join(", ")),
            format!("set the keys in {} instead", crate::config::DEFAULT_FILE),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_directory_with_links_to_its_parents_is_checked_once() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("unet");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("model.onnx"), "").unwrap();
        for link in ["a", "b", "c"] {
            std::os::unix::fs::symlink("..", inner.join(link)).unwrap();
        }
        let (checks, denied) = (Cell::new(0), Cell::new(false));
        let check = |file: &Path| {
            checks.set(checks.get() + 1);
            match denied.get() && file.ends_with("model.onnx") {
                true => Err(AccessError::Hidden(file.to_owned())),
                false => Ok(()),
            }
        };
        assert_eq!(first_unreadable(root.path(), &check, &mut BTreeSet::new()), None);
        // Two directories, three links and a file.
        assert_eq!(checks.get(), 6);
        denied.set(true);
        let file = inner.join("model.onnx");
        let expected = Some((file.clone(), AccessError::Hidden(file)));
        assert_eq!(first_unreadable(root.path(), &check, &mut BTreeSet::new()), expected);
    }
}
