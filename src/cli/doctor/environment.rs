//! The broker, the models, the directories and the groups that the daemon needs.

use std::path::Path;

use super::finding::Finding;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::platform::Platform;

pub(super) fn findings(config: &Config, platform: &Platform) -> Vec<Finding> {
    let mut findings = super::broker::findings(config);
    findings.extend(config.models.paths.iter().map(|path| model(path)));
    findings.push(directory("spool.path", &config.spool.path));
    if config.engine.providers.iter().any(|provider| provider.builds_engines()) {
        findings.push(directory("engine.cache", &config.engine.cache));
    }
    findings.extend(["video", "render"].into_iter().filter_map(|group| group_membership(platform, group)));
    findings
}

fn model(path: &Path) -> Finding {
    match Bundle::open(path) {
        Ok(bundle) => Finding::good("model", format!("{} ({})", bundle.name, path.display())),
        Err(error) => Finding::missing(
            "model",
            error.to_string(),
            "set [models] paths to the directories of exported models; `denoised inspect DIRECTORY` shows what a directory has",
        ),
    }
}

fn directory(key: &str, path: &Path) -> Finding {
    let next = || {
        format!("sudo install -d -m 700 -o \"$USER\" {0}, or set {key} to another directory", path.display())
    };
    if !path.is_dir() {
        return Finding::missing(key, format!("there is no directory {}", path.display()), next());
    }
    match tempfile::tempfile_in(path) {
        Ok(_) => Finding::good(key, format!("{} is writable", path.display())),
        Err(error) => Finding::missing(key, format!("{} is not writable: {error}", path.display()), next()),
    }
}

/// On a Jetson, checks that this user is in a group that owns the GPU's device nodes.
fn group_membership(platform: &Platform, group: &str) -> Option<Finding> {
    platform.l4t_release()?;
    let about = format!("group {group}");
    let Some(number) = platform.group(group) else {
        return Some(Finding::note(
            &about,
            "there is no such group",
            "nothing to do: this JetPack does not have it",
        ));
    };
    let ours = platform.groups_of_this_process();
    if ours.contains(&number) || ours.contains(&0) {
        return Some(Finding::good(&about, "this user is a member"));
    }
    let next = format!(
        "sudo usermod -aG {group} \"$USER\", then log in again; the service's own user already is a member"
    );
    Some(Finding::note(&about, "this user is not a member, so CUDA may find no GPU", next))
}
