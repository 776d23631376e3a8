//! The broker, the configuration, the topics and the groups.

use super::finding::Finding;
use super::judged_user::JudgedUser;
use crate::config::Config;
use crate::platform::Platform;

/// Checks the broker and what the configuration sets without effect.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = super::broker::findings(config);
    findings.extend(topics(config));
    findings.extend(
        config
            .warnings()
            .into_iter()
            .map(|warning| Finding::note("configuration", warning, "change or remove the key")),
    );
    if let Some(path) = crate::service::broker::unused_password(config) {
        findings.push(Finding::note(
            "mqtt password",
            format!("the password in {} is not sent, because mqtt.username is not set", path.display()),
            "set mqtt.username, or empty the file",
        ));
    }
    if !config.ignored_variables.is_empty() {
        let found = format!("{} are ignored", config.ignored_variables.join(", "));
        findings.push(Finding::note(
            "variables",
            found,
            "nothing to do: they are not keys of the configuration",
        ));
    }
    findings
}

/// Checks that the root of the topics is the one that the daemon served before.
fn topics(config: &Config) -> Option<Finding> {
    match crate::service::root_change(config) {
        Ok(change) => change.map(|change| Finding::note("topics", change.found, change.next)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(Finding::note(
            "topics",
            "the root of the daemon's last start is hidden from the user of this command",
            "sudo denoised doctor compares it with the present one",
        )),
        Err(_) => None,
    }
}

/// On a Jetson, checks that the user is in the groups that own the GPU's device nodes.
pub(super) fn groups(platform: &Platform, user: &JudgedUser) -> Vec<Finding> {
    if platform.l4t_release().is_none() {
        return Vec::new();
    }
    ["video", "render"].into_iter().map(|group| group_membership(platform, group, user)).collect()
}

fn group_membership(platform: &Platform, group: &str, user: &JudgedUser) -> Finding {
    let about = format!("group {group}");
    let Some(number) = platform.group(group) else {
        return Finding::note(
            &about,
            "there is no such group",
            "nothing to do: this JetPack does not have it",
        );
    };
    if user.is_member(number) {
        return Finding::good(&about, format!("{} is a member", user.name()));
    }
    let next = if user.is_caller() {
        format!(
            "sudo usermod -aG {group} \"$USER\", then log in again; the service's own user already is a member"
        )
    } else {
        format!("sudo usermod -aG {group} {}, then sudo systemctl restart denoised", user.argument())
    };
    Finding::note(&about, format!("{} is not a member, so CUDA may find no GPU", user.name()), next)
}
